"""The hold, looked after: never a row without its file, never a file that is lost, whatever dies in between."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from sqlalchemy import select

from operations.custody import integrity
from tests.unit.operations.custody.archive import Room, sample
from zambezi import clock, hold, holding
from zambezi.database import generations
from zambezi.database.tables import AnnouncedInstance, ChainHead, ExceptionItem, Held, LegalHold

YEAR = timedelta(days=365)
CT, MR = sample("CT_small.dcm"), sample("MR_small.dcm")


def aged(room: Room, sha256: str, hours: float = 2) -> None:
    """The file was put so long ago."""
    at = (room.now - timedelta(hours=hours)).timestamp()
    os.utime(hold.path(room.folder, sha256), (at, at))


def discarded(room: Room, content: bytes = CT, **how: object) -> str:
    row = room.hold(content, state="waiting", **how)
    with room.sessions.begin() as session:
        held = session.get_one(Held, row)
        holding.ask_discard(session, held, "ana", "a test image", room.now, "ris")
        holding.confirm_discard(session, held, "rui", room.now, "ris")
        return held.sha256


def take_away(room: Room, is_told: bool = True) -> int:
    return integrity.take_away(room.sessions, room.folder, room.now, lambda: is_told)


def test_a_discarded_objects_file_goes_once_it_is_old_enough(room):
    sha256 = discarded(room)
    aged(room, sha256, 0.5)
    assert take_away(room) == 0, "its bytes may have been put again a moment ago, their row still to come"
    aged(room, sha256)
    assert take_away(room) == 1
    assert list(hold.files(room.folder)) == []


def test_no_file_goes_while_the_database_does_not_know_the_whole_journal(room):
    sha256 = discarded(room)
    aged(room, sha256)
    assert take_away(room, is_told=False) == 0
    assert hold.get(room.folder, sha256) == CT


def test_a_file_stays_as_long_as_another_row_needs_it(room):
    sha256 = discarded(room)
    room.hold(CT, reference="journal 8", state="waiting")
    aged(room, sha256)
    assert take_away(room) == 0


def test_a_file_without_any_row_is_never_taken_away_but_put_before_a_person(room):
    sha256 = hold.put(room.folder, CT)
    aged(room, sha256, 0.5)
    integrity.look(room.sessions, room.folder, room.now)
    with room.sessions.begin() as session:
        assert session.scalars(select(Held)).all() == [], "its row may be on its way"
    aged(room, sha256)
    assert take_away(room) == 0
    found = integrity.look(room.sessions, room.folder, room.now)
    assert found.found == 1
    with room.sessions.begin() as session:
        held = session.scalars(select(Held)).one()
        item = session.scalars(select(ExceptionItem)).one()
    assert (held.why, held.state, held.size, held.sop_uid is not None) == ("found", "waiting", len(CT), True)
    assert item.kind == "found"
    assert integrity.look(room.sessions, room.folder, room.now).found == 0, "once"


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_damaged_or_missing_file_is_said(room, how):
    row = room.hold(CT, state="waiting")
    file = hold.path(room.folder, room.row(row).sha256)
    if how == "damaged":
        file.write_bytes(b"x" + file.read_bytes()[1:])
    else:
        file.unlink()
    found = integrity.look(room.sessions, room.folder, room.now)
    assert found.damaged == 1
    assert not room.row(row).is_intact
    with room.sessions.begin() as session:
        assert "damaged" in {item.kind for item in session.scalars(select(ExceptionItem))}
    hold.put(room.folder, CT)
    assert integrity.look(room.sessions, room.folder, room.now).damaged == 0
    assert (room.row(row).is_intact, room.row(row).checked_at) == (True, clock.text(room.now))


def test_a_discarded_objects_missing_file_is_no_fault(room):
    sha256 = discarded(room)
    hold.path(room.folder, sha256).unlink()
    assert integrity.look(room.sessions, room.folder, room.now).damaged == 0


def test_retention_lets_go_of_safe_copies_whose_time_is_over_and_the_file_follows(room):
    row = room.hold(CT, why="deleted", state="kept", keep_until=room.now + timedelta(days=365))
    assert integrity.retain(room.sessions, room.now + timedelta(days=364), YEAR) == 0
    room.pass_by(days=365)
    assert integrity.retain(room.sessions, room.now, YEAR) == 1
    assert room.row(row).state == "discarded"
    aged(room, room.row(row).sha256)
    assert take_away(room) == 1


def test_a_legal_hold_stands_above_retention(room):
    row = room.hold(CT, why="deleted", state="kept", keep_until=room.now)
    with room.sessions.begin() as session:
        session.add(
            LegalHold(study_uid=room.row(row).study_uid, reason="court", set_by="x", set_at=clock.text(room.now))
        )
    room.pass_by(days=1000)
    assert integrity.retain(room.sessions, room.now, YEAR) == 0
    aged(room, room.row(row).sha256)
    assert take_away(room) == 0


def test_a_crash_between_the_commit_and_the_removal_leaves_a_file_too_many_that_goes_later(room, monkeypatch):
    sha256 = discarded(room)
    aged(room, sha256)

    class Killed(BaseException):
        pass

    def killed(*_: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(hold, "remove", killed)
        with pytest.raises(Killed):
            take_away(room)
    assert hold.get(room.folder, sha256) == CT
    assert take_away(room) == 1


def test_bytes_that_come_again_between_the_decision_and_the_removal_stay(room, monkeypatch):
    sha256 = discarded(room)
    aged(room, sha256)
    remove = hold.remove

    def put_meanwhile(*how: object) -> bool:
        hold.put(room.folder, CT)
        aged(room, sha256, 0)
        return remove(*how)

    monkeypatch.setattr(hold, "remove", put_meanwhile)
    assert take_away(room) == 0
    assert hold.get(room.folder, sha256) == CT


def test_what_was_half_written_is_taken_away_after_an_hour(room):
    sha256 = hold.put(room.folder, CT)
    half = hold.path(room.folder, sha256).with_name("half.dcm.1.2.new")
    half.write_bytes(b"half")
    integrity.look(room.sessions, room.folder, room.now.replace(year=2020))
    assert half.exists()
    at = (room.now - timedelta(hours=2)).timestamp()
    os.utime(half, (at, at))
    assert integrity.look(room.sessions, room.folder, room.now).left == 1
    assert not half.exists()


def test_a_note_becomes_a_row_once_and_a_crash_in_between_loses_nothing(room):
    sha256 = hold.put(room.folder, MR)
    facts = {"why": "conflict", "reason": "the archive has other bytes", "reference": "recovery abcd"}
    hold.leave_note(room.folder, sha256, facts)
    (note,) = hold.notes(room.folder)
    kept = note.read_bytes()
    assert integrity.Upkeep(room.desk()).round()
    assert hold.notes(room.folder) == []
    note.write_bytes(kept)  # the process died after its commit, before it took the note away
    assert integrity.Upkeep(room.desk()).round()
    with room.sessions.begin() as session:
        held = session.scalars(select(Held)).one()
    assert (held.why, held.state, held.reference, held.times) == ("conflict", "comparing", "recovery abcd", 2)
    assert held.sop_uid


@pytest.mark.parametrize(("central", "lag", "told"), [(7, 0, True), (6, 0, False), (7, 3, False), (None, 0, False)])
def test_whether_the_database_knows_the_whole_journal(room, central, lag, told):
    room.archive.journal.update(seq=7, follower={"lag": lag})
    if central is not None:
        with room.sessions.begin() as session:
            session.add(ChainHead(journal="orthanc", seq=central, hash="x"))
    assert integrity.is_told(room.sessions, room.archive) is told


def test_an_announcement_is_taken_back_once_its_release_is_long_over(room):
    """While it stands, other content under the same UID would pass for ours."""
    busy = room.hold(MR, why="quarantine", state="waiting", reference="rule 1")
    sop = str(room.row(busy).sop_uid)
    with room.sessions.begin() as session:
        holding.ask_release(session, session.get_one(Held, busy), "ana", "", room.now, "ris")
        for sop_uid, cause, reference in (
            ("1.2.1", "restore", "hold 1"), ("1.2.2", "correction", "correction 1"), ("1.2.3", "restore", "deletion 4"),
            (sop, "restore", f"hold {busy}"),
        ):  # fmt: skip
            at = clock.text(room.now)
            session.add(AnnouncedInstance(sop_uid=sop_uid, cause=cause, reference=reference, created_at=at))
    assert integrity.forget_announcements(room.sessions, room.now) == 0, "the archive may still be recording it"
    room.pass_by(hours=1)
    assert integrity.forget_announcements(room.sessions, room.now) == 1
    assert integrity.forget_announcements(room.sessions, room.now) == 0
    with room.sessions.begin() as session:
        assert session.get(AnnouncedInstance, "1.2.1") is None
        assert session.get(AnnouncedInstance, sop), "it is only on its way"
        assert generations.current(session, "announced") == 1, "the plugin hears of it, and of nothing else"


def test_upkeep_lets_go_and_takes_away_by_itself(room):
    sha256 = discarded(room)
    aged(room, sha256)
    with room.sessions.begin() as session:
        session.add(ChainHead(journal="orthanc", seq=0, hash=""))
    assert not integrity.Upkeep(room.desk()).round()
    assert list(hold.files(room.folder)) == []
