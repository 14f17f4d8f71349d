"""A legacy source in a browser: what it can do, and what an inventory found before a byte moves."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from demo import images, migrating
from demo.hospital import Hospital, Run
from tests.e2e.screenshots import signed_in
from tests.e2e.test_devices import shot


def test_what_a_source_can_do_and_what_was_found(hospital: Hospital, browser: Browser, run: Run, tmp_path: Path):
    migrating.load(images.legacy_studies(f"{run.number}7", tmp_path), hospital.neighbours.legacy_port)
    name = f"found-{run.number}"
    hospital.zambezi("migrate", "inventory", "LEGACY", "--project", name)
    assert "yes C-MOVE to the archive" in hospital.zambezi("migrate", "probe", "LEGACY").replace("  ", " ")
    with signed_in(hospital, browser, "migracao") as page:
        page.goto("/migrations")
        page.get_by_role("link", name=name).click()
        page.get_by_role("link", name="O que se encontrou").click()
        expect(page.get_by_role("img", name="Estudos por ano e modalidade")).to_be_visible()
        expect(page.get_by_text("sem data do estudo")).to_be_visible()
        expect(page.get_by_text("Os dois eixos nomeiam os mesmos estudos")).to_be_visible()
        table = page.locator("details", has_text="Em tabela")
        table.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(table.get_by_role("row").last).to_be_visible()
        shot(page, "migration-found")
        page.get_by_role("link", name="LEGACY").click()
        source = page.locator("section", has=page.get_by_role("heading", name="LEGACY"))
        expect(source.get_by_role("row").filter(has_text="oferece C-GET")).to_contain_text("sim")
        shot(page, "migration-sources")
    with signed_in(hospital, browser, "migracao", "en") as page:
        page.goto("/migrations/sources")
        expect(page.get_by_role("row").filter(has_text="knows where to move images to")).to_contain_text("yes")
