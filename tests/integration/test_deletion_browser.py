"""Two people decide on a deletion in a real browser: by keyboard, on a wide screen and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ris_service.app import create_app
from tests.integration.test_ris_browser import page, shot, sign_in
from tests.served import served
from tests.unit.ris_service.seeding import CHEST, OURS, Clock, Hospital, seeded
from zambezi import clock
from zambezi.database.tables import Deletion, DeletionItem

__all__ = ["page"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """The seeded hospital with the pages of deletions, and its address."""
    made = seeded(tmp_path / "home", moving=Clock(clock.now()))
    sets = (*OURS, "operations.custody.deletion_pages:pages")
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, sets)
    with served(made.app) as address:
        yield made, address


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sair").click()
    page.wait_for_url(re.compile(r"/session"))


def test_two_people_decide_and_a_legal_hold_stops_them(running: tuple[Hospital, str], browser: Browser, page: Page):
    hospital, address = running
    sign_in(page, address, "pacs-administrator")
    page.goto(f"{address}/studies/{CHEST}")
    page.get_by_role("link", name="Pedir uma eliminação …").click()
    expect(page.get_by_label("O que deve sair")).to_be_focused()
    shot(page, "deletion-new")
    page.keyboard.press("Tab")
    page.keyboard.type("Qual")
    page.keyboard.press("Tab")
    page.keyboard.type("Movimento em todas as imagens.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/deletions/1$"))
    expect(page.locator("main")).to_contain_text("outra pessoa tem de a confirmar")
    shot(page, "deletion-asked")
    sign_out(page)
    sign_in(page, address, "administrator")
    page.goto(f"{address}/deletions")
    shot(page, "deletions")
    page.get_by_role("link", name="Conceição, José António").click()
    page.get_by_label("Vi as imagens, e devem sair.").check()
    shot(page, "deletion-confirm")
    page.get_by_role("button", name="Confirmar a eliminação").click()
    expect(page.locator(".head")).to_contain_text("Confirmada, corre o tempo de espera")
    shot(page, "deletion-confirmed")
    page.goto(f"{address}/studies/{CHEST}")
    expect(page.get_by_role("alert").first).to_contain_text("confirmado por administrator")
    page.get_by_role("link", name="Retenção legal …").click()
    page.get_by_label("Porquê, e quem a pediu").fill("Tribunal, processo 12/2026")
    page.get_by_role("button", name="Pôr agora").click()
    expect(page.locator("main")).to_contain_text("Em vigor")
    shot(page, "legal-holds")
    page.set_viewport_size({"width": 390, "height": 800})
    for name, path in {"deletion": "/deletions/1", "deletions": "/deletions", "legal-holds": "/legal-holds"}.items():
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is wider than a phone"
        shot(page, f"phone-{name}")
    with hospital.sessions.begin() as session:
        found = session.get_one(Deletion, 1)
    assert (found.state, found.code, found.confirmed_by) == ("asked", "quality", None)


def test_what_left_the_archive_is_said_on_the_study_and_comes_back_by_a_button(
    running: tuple[Hospital, str], browser: Browser, page: Page
):
    hospital, address = running
    at = clock.text(hospital.clock())
    with hospital.sessions.begin() as session:
        done = Deletion(
            study_uid=CHEST, study_orthanc_id=f"orthanc-{CHEST}", code="patient-safety", reason="Outro paciente.",
            state="done", asked_by="pacs-administrator", asked_at=at, confirmed_by="administrator", confirmed_at=at,
            not_before=at, done_at=at, next_at=at, updated_at=at, outcome="120 images left the archive",
        )  # fmt: skip
        session.add(done)
        session.flush()
        for n in range(120):
            gone = {"orthanc_id": str(n), "sop_uid": f"1.{n}", "series_uid": f"{CHEST}.1", "state": "gone"}
            session.add(DeletionItem(deletion_id=done.id, **gone))
    sign_in(page, address, "radiologist")
    page.goto(f"{address}/studies/{CHEST}/report")
    expect(page.get_by_role("alert")).to_contain_text("120 imagens deste estudo saíram do arquivo")
    expect(page.get_by_role("link", name="Repor as imagens …")).to_have_count(0)
    shot(page, "deletion-report")
    sign_out(page)
    sign_in(page, address, "pacs-administrator")
    page.goto(f"{address}/studies/{CHEST}")
    shot(page, "deletion-study")
    page.get_by_role("link", name="Repor as imagens …").click()
    page.get_by_label("Porque voltam").fill("Era mesmo este paciente.")
    shot(page, "deletion-done")
    page.keyboard.press("Enter")
    expect(page.locator(".head")).to_contain_text("A ser reposta")
    with hospital.sessions.begin() as session:
        assert session.get_one(Deletion, done.id).restored_by == "pacs-administrator"
