"""Old records in a real browser: an engineer decides by keyboard whose patient it is, a radiologist reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from migration.records import importing, previewing
from ris_service.app import create_app
from tests.integration.test_ris_browser import page, shot  # noqa: F401  # fixtures
from tests.served import served
from tests.unit.migration.old_ris import job, written
from tests.unit.migration.test_records_pages import EXAMS, PATIENTS, REPORTS
from tests.unit.ris_service.seeding import OLD, OURS, Clock, Hospital, seeded
from zambezi import clock
from zambezi.access.tokens import COOKIE, sign
from zambezi.database.tables import LegacyReport


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """A seeded hospital into which an old RIS was imported, behind the server it runs with."""
    made, folder = seeded(tmp_path / "home", moving=Clock(clock.now())), tmp_path / "old"
    folder.mkdir()
    wrong = "79;Tembe;Rosa;31/02/1970;Feminino\n"
    written(folder, patients=PATIENTS + wrong, exams=EXAMS.format(old=OLD), reports=REPORTS)
    with made.sessions.begin() as session:
        importing.enter(job(made.sessions, folder), session).preview = previewing.preview(job(made.sessions, folder), 5)
    importing.run(job(made.sessions, folder))
    sets = (*OURS, "migration.pages:pages", "migration.records_pages:pages")
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, sets)
    with served(made.app) as address:
        yield made, address


def signed_in(page: Page, hospital: Hospital, address: str, role: str) -> None:  # noqa: F811
    value = sign(hospital.token(role), hospital.keys.session_key)
    page.context.add_cookies([{"name": COOKIE, "value": value, "url": address}])


def tab_to(page: Page, what: str) -> None:  # noqa: F811
    """Press Tab until the element is focused, as somebody without a mouse does."""
    for _n in range(60):
        if page.evaluate(f"document.activeElement.matches({what!r})"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{what} is not reached by the keyboard")


def test_an_engineer_decides_by_keyboard_and_a_radiologist_reads_the_old_report(running, page):  # noqa: F811
    hospital, address = running
    signed_in(page, hospital, address, "migration-engineer")
    page.goto(f"{address}/migrations/records")
    shot(page, "records-all")
    tab_to(page, "a[href$='/records/old-ris']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/records/old-ris$"))
    expect(page.get_by_text("exames sem imagens")).to_be_visible()
    shot(page, "records")
    tab_to(page, "a[href$='/preview']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/preview$"))
    expect(page.get_by_text("31/02/1970", exact=True).first).to_be_visible()
    shot(page, "records-preview")
    page.goto(f"{address}/migrations/records/old-ris?state=held")
    tab_to(page, "a[href*='/rows/']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/rows/"))
    shot(page, "records-row")
    tab_to(page, "input[name=because]")
    page.keyboard.type("mesmo cartão de saúde")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("said=decided"))
    expect(page.get_by_text("mesmo cartão de saúde")).to_be_visible()
    with hospital.sessions.begin() as session:
        for report in session.scalars(select(LegacyReport)):
            report.archive_state = "refused"
            report.archive_reason = "2 studies are joined to it: nobody can say to which it belongs"
    page.goto(f"{address}/migrations/records/old-ris")
    expect(page.get_by_text("documentos que o arquivo não pôde receber")).to_be_visible()

    signed_in(page, hospital, address, "radiologist")
    page.goto(f"{address}/studies/{OLD}/report")
    shot(page, "records-at-report")
    tab_to(page, "a[href^='/old-reports/']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/old-reports/"))
    expect(page.get_by_text("Sequelas <b>TB</b>")).to_be_visible()
    expect(page.locator("textarea")).to_have_count(0)
    expect(page.get_by_text("o ficheiro não pôde ser lá posto")).to_be_visible()
    shot(page, "records-report")
