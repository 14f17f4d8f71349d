"""The page of a folder that is migrated, in a browser, by keyboard, in both languages; no path on it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import update

from migration.folders.source import FolderSource
from ris_service.app import create_app
from tests.served import served
from tests.unit.migration.test_migration_pages import Pages
from zambezi.access.tokens import COOKIE, begin, sign
from zambezi.config.settings import Migration, MigrationSource, Zambezi
from zambezi.database.tables import MigrationProject, User
from zambezi.environment import Environment

SAMPLES = Path(pydicom.__file__).parent / "data"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Pages, str]]:
    """The pages over an index of pydicom's files, and their address."""
    made = Pages(tmp_path / "home")
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path / "home")})
    source = MigrationSource(kind="folder", folder=str(SAMPLES))
    FolderSource("DISCS", source, made.sessions, environment).find_studies(datetime.now(UTC).date())
    with made.sessions.begin() as session:
        session.execute(update(MigrationProject).values(source="DISCS"))
        session.execute(update(User).where(User.login == "migration-engineer").values(language="pt"))
    settings = Zambezi(migration=Migration(sources={"DISCS": source}))
    sets = (
        "ris_service.session_pages:pages",
        "migration.pages:pages",
        "migration.run_pages:pages",
        "migration.folders.pages:pages",
    )
    made.app = create_app(environment, settings, made.sessions, made.keys, lambda: datetime.now(UTC), sets)
    with served(made.app) as address:
        yield made, address


def test_what_lies_in_a_folder_is_seen_and_chosen_by_keyboard(running: tuple[Pages, str], browser: Browser) -> None:
    pages, address = running
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    try:
        token = begin(
            "migration-engineer", "session", "migration-engineer", int(datetime.now(UTC).timestamp()), 1800, ()
        )
        page.context.add_cookies([{"name": COOKIE, "value": sign(token, pages.keys.session_key), "url": address}])
        page.goto(f"{address}/migrations/{pages.project_id}")
        link = page.get_by_role("link", name="O que está na pasta")
        link.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Pasta DISCS")
        expect(page.get_by_text("213 ficheiros")).to_be_visible()
        expect(page.get_by_text("⚠ 20 ficheiros DICOM não nomeiam estudo")).to_be_visible()
        row = page.get_by_role("row").filter(has_text="conflito: na retenção").first
        expect(row).to_contain_text("25")
        if folder := os.environ.get("ZAMBEZI_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/migration-folder.png")
        page.get_by_label("O que é").focus()
        page.keyboard.press("ArrowDown")
        page.wait_for_url("**kind=**")
        page.get_by_label("O que é").select_option("packed")
        page.wait_for_url("**kind=packed**")
        listed = page.locator("table").last.get_by_role("row")
        expect(listed).to_have_count(2)
        expect(listed.last).to_contain_text("está compactado por gzip")
        page.goto(f"{address}/migrations/folders/DISCS")
        page.get_by_role("link", name="Mais").click()
        expect(page.locator("table").last.get_by_role("row")).to_have_count(101)
        assert "charset_files" not in page.content()
        assert "README" not in page.content()
        answer = page.request.get(f"{address}/migrations/folders/DISCS")
        assert len(gzip.compress(answer.body())) < 40_000
        assert page.request.get(f"{address}/migrations/folders/LEGACY").status == 404
        with pages.sessions.begin() as session:
            session.execute(update(User).where(User.login == "migration-engineer").values(language="en"))
        page.goto(f"{address}/migrations/folders/DISCS?kind=no-identity")
        expect(page.locator("h1")).to_have_text("Folder DISCS")
        expect(page.get_by_text("it has no StudyInstanceUID").first).to_be_visible()
    finally:
        page.close()
    assert pages.app.test_client().get("/migrations/folders/DISCS").status_code in (302, 401, 403)
