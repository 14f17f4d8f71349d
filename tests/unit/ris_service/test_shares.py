"""Links that share studies: made, opened with a PIN or without, limited, revoked; nothing else is reached by one."""

from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import select

from tests.unit.ris_service.seeding import CHEST, KNEE, OLD, Hospital, csrf
from tests.unit.ris_service.test_access import routes
from zambezi.access import PUBLIC
from zambezi.access.tokens import COOKIE, Token, read
from zambezi.database.tables import AuditEntry, Revocation, ShareLink, Study


def link(hospital: Hospital, *studies: str, role: str = "radiologist", **form: object) -> str:
    """The path of a new link."""
    client = hospital.signed_in(role)
    word = csrf(client.get(f"/shares/new?study={studies[0]}").text)
    data = {"csrf_token": word, "study": list(studies), "recipient": "Dr. Gumbo", "days": 7, "may": "view", "pin": ""}
    answer = client.post("/shares", data={**data, **form})
    assert answer.status_code == 200, answer.text[:800]
    found = re.search(r"http://localhost(/s/[\w-]{32})<", answer.text)
    assert found, answer.text
    return found[1]


def opened(hospital: Hospital, path: str, client=None, **form: str):
    """A stranger's browser that has asked to open the link, and the answer."""
    client = client or hospital.client()
    word = csrf(client.get(path).text)
    return client, client.post(path, data={"csrf_token": word, **form})


def carried(hospital: Hospital, client) -> Token:
    return read(client.get_cookie(COOKIE).value, hospital.keys.session_key, int(hospital.clock().timestamp()))


def entries(hospital: Hospital, *events: str) -> list[dict]:
    with hospital.sessions.begin() as session:
        rows = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event.in_(events)).order_by(AuditEntry.seq)
        ).all()
    return [json.loads(row) for row in rows]


def test_a_link_opens_its_studies_to_a_stranger_and_says_who_when(hospital):
    path = link(hospital, CHEST, OLD)
    looked = hospital.client().get(path)
    assert looked.status_code == 200 and "Concei" not in looked.text  # to look at a link opens nothing
    assert entries(hospital, "share-opened") == []
    client, answer = opened(hospital, path)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/shared")
    token = carried(hospital, client)
    assert (token.kind, token.role, set(token.studies), token.download) == ("share", "guest", {CHEST, OLD}, False)
    page = client.get("/shared").text
    assert CHEST in page and OLD in page and KNEE not in page and "/archive" not in page
    told = entries(hospital, "share-opened")
    assert {(one["study_uid"], one["who"], one["session"]) for one in told} == {
        (uid, token.subject, token.session) for uid in (CHEST, OLD)
    }
    made = entries(hospital, "share-changed")
    assert {(one["study_uid"], one["who"], one["change"]) for one in made} == {
        (uid, "radiologist", "made") for uid in (CHEST, OLD)
    }
    with hospital.sessions.begin() as session:
        kept = session.scalars(select(ShareLink)).one()
        assert path.rpartition("/")[2] not in repr(vars(kept)), "the secret is kept nowhere"


def test_nothing_else_of_the_pages_is_reached_by_a_link(hospital):
    client, _ = opened(hospital, link(hospital, CHEST))
    reached = []
    for method, path, permission in routes(hospital.app):
        status = client.open(path.replace(CHEST, KNEE), method=method).status_code
        if permission != PUBLIC and status not in (400, 401, 403, 404):
            reached.append((method, path, status))
    assert sorted(reached) == [("GET", "/session/renew", 204), ("GET", "/shared", 200)]


def test_a_link_that_lets_download_says_so(hospital):
    client, _ = opened(hospital, link(hospital, CHEST, may="download"))
    assert carried(hospital, client).download
    assert f"/orthanc/studies/orthanc-{CHEST}/archive" in client.get("/shared").text


def test_a_pin_is_wanted_and_guessing_locks_and_then_ends_the_link(hospital):
    path = link(hospital, CHEST, pin="4711")
    client, answer = opened(hospital, path)
    assert answer.status_code == 403
    for _ in range(5):
        assert opened(hospital, path, client, pin="0000")[1].status_code == 403
    assert opened(hospital, path, client, pin="4711")[1].status_code == 403, "locked, to the right PIN too"
    hospital.clock.pass_by(minutes=16)
    _, answer = opened(hospital, path, pin="4711")
    assert answer.status_code == 303
    for _ in range(3):
        for _ in range(5):
            opened(hospital, path, client, pin="0000")
        hospital.clock.pass_by(minutes=16)
    assert client.get(path).status_code == 404
    with hospital.sessions.begin() as session:
        kept = session.scalars(select(ShareLink)).one()
        assert (kept.revoked_by, kept.wrong) == ("too many wrong PINs", 20)
        assert session.get(Revocation, f"share:{kept.id}")
    assert len([e for e in entries(hospital, "sign-in-failed") if e["reason"] == "share link: pin-wrong"]) == 20


