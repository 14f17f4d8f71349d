"""Releasing: announced, stored, and believed only once the archive holds it; a crash anywhere changes nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from operations.custody import releasing
from operations.custody.releasing import Releasing
from tests.unit.operations.custody.archive import Room, changed, sample
from zambezi import hold, holding
from zambezi.database.tables import AnnouncedInstance, Correction, ExceptionItem
from zambezi.orthanc_client import OrthancError, OrthancRefused

CT = sample("CT_small.dcm")


def releasing_row(room: Room, content: bytes = CT, **how: object) -> int:
    row = room.hold(content, **{"why": "quarantine", "state": "waiting", **how})
    with room.sessions.begin() as session:
        held = session.get_one(holding.Held, row)
        holding.ask_release(session, held, "ana", "checked", room.now, "ris")
    return row


def test_what_is_released_is_announced_stored_and_found_there(room):
    row = releasing_row(room)
    assert Releasing(room.desk()).round()
    assert list(room.archive.files.values()) == [CT]
    held = room.row(row)
    assert (held.state, held.decided_by, held.lease_until) == ("released", "ana", None)
    assert hold.get(room.folder, held.sha256) == CT, "kept for a while"
    with room.sessions.begin() as session:
        told = session.scalars(select(AnnouncedInstance)).one()
    assert (told.sop_uid, told.cause, told.reference) == (held.sop_uid, "restore", f"hold {row}")


def test_nothing_is_stored_before_the_archive_knows_why(room, monkeypatch):
    monkeypatch.setattr(releasing, "KNOWN_WITHIN_S", 0.01)
    row = releasing_row(room)
    room.archive.journal["announced_generation"] = 0
    with pytest.raises(OrthancError, match="is the gateway running"):
        Releasing(room.desk()).round()
    assert "store" not in room.archive.asked
    assert room.row(row).state == "releasing"


@pytest.mark.parametrize("dies_at", ["find", "GET /zambezi/status", "store", "md5"])
def test_a_worker_that_dies_at_any_step_leaves_work_that_another_finishes(room, dies_at):
    row = releasing_row(room)
    answer = room.archive._answer

    class Killed(BaseException):
        pass

    def killed(what: str) -> None:
        answer(what)
        if what == dies_at:
            raise Killed

    room.archive._answer = killed
    with pytest.raises(Killed):
        Releasing(room.desk("died/1")).round()
    room.archive._answer = answer
    assert room.row(row).state == "releasing"
    assert hold.get(room.folder, room.row(row).sha256) == CT
    assert not Releasing(room.desk("other/2")).round(), "the lease of the dead one still runs"
    room.pass_by(minutes=3)
    assert Releasing(room.desk("other/2")).round()
    assert room.row(row).state == "released"
    assert list(room.archive.files.values()) == [CT]


def test_after_a_store_whose_commit_was_lost_nothing_is_stored_twice(room):
    row = releasing_row(room)
    room.archive.put(CT)
    Releasing(room.desk()).round()
    assert "store" not in room.archive.asked
    assert room.row(row).state == "released"


def test_the_archives_other_content_is_never_overwritten(room):
    room.archive.put(changed(CT, StudyDescription="other"))
    row = releasing_row(room)
    Releasing(room.desk()).round()
    assert "store" not in room.archive.asked
    held = room.row(row)
    assert held.state == "waiting"
    with room.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.decided_at.is_(None))).one()
    assert "other content under the same SOP Instance UID" in item.what


def test_what_the_archive_changed_while_storing_is_not_believed(room):
    row = releasing_row(room)
    room.archive.alters = lambda content: changed(content, PatientName="Coerced")
    Releasing(room.desk()).round()
    assert room.row(row).state == "waiting"
    assert "after it was stored" in room.row(row).decision


@pytest.mark.parametrize(("status", "state"), [(400, "waiting"), (415, "waiting")])
def test_what_the_archive_refuses_waits_for_a_person(room, status, state):
    row = releasing_row(room)
    room.archive.refuses = status
    Releasing(room.desk()).round()
    assert room.row(row).state == state
    assert f"HTTP {status}" in room.row(row).decision


@pytest.mark.parametrize("status", [503, 507])
def test_an_archive_that_is_full_or_starting_is_asked_again(room, status):
    row = releasing_row(room)
    room.archive.refuses = status
    with pytest.raises(OrthancRefused):
        Releasing(room.desk()).round()
    assert room.row(row).state == "releasing"
    room.archive.refuses = 0
    room.pass_by(minutes=1)
    Releasing(room.desk()).round()
    assert room.row(row).state == "released"


def test_bytes_without_identity_are_not_stored_whatever_their_row_says(room):
    content = changed(CT, StudyInstanceUID="")
    row = releasing_row(room, content, study_uid="1.2.3")
    Releasing(room.desk()).round()
    assert "store" not in room.archive.asked
    assert f"zambezi hold export {row} FILE" in room.row(row).decision


def test_a_damaged_file_is_not_released(room):
    row = releasing_row(room)
    hold.path(room.folder, room.row(row).sha256).unlink()
    Releasing(room.desk()).round()
    assert (room.row(row).state, room.row(row).is_intact) == ("waiting", False)


@pytest.mark.parametrize(
    ("state", "becomes"),
    [("due", "releasing"), ("switching", "releasing"), ("done", "released"), ("parked", "waiting"),
     ("cancelled", "waiting")],
)  # fmt: skip
def test_a_newcomer_follows_the_correction_that_puts_it_in_the_others_place(room, state, becomes):
    row = room.hold(CT, state="waiting")
    with room.sessions.begin() as session:
        made = Correction(
            kind="replace", state=state, request={}, reason="r", asked_by="ana", outcome="a receiver is away",
            created_at="", updated_at="", next_at="",
        )  # fmt: skip
        session.add(made)
        held = session.get_one(holding.Held, row)
        holding.ask_replace(session, held, lambda: made, "ana", "the newcomer is right", room.now, "ris")
    more = Releasing(room.desk()).round()
    assert room.row(row).state == becomes
    assert more == (becomes != "releasing")
    assert room.archive.asked == [], "the correction stores it, not this"
