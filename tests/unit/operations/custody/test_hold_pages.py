"""The hold's pages: both sides of a conflict, who may decide, and the view that is recorded before it is shown."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from sqlalchemy import select

from operations.custody import hold_pages
from operations.custody.identity import identify
from ris_service.app import create_app
from tests.unit.operations.custody.archive import Archive, changed, sample
from tests.unit.ris_service.seeding import HTML, OURS, Hospital, csrf, hospital
from zambezi import hold, holding, users
from zambezi.access import ROLES, may
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry, Correction, Held

CT = sample("CT_small.dcm")
CAME = changed(CT, PatientID="P-CAME", PatientName="Came^Later", StudyDescription="another", InstanceNumber="77")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A hospital with one conflict in its hold, whose other side the archive has."""
    made = hospital(tmp_path / "home")
    made.app = create_app(
        made.environment, made.settings, made.sessions, made.keys, made.clock,
        (*OURS, "operations.custody.hold_pages:pages"),
    )  # fmt: skip
    archive = Archive()
    archive.put(CT)
    made.app.config["ARCHIVE"] = archive
    monkeypatch.setattr(hold_pages, "OrthancClient", lambda *_how, **_more: archive)
    with made.sessions.begin() as session:
        for login in ("ana", "rui"):
            user = users.add(session, login, login.title(), "pacs-administrator", "x" * 12, made.clock(), "ris", "test")
            user.must_change_password, user.language = False, "en"
    put(made, CAME)
    return made


def put(made: Hospital, content: bytes, **how: object) -> int:
    sha256 = hold.put(made.environment.hold_dir, content)
    given = {
        "sha256": sha256, "size": len(content), "why": "conflict", "reason": "other content came", "writer": "custody",
        "reference": "journal 7", "now": made.clock(), "sender": "CT1 10.0.0.9", **identify(content).columns, **how,
    }  # fmt: skip
    with made.sessions.begin() as session:
        return holding.hold(session, **given).id


def person(made: Hospital, login: str = "ana"):
    return made.signed_in("pacs-administrator", login=login)


def press(client, page: str, action: str, **fields: str):
    word = csrf(client.get(page, headers=HTML).text)
    return client.post(f"{page}/{action}", data={"csrf_token": word, **fields})


def row(made: Hospital, held_id: int = 1) -> Held:
    with made.sessions.begin() as session:
        return session.get_one(Held, held_id)


def views(made: Hospital) -> list[dict]:
    with made.sessions.begin() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == "viewed").order_by(AuditEntry.seq)).all()
        return [Sealed(one.journal, one.seq, one.hash, one.payload).facts for one in rows]


def test_both_sides_stand_beside_each_other_and_what_differs_is_said_in_words(house):
    page = person(house).get("/hold/1", headers=HTML).text
    assert "Came^Later" in page and "CompressedSamples^CT1" in page
    before, _, after = page.partition("<details ")
    assert before.count("≠ differs") == page.count("≠ differs") == 4
    assert "(0008,1030)" in before and "(0008,0070)" in after, "what is the same stands behind"
    assert 'src="/hold/1/picture/held"' in page and 'src="/hold/1/picture/archived"' in page
    assert "private, of GEMS_ACQU_01" in page


def test_the_pages_hide_nothing_behind_a_script_and_weigh_little(house):
    for login, language in (("ana", "en"), ("rui", "pt")):
        with house.sessions.begin() as session:
            users.find(session, login).language = language
        for path in ("/hold", "/hold?state=all&why=conflict", "/hold/1"):
            answer = person(house, login).get(path, headers=HTML)
            assert answer.status_code == 200
            assert f'<html lang="{language}">' in answer.text
            weight = len(gzip.compress(answer.data))
            weight += sum(len(gzip.compress(house.client().get(f"/static/{name}").data))
                          for name in ("zambezi.css", "zambezi.js", "icon.svg"))  # fmt: skip
            assert weight < 40_000, (path, weight)


def test_the_list_shows_no_patients_data_and_what_needs_somebody_first(house):
    put(house, sample("MR_small.dcm"), why="deleted", state="kept")
    page = person(house).get("/hold", headers=HTML).text
    assert "Object 1" in page and "Object 2" not in page
    assert "Came^Later" not in page and "P-CAME" not in page
    everything = person(house).get("/hold?state=all", headers=HTML).text
    assert "Object 2" in everything
    assert "Object 1" not in person(house).get("/hold?state=all&why=deleted", headers=HTML).text
    assert views(house) == [], "the list is no view"


def test_a_view_is_recorded_before_it_is_shown_once_a_sign_in(house):
    client = person(house)
    client.get("/hold/1", headers=HTML)
    client.get("/hold/1/picture/held")
    client.get("/hold/1", headers=HTML)
    (view,) = views(house)
    assert (view["who"], view["held"], view["study_uid"]) == ("ana", 1, row(house).study_uid)
    person(house, "rui").get("/hold/1/picture/archived")
    assert [one["who"] for one in views(house)] == ["ana", "rui"]


def test_nothing_is_shown_where_the_view_can_not_be_recorded(house, monkeypatch):
    def fail(*_how: object, **_more: object) -> None:
        raise RuntimeError("no audit")

    monkeypatch.setattr(hold_pages.audit, "append", fail)
    for path in ("/hold/1", "/hold/1/picture/held"):
        answer = person(house).get(path, headers=HTML)
        assert answer.status_code == 500
        assert b"Came^Later" not in answer.data and b"PNG" not in answer.data