def test_a_link_ends_with_its_time_and_its_tokens_with_it(hospital):
    path = link(hospital, CHEST, days=1)
    hospital.clock.pass_by(hours=23)
    client, answer = opened(hospital, path)
    assert answer.status_code == 303
    token = carried(hospital, client)
    assert token.expires - token.started == 3600
    hospital.clock.pass_by(minutes=61)
    assert client.get("/shared").status_code == 401
    gone = hospital.client().get(path)
    assert gone.status_code == 404 and "Its time is over" in hospital.client().get(path + "?lang=en").text


def test_a_revoked_link_takes_back_what_it_opened(hospital):
    path = link(hospital, CHEST)
    client, _ = opened(hospital, path)
    assert client.get("/shared").status_code == 200
    owner = hospital.signed_in("radiologist")
    word = csrf(owner.get("/shares").text)
    assert hospital.signed_in("second").get("/shares").status_code in (200, 401)
    assert owner.post("/shares/1/revoke", data={"csrf_token": word}).status_code == 303
    assert client.get("/shared").status_code == 401
    assert hospital.client().get(path).status_code == 404
    with hospital.sessions.begin() as session:
        assert session.get(Revocation, "share:1")
    assert [e["change"] for e in entries(hospital, "share-changed")] == ["made", "revoked"]


def test_a_link_belongs_to_who_made_it_and_administrators_see_all(hospital):
    link(hospital, CHEST)
    second = hospital.signed_in("radiologist", login="second")
    assert "Dr. Gumbo" not in second.get("/shares").text
    word = csrf(second.get("/shares").text)
    assert second.post("/shares/1/revoke", data={"csrf_token": word}).status_code == 404
    assert "Dr. Gumbo" in hospital.signed_in("administrator").get("/shares").text


@pytest.mark.parametrize(
    "form", [{"days": 400}, {"days": 0}, {"days": -3}, {"pin": "12"}, {"pin": "abcd"}, {"pin": "1" * 13}]
)
def test_a_link_that_would_be_too_open_is_not_made(hospital, form):
    client = hospital.signed_in("radiologist")
    word = csrf(client.get(f"/shares/new?study={CHEST}").text)
    data = {"csrf_token": word, "study": [CHEST], "recipient": "x", "days": 7, "may": "view", "pin": "", **form}
    assert client.post("/shares", data=data).status_code == 400
    with hospital.sessions.begin() as session:
        assert session.scalars(select(ShareLink)).all() == []


def test_a_study_that_is_not_there_or_not_theirs_is_not_shared(hospital):
    client = hospital.signed_in("radiologist")
    word = csrf(client.get("/shares").text)
    data = {"csrf_token": word, "study": ["1.2.3.99"], "recipient": "x", "days": 7, "may": "view", "pin": ""}
    assert client.post("/shares", data=data).status_code == 404
    assert client.post("/shares", data={**data, "study": [CHEST, "1.2.3.99"]}).status_code == 404
    assert client.post("/shares", data={**data, "study": []}).status_code == 404


def test_a_guessed_secret_is_nothing(hospital):
    link(hospital, CHEST)
    for secret in ("x" * 32, "", "../shares", "%00"):
        assert hospital.client().get(f"/s/{secret}").status_code in (401, 404)


def test_no_link_is_made_to_a_study_that_is_two_patients(hospital):
    with hospital.sessions.begin() as session:
        mine = session.scalars(select(Study).where(Study.study_uid == OLD)).one()
        theirs = {"orthanc_id": "theirs", "patient_id": "X10", "patient_name": "OUTRO^"}
        kept = {name: getattr(mine, name) for name in ("cause", "first_at", "last_at", "modalities", "instances")}
        session.add(Study(study_uid=OLD, **kept, **theirs))
    client = hospital.signed_in("radiologist")
    word = csrf(client.get(f"/shares/new?study={CHEST}").text)
    form = {"csrf_token": word, "study": [CHEST, OLD], "recipient": "", "days": 7, "may": "view", "pin": ""}
    assert client.post("/shares", data=form).status_code == 409
    with hospital.sessions.begin() as session:
        assert session.scalars(select(ShareLink)).all() == []
