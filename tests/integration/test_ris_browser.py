"""The pages in a real browser: keys, autosave, signing, nothing that the content policy had to block."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.served import served
from tests.unit.ris_service.seeding import CHEST, PASSWORD, Clock, Hospital, seeded
from zambezi import audit, clock, exception_kinds, exceptions, reports
from zambezi.database.tables import ExceptionItem


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """A seeded hospital behind the server it runs with, and its address."""
    made = seeded(tmp_path / "home", moving=Clock(clock.now()))
    with served(made.app) as address:
        yield made, address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1366, "height": 768})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    assert [one for one in complaints if "status of 4" not in one] == []


def shot(page: Page, name: str) -> None:
    """A picture, where ZAMBEZI_SCREENSHOTS names a folder for it."""
    if folder := os.environ.get("ZAMBEZI_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def sign_in(page: Page, address: str, login: str) -> None:
    page.goto(address)
    shot(page, "sign-in")
    page.get_by_label("Utilizador").fill(login)
    page.get_by_label("Palavra-passe").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/$"))


def test_a_radiologist_finds_writes_and_signs_with_the_keyboard(running, page):
    hospital, address = running
    sign_in(page, address, "radiologist")
    page.goto(f"{address}/?day=week")
    shot(page, "worklist")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    shot(page, "keys")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("conceicao")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Conceição, José António")
    shot(page, "order")
    page.keyboard.press("r")
    page.wait_for_url(re.compile(r"/report$"))
    page.get_by_label("Achados").fill("Opacidade no lobo superior direito.")
    page.get_by_label("Conclusão").fill("Tuberculose provável.")
    page.keyboard.press("Control+s")
    expect(page.locator("[data-status]")).to_contain_text("Guardado às")
    shot(page, "report")
    with hospital.sessions.begin() as session:
        assert reports.latest(session, CHEST).findings == "Opacidade no lobo superior direito."
    page.get_by_role("button", name="Assinar …").click()
    page.wait_for_url(re.compile(r"/sign$"))
    expect(page.get_by_role("button", name="Assinar como")).to_be_focused()
    shot(page, "report-sign")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("O relatório está assinado")
    shot(page, "report-signed")
    with hospital.sessions.begin() as session:
        signed = reports.latest(session, CHEST)
    assert (signed.state, signed.signed_by) == ("final", "Dr.ª Amélia Conceição")
    assert signed.pdf.startswith(b"%PDF")


def test_autosave_says_plainly_that_somebody_else_was_faster(running, page):
    hospital, address = running
    sign_in(page, address, "radiologist")
    page.goto(f"{address}/studies/{CHEST}/report")
    page.get_by_label("Achados").fill("o meu texto")
    with hospital.sessions.begin() as session:
        now = hospital.clock()
        reports.begin(session, CHEST, None, author="second", language="pt", now=now, writer="ris")
        reports.save(session, CHEST, 1, 0, reports.Text("", "outro texto", ""), who="second", now=now, writer="ris")
    page.keyboard.press("Control+s")
    expect(page.locator("[data-status]")).to_contain_text("Dr. Farai Ncube guardou este relatório")
    expect(page.get_by_label("Achados")).to_have_value("o meu texto")
    shot(page, "report-conflict")
    with hospital.sessions.begin() as session:
        assert reports.latest(session, CHEST).findings == "outro texto"
    page.once("dialog", lambda dialog: dialog.accept())


def test_exceptions_are_selected_and_decided_with_the_keyboard(running, page):
    hospital, address = running
    with hospital.sessions.begin() as session:
        for n, kind in enumerate(exception_kinds.KINDS):
            facts = dict.fromkeys(
                ("source", "rule", "message", "number", "accession", "place", "event", "change"), "CT1"
            )
            exceptions.wait(
                session, "archive", kind, what="", suggestion="", kind=kind,
                now=hospital.clock() - timedelta(hours=n * n),
                facts={**facts, "attempts": 3, "free": "9.1", "total": "900", "reason": "connection refused"},
            )  # fmt: skip
    sign_in(page, address, "administrator")
    expect(page.locator("nav .badge")).to_have_text(str(len(exception_kinds.KINDS) + 2))
    page.goto(f"{address}/exceptions")
    for key in "jxjjx":
        page.keyboard.press(key)
    expect(page.locator("tbody input:checked")).to_have_count(2)
    expect(page.locator("[data-selected]")).to_have_text("2")
    shot(page, "exceptions-selected")
    chosen = [int(box.get_attribute("value")) for box in page.locator("tbody input:checked").all()]
    page.get_by_label("O que se decidiu").fill("Visto com o fabricante.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("A sua decisão está registada")
    with hospital.sessions.begin() as session:
        rows = [session.get_one(ExceptionItem, number) for number in chosen]
        assert [(row.decided_by, row.decision) for row in rows] == [("administrator", "Visto com o fabricante.")] * 2
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/exceptions/\d+$"))
    shot(page, "exception")
    page.goto(f"{address}/exceptions/{chosen[0]}")
    expect(page.get_by_text("Visto com o fabricante.").first).to_be_visible()
    page.goto(f"{address}/exceptions?kind=mpps-no-order")
    page.get_by_role("link", name="Decidir todas deste tipo").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("O que se decidiu")).to_be_focused()
    shot(page, "exceptions-all")
    page.keyboard.type("Ensaio.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("A sua decisão está registada")
    page.goto(f"{address}/exceptions/rules?kind=mpps-no-order&source=CT1")
    page.get_by_label("Nome").fill("ensaios do CT1")
    page.get_by_label("Decisão").fill("Exame de ensaio.")
    page.get_by_label("Motivo").fill("O CT1 está em ensaio até Maio.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Fazer a regra")).to_be_focused()
    shot(page, "exception-rule")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("A regra vale a partir de agora")
    shot(page, "exception-rules")


def test_who_has_seen_a_patient_is_found_with_the_keyboard_and_taken_out_as_a_file(running, page):
    hospital, address = running
    with hospital.sessions.begin() as session:
        audit.append(session, "orthanc-1", "viewed", hospital.clock(), who="second", study_uid=CHEST)
    sign_in(page, address, "administrator")
    page.goto(f"{address}/audit")
    page.get_by_role("link", name="Quem viu um paciente").focus()
    page.keyboard.press("Enter")
    page.get_by_label("N.º do paciente").fill("P1001")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Dr. Farai Ncube").focus()
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("estudo aberto")
    with page.expect_download() as taken:
        page.get_by_role("link", name="CSV").click()
    assert "second" in taken.value.path().read_text(encoding="utf-8")


def test_the_other_pages_stand_in_the_browser_without_a_complaint(running, page):
    _hospital, address = running
    sign_in(page, address, "administrator")
    for name, path in {
        "studies": "/studies", "study": f"/studies/{CHEST}", "deliveries": "/deliveries?state=all",
        "exceptions": "/exceptions", "audit": f"/audit?study={CHEST}", "audit-seen": "/audit/seen?patient=P1001",
        "audit-person": "/audit/person?who=radiologist", "users": "/users", "account": "/account",
        "order-new": "/orders/new?patient_id=P1001", "problem": "/nothing",
    }.items():  # fmt: skip
        page.goto(address + path)
        shot(page, name)
        expect(page.locator("h1").first).to_be_visible()