def test_each_side_has_its_picture(house):
    client = person(house)
    held, other = client.get("/hold/1/picture/held"), client.get("/hold/1/picture/archived")
    for picture in (held, other):
        assert (picture.mimetype, picture.data[:4]) == ("image/png", b"\x89PNG")
        assert picture.headers["Cache-Control"] == "no-store"
    assert client.get("/hold/1/picture/other").status_code == 404


@pytest.mark.parametrize(
    ("name", "said"), [("rtplan.dcm", "it is no image"), ("JPEG2000.dcm", "can't draw JPEG 2000 Image Compression")]
)
def test_what_can_not_be_drawn_says_why(house, name, said):
    number = put(house, sample(name), reference=name)
    answer = person(house).get(f"/hold/{number}/picture/held")
    assert (answer.status_code, answer.mimetype) == (422, "text/plain")
    assert said in answer.text and "/tmp" not in answer.text


def test_the_page_stands_with_the_archive_away_and_with_the_file_gone(house):
    house.app.config["ARCHIVE"].is_away = True
    page = person(house).get("/hold/1", headers=HTML).text
    assert "The archive doesn&#39;t answer" in page or "The archive doesn't answer" in page
    hold.path(house.environment.hold_dir, row(house).sha256).unlink()
    gone = person(house).get("/hold/1", headers=HTML)
    assert (gone.status_code, "is not in the hold" in gone.text) == (200, True)
    assert person(house).get("/hold/99", headers=HTML).status_code == 404


def test_what_is_too_large_is_not_taken_into_memory(house, monkeypatch):
    archive = house.app.config["ARCHIVE"]
    archive.files = {next(iter(archive.files)): CT + bytes(5000)}
    monkeypatch.setattr(hold_pages, "LARGEST", len(CT) + 4000)
    assert person(house).get("/hold/1/picture/held").status_code == 200
    assert person(house).get("/hold/1/picture/archived").status_code == 404
    assert "file" not in archive.asked
    monkeypatch.setattr(hold_pages, "LARGEST", len(CAME) - 1)
    page = person(house).get("/hold/1", headers=HTML).text
    assert "too large for a page" in page and "Came^Later" not in page


def test_one_asks_to_discard_and_another_confirms(house):
    ana, rui = person(house), person(house, "rui")
    assert press(ana, "/hold/1", "discard", reason="").status_code == 409
    assert press(ana, "/hold/1", "discard", reason="a phantom").status_code == 303
    assert "Confirm the discard" not in ana.get("/hold/1", headers=HTML).text
    refused = press(ana, "/hold/1", "confirm")
    assert (refused.status_code, row(house).state) == (409, "discard-asked")
    assert "another person must confirm" in refused.text
    assert "Confirm the discard" in rui.get("/hold/1", headers=HTML).text
    assert press(rui, "/hold/1", "confirm").status_code == 303
    assert (row(house).state, row(house).asked_by, row(house).decided_by) == ("discarded", "ana", "rui")


def test_a_discard_can_be_withdrawn(house):
    press(person(house), "/hold/1", "discard", reason="a phantom")
    assert press(person(house, "rui"), "/hold/1", "withdraw").status_code == 303
    assert row(house).state == "waiting"


def test_a_newcomer_takes_the_place_of_the_copy_that_the_page_showed(house):
    ana = person(house)
    archived = next(iter(house.app.config["ARCHIVE"].files))
    assert archived in ana.get("/hold/1", headers=HTML).text
    assert press(ana, "/hold/1", "replace", reason="r", archived="another").status_code == 409
    assert row(house).state == "waiting"
    assert press(ana, "/hold/1", "replace", reason="the newcomer is right", archived=archived).status_code == 303
    with house.sessions.begin() as session:
        correction = session.scalars(select(Correction)).one()
    assert (correction.kind, correction.request, correction.asked_by) == (
        "replace", {"instances": [archived], "replace": 1}, "ana",
    )  # fmt: skip
    assert (row(house).state, row(house).correction_id) == ("releasing", correction.id)


def test_what_is_in_quarantine_is_released(house):
    number = put(house, sample("MR_small.dcm"), why="quarantine", reference="rule 1")
    assert press(person(house), f"/hold/{number}", "release").status_code == 303
    assert row(house, number).state == "releasing"


def test_what_has_no_place_says_what_to_do(house):
    content = changed(CT, StudyInstanceUID="")
    number = put(house, content, why="no-identity", reference="rule 1")
    page = person(house).get(f"/hold/{number}", headers=HTML).text
    assert f"zambezi hold export {number} FILE" in page
    assert f'action="/hold/{number}/release"' not in page


@pytest.mark.parametrize("role", ROLES)
def test_only_who_may_sees_and_only_who_may_decides(house, role):
    kind = {"emergency": "emergency", "guest": "share"}.get(role, "session")
    login = f"one-{role}"
    if kind == "session":
        with house.sessions.begin() as session:
            users.add(session, login, login, role, "x" * 12, house.clock(), "ris", "t").must_change_password = False
    client = house.carrying(house.token(role, kind=kind, login=login))
    for path in ("/hold", "/hold/1", "/hold/1/picture/held"):
        assert client.get(path).status_code == (200 if may(role, "hold.read") else 403)
    for action in ("release", "replace", "discard", "confirm", "withdraw"):
        answer = client.post(f"/hold/1/{action}")
        assert answer.status_code == (400 if may(role, "hold.decide") else 403), "without its form nothing happens"
