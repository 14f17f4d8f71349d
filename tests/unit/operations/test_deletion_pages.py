"""The pages of deletions and legal holds, in the RIS's application with its seeded day."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from ris_service.app import create_app
from tests.unit.ris_service.seeding import CHEST, OLD, OURS, Hospital, csrf, seeded
from zambezi import clock, users
from zambezi.access import ROLES
from zambezi.database.tables import Deletion, DeletionItem, LegalHold

SETS = (*OURS, "operations.custody.deletion_pages:pages")
ORTHANC = f"orthanc-{CHEST}"


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    made = seeded(tmp_path / "home")
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, SETS)
    with made.sessions.begin() as session:
        users.find(session, "pacs-administrator").language = "en"
        users.find(session, "administrator").language = "en"
    return made


def post(client: FlaskClient, page: str, to: str, **form: str):
    word = csrf(client.get(page).text)
    return client.post(to, data={"csrf_token": word, **form})


def asked(hospital: Hospital, **form: str) -> tuple[FlaskClient, int]:
    client = hospital.signed_in("pacs-administrator")
    given = {"study": CHEST, "archive": ORTHANC, "code": "quality", "reason": "movement", **form}
    answer = post(client, f"/deletions/new?study={CHEST}", "/deletions", **given)
    assert answer.status_code == 303, answer.text
    return client, int(answer.location.rsplit("/", 1)[1])


def row(hospital: Hospital, number: int) -> Deletion:
    with hospital.sessions.begin() as session:
        return session.get_one(Deletion, number)


def test_the_study_s_page_leads_to_the_question_and_says_what_was_asked(hospital: Hospital):
    client = hospital.signed_in("pacs-administrator")
    assert f"/deletions/new?study={CHEST}" in client.get(f"/studies/{CHEST}").text
    form = client.get(f"/deletions/new?study={CHEST}").text
    assert "120" in form and "60 images" in form and "3 days" in form
    assert "That may be: Marta Nhantumbo." in form, "who may be the second person"
    _, number = asked(hospital)
    reader = hospital.signed_in("radiologist")
    for page in (f"/studies/{CHEST}", f"/studies/{CHEST}/report"):
        shown = reader.get(page).text
        assert "foi pedida por pacs-administrator" in shown
        assert "/deletions" not in shown, "no link for who may not open it"
    assert f"/deletions/{number}" in client.get(f"/studies/{CHEST}").text


def test_the_asker_can_not_confirm_the_other_can_and_anybody_withdraws(hospital: Hospital):
    client, number = asked(hospital)
    page = client.get(f"/deletions/{number}").text
    assert "another person must confirm it" in page
    assert f"/deletions/{number}/confirm" not in page
    answer = post(client, f"/deletions/{number}", f"/deletions/{number}/confirm", looked="on")
    assert (answer.status_code, row(hospital, number).state) == (409, "asked")
    assert "You asked for it" in answer.text
    second = hospital.signed_in("administrator")
    assert post(second, f"/deletions/{number}", f"/deletions/{number}/confirm").status_code == 400, "has not looked"
    answer = post(second, f"/deletions/{number}", f"/deletions/{number}/confirm", looked="on")
    assert answer.status_code == 303
    found = row(hospital, number)
    assert (found.state, found.confirmed_by, found.not_before) == (
        "confirmed", "administrator", "2026-03-05T08:30:00.000000Z",
    )  # fmt: skip
    shown = client.get(f"/deletions/{number}").text
    assert "05/03/2026 10:30" in shown, "in the site's time"
    answer = post(client, f"/deletions/{number}", f"/deletions/{number}/withdraw", reason="a mistake")
    assert (answer.status_code, row(hospital, number).state) == (303, "withdrawn")


def test_what_went_is_said_on_the_study_and_can_be_put_back(hospital: Hospital):
    client, number = asked(hospital)
    with hospital.sessions.begin() as session:
        found = session.get_one(Deletion, number)
        found.state, found.confirmed_by, found.done_at = "done", "administrator", clock.text(hospital.clock())
        found.confirmed_at = found.not_before = found.done_at
        for n in range(3):
            session.add(
                DeletionItem(deletion_id=number, orthanc_id=f"{n}", sop_uid=f"{n}", series_uid="s", state="gone")
            )
    shown = client.get(f"/studies/{CHEST}").text
    assert "3 images of this study left the archive" in shown and f"/deletions/{number}#restore" in shown
    answer = post(client, f"/deletions/{number}", f"/deletions/{number}/restore", reason="")
    assert answer.status_code == 409
    answer = post(client, f"/deletions/{number}", f"/deletions/{number}/restore", reason="it was right")
    assert (answer.status_code, row(hospital, number).state) == (303, "restoring")


def test_a_legal_hold_from_the_study_s_page(hospital: Hospital):
    client, number = asked(hospital)
    assert f"/legal-holds?study={CHEST}" in client.get(f"/studies/{CHEST}").text
    answer = post(client, f"/legal-holds?study={CHEST}", "/legal-holds", study=CHEST, patient="", reason="court 12/26")
    assert answer.status_code == 303
    second = hospital.signed_in("administrator")
    shown = second.get(f"/deletions/{number}").text
    assert 'role="alert"' in shown and "nothing of this study may be deleted" in shown
    assert f"/deletions/{number}/confirm" not in shown
    assert post(second, f"/deletions/{number}", f"/deletions/{number}/confirm", looked="on").status_code == 409
    assert "retenção legal" in hospital.signed_in("radiologist").get(f"/studies/{CHEST}").text
    assert 'name="reason"' not in client.get(f"/deletions/new?study={CHEST}").text, "nothing to ask for"
    with hospital.sessions.begin() as session:
        hold = session.scalars(select(LegalHold)).one()
    assert post(client, "/legal-holds", f"/legal-holds/{hold.id}/lift", reason="").status_code == 409
    assert post(client, "/legal-holds", f"/legal-holds/{hold.id}/lift", reason="closed").status_code == 303
    assert "Lifted by pacs-administrator" in client.get("/legal-holds").text
    assert post(client, "/legal-holds", "/legal-holds", study="", patient="", reason="x").status_code == 409


@pytest.mark.parametrize("role", [one for one in ROLES if one not in ("emergency", "guest")])
def test_only_who_decides_on_deletions_sees_the_pages(hospital: Hospital, role: str):
    _, number = asked(hospital)
    client = hospital.signed_in(role)
    wanted = 200 if "deletion.decide" in ROLES[role] else 403
    for page in ("/deletions", f"/deletions/{number}", f"/deletions/new?study={CHEST}", "/legal-holds"):
        assert client.get(page).status_code == wanted, page
    if wanted == 403:
        word = csrf(client.get("/account").text)
        for path in ("confirm", "withdraw", "again", "restore"):
            answer = client.post(f"/deletions/{number}/{path}", data={"csrf_token": word, "reason": "x"})
            assert answer.status_code == 403
        for path in ("/deletions", "/legal-holds", "/legal-holds/1/lift"):
            assert client.post(path, data={"csrf_token": word}).status_code == 403


def test_pages_are_light_and_speak_both_languages(hospital: Hospital):
    client, number = asked(hospital, series=f"{CHEST}.1")
    pages = ("/deletions", "/deletions?show=all", f"/deletions/{number}", f"/deletions/new?study={OLD}", "/legal-holds")
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200
        assert len(gzip.compress(answer.data)) < 40_000
        assert re.search(r"https?://", answer.text) is None
    assert "one series" in client.get("/deletions").text
    with hospital.sessions.begin() as session:
        users.find(session, "pacs-administrator").language = "pt"
    assert "uma série" in client.get("/deletions").text
    assert "À espera de uma segunda pessoa" in client.get(f"/deletions/{number}").text
    assert client.get("/deletions/99").status_code == 404
    assert client.get("/deletions/new?study=9.9").status_code == 404


def test_an_open_deletion_is_pointed_at_when_it_is_asked_for_again(hospital: Hospital):
    client, number = asked(hospital)
    form = client.get(f"/deletions/new?study={CHEST}").text
    assert f'href="/deletions/{number}"' in form
    answer = post(
        client, f"/deletions/new?study={CHEST}", "/deletions", study=CHEST, archive=ORTHANC, code="other", reason="w"
    )
    assert (answer.status_code, "asked for already" in answer.text) == (409, True)
