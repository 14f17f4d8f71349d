"""The hold's rows: who may decide what, what is audited, and which file may go."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from zambezi import audit, clock, hold, holding
from zambezi.chain import Sealed
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Correction, ExceptionItem, Held, LegalHold
from zambezi.holding import HoldRefused

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
YEAR = timedelta(days=365)
WRITER = "custody"
IDENTITY = {"sop_uid": "1.2.9", "series_uid": "1.2.8", "study_uid": "1.2.7", "patient_id": "P1"}


@pytest.fixture
def session(tables_url: str):
    engine = connect(tables_url, "test")
    with sessions(engine, "test").begin() as opened:
        yield opened


def held(session, **how) -> Held:
    given = {
        "sha256": "a" * 64, "size": 10, "why": "conflict", "reason": "other content came", "reference": "journal 7",
        "now": NOW, "writer": WRITER, **IDENTITY, **how,
    }  # fmt: skip
    return holding.hold(session, **given)


def events(session) -> list[dict]:
    rows = session.scalars(select(AuditEntry).order_by(AuditEntry.seq)).all()
    return [Sealed(row.journal, row.seq, row.hash, row.payload).facts for row in rows]


def open_items(session) -> dict[str, str]:
    rows = session.scalars(select(ExceptionItem).where(ExceptionItem.decided_at.is_(None)))
    return {row.reference: row.kind for row in rows}


def test_what_waits_has_a_row_an_audit_entry_and_an_item_that_leads_to_it(session):
    row = held(session)
    assert (row.state, row.times, row.next_at) == ("waiting", 1, clock.text(NOW))
    (entry,) = events(session)
    assert (entry["event"], entry["held"], entry["why"]) == ("held", row.id, "conflict")
    item = session.scalars(select(ExceptionItem)).one()
    assert (item.room, item.reference, item.kind, item.study_uid) == ("hold", str(row.id), "conflict", "1.2.7")
    assert item.actions == [{"label": "Open in the hold", "href": f"/hold/{row.id}"}]


def test_the_same_bytes_for_the_same_reason_are_one_row_however_often_they_come(session):
    first = held(session)
    again = held(session, now=NOW + timedelta(hours=1))
    assert (again.id, again.times, again.held_at) == (first.id, 2, clock.text(NOW))
    other = held(session, reference="journal 8")
    assert other.id != first.id


def test_what_was_discarded_and_comes_again_waits_again(session):
    row = held(session)
    holding.ask_discard(session, row, "ana", "a test image", NOW, WRITER)
    holding.confirm_discard(session, row, "rui", NOW, WRITER)
    again = held(session)
    assert (again.id, again.state, again.decided_by, again.times) == (row.id, "waiting", None, 2)
    assert open_items(session) == {str(row.id): "conflict"}


@pytest.mark.parametrize("state", ["comparing", "kept"])
def test_nobody_is_asked_about_what_is_being_compared_or_kept_for_safety(session, state):
    held(session, state=state)
    assert open_items(session) == {}


def test_discarding_needs_two_persons_and_a_reason(session):
    row = held(session)
    with pytest.raises(HoldRefused, match="say why"):
        holding.ask_discard(session, row, "ana", "  ", NOW, WRITER)
    with pytest.raises(HoldRefused, match="first one person asks"):
        holding.confirm_discard(session, row, "rui", NOW, WRITER)
    holding.ask_discard(session, row, "ana", "a test image", NOW, WRITER)
    assert open_items(session) == {str(row.id): "discard-asked"}
    for same in ("ana", "Ana", "console:ana"):  # at the console one is nobody else
        with pytest.raises(HoldRefused, match="another person"):
            holding.confirm_discard(session, row, same, NOW, WRITER)
    assert row.state == "discard-asked"
    assert holding.is_needed(session, row.sha256)
    holding.confirm_discard(session, row, "rui", NOW, WRITER)
    assert (row.state, row.asked_by, row.decided_by, row.decision) == ("discarded", "ana", "rui", "a test image")
    assert open_items(session) == {}
    assert not holding.is_needed(session, row.sha256)
    last = events(session)[-1]
    assert (last["event"], last["state"], last["who"], last["asked_by"]) == ("hold-changed", "discarded", "rui", "ana")
    assert audit.verify(session) == []


@pytest.mark.parametrize(("why", "state"), [("conflict", "waiting"), ("corrected", "kept")])
def test_who_withdraws_a_discard_brings_back_what_was(session, why, state):
    row = held(session, why=why, state=state)
    before = open_items(session)
    holding.ask_discard(session, row, "ana", "not needed", NOW, WRITER)
    holding.withdraw_discard(session, row, "rui", NOW, WRITER)
    assert (row.state, row.asked_by, row.decision) == (state, None, None)
    assert open_items(session) == before
    with pytest.raises(HoldRefused):
        holding.confirm_discard(session, row, "rui", NOW, WRITER)


@pytest.mark.parametrize("about", [{"study_uid": "1.2.7"}, {"patient_id": "P1"}])
def test_a_legal_hold_stands_above_both_persons_and_above_retention(session, about):
    row = held(session, why="deleted", state="kept", keep_until=NOW)
    standing = LegalHold(reason="court order", set_by="director", set_at=clock.text(NOW), **about)
    session.add(standing)
    with pytest.raises(HoldRefused, match="legal hold 1, set by director on"):
        holding.ask_discard(session, row, "ana", "no use", NOW, WRITER)
    assert holding.due_for_removal(session, NOW + timedelta(days=1), YEAR) == []
    standing.lifted_at = clock.text(NOW)
    holding.ask_discard(session, row, "ana", "no use", NOW, WRITER)
    standing.lifted_at = None
    with pytest.raises(HoldRefused, match="legal hold"):
        holding.confirm_discard(session, row, "rui", NOW, WRITER)


def test_another_patients_legal_hold_forbids_nothing(session):
    session.add(LegalHold(patient_id="", study_uid="9.9", reason="x", set_by="y", set_at=clock.text(NOW)))
    assert holding.forbidden(session, held(session)) == ""
    assert holding.forbidden(session, held(session, reference="b", study_uid=None, patient_id="")) == ""


def test_only_what_has_its_three_uids_can_be_released(session):
    row = held(session, why="no-identity", study_uid=None)
    with pytest.raises(HoldRefused, match=f"zambezi hold export {row.id} FILE"):
        holding.ask_release(session, row, "ana", "", NOW, WRITER)
    assert row.state == "waiting"


def test_a_release_that_fails_waits_for_a_person_again_with_the_reason(session):
    row = held(session, why="quarantine")
    holding.ask_release(session, row, "ana", "checked", NOW, WRITER)
    assert (row.state, row.decided_by) == ("releasing", "ana")
    with pytest.raises(HoldRefused, match="on its way"):
        holding.ask_discard(session, row, "rui", "x", NOW, WRITER)
    holding.release_failed(session, row, "the archive refused it", NOW, WRITER)
    assert (row.state, row.decided_by) == ("waiting", None)
    assert "the archive refused it" in session.scalars(select(ExceptionItem)).one().what


def test_what_was_released_is_kept_for_thirty_days_and_then_let_go(session):
    row = held(session, why="quarantine")
    holding.ask_release(session, row, "ana", "", NOW, WRITER)
    holding.released(session, row, "stored", NOW, WRITER)
    assert open_items(session) == {}
    assert holding.due_for_removal(session, NOW + timedelta(days=29), YEAR) == []
    later = NOW + timedelta(days=30)
    assert holding.due_for_removal(session, later, YEAR) == [row]
    holding.let_go(session, row, later, WRITER)
    assert (row.state, holding.is_needed(session, row.sha256)) == ("released", False)
    assert holding.due_for_removal(session, later, YEAR) == []


def test_a_safe_copy_without_a_term_of_its_own_is_kept_for_the_configured_one(session):
    row = held(session, why="corrected", state="kept")
    waiting = held(session)
    assert holding.due_for_removal(session, NOW + timedelta(days=364), YEAR) == []
    assert holding.due_for_removal(session, NOW + YEAR, YEAR) == [row]
    assert waiting.state == "waiting", "what waits for a person has no term at all"


def test_a_newcomer_takes_the_others_place_by_a_correction(session):
    row = held(session)
    made = Correction(
        kind="replace", request={}, reason="r", asked_by="ana", created_at="", updated_at="", next_at=""
    )  # fmt: skip

    def correct() -> Correction:
        session.add(made)
        return made

    with pytest.raises(HoldRefused, match="say why"):
        holding.ask_replace(session, row, correct, "ana", "", NOW, WRITER)
    holding.ask_replace(session, row, correct, "ana", "the newcomer is right", NOW, WRITER)
    assert (row.state, row.correction_id) == ("releasing", made.id)
    other = held(session, why="quarantine")
    with pytest.raises(HoldRefused, match="only what conflicts"):
        holding.ask_replace(session, other, correct, "ana", "x", NOW, WRITER)


def test_an_equal_copy_needs_no_person_and_its_file_may_go(session):
    row = held(session, state="comparing")
    with pytest.raises(HoldRefused, match="being compared"):
        holding.ask_discard(session, row, "ana", "x", NOW, WRITER)
    holding.compared(session, row, "same", "same content in another encoding", [], NOW, WRITER)
    assert open_items(session) == {}
    assert holding.due_for_removal(session, NOW, YEAR) == [row]


def test_a_damaged_file_is_said_once_until_it_is_whole_again(session):
    row = held(session)
    holding.checked(session, row, "its bytes have changed", NOW, WRITER)
    holding.checked(session, row, "its bytes have changed", NOW, WRITER)
    assert open_items(session)[f"{row.id} damaged"] == "damaged"
    assert [one["event"] for one in events(session)].count("incident") == 1
    with pytest.raises(HoldRefused, match="damaged"):
        holding.ask_release(session, row, "ana", "", NOW, WRITER)
    holding.checked(session, row, "", NOW, WRITER)
    assert row.is_intact
    assert f"{row.id} damaged" not in open_items(session)


def test_a_file_is_needed_as_long_as_one_of_its_rows_needs_it(session):
    one, other = held(session), held(session, reference="journal 8")
    holding.ask_discard(session, one, "ana", "x", NOW, WRITER)
    holding.confirm_discard(session, one, "rui", NOW, WRITER)
    assert holding.is_needed(session, one.sha256)
    holding.ask_discard(session, other, "ana", "x", NOW, WRITER)
    holding.confirm_discard(session, other, "rui", NOW, WRITER)
    assert not holding.is_needed(session, one.sha256)


def test_bytes_that_were_put_again_are_not_taken_away_before_their_row_comes(tmp_path):
    sha256 = hold.put(tmp_path, b"bytes")
    file = hold.path(tmp_path, sha256)
    old = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    an_hour_after = datetime(2020, 1, 1, 1, tzinfo=UTC)
    os.utime(file, (old, old))
    hold.put(tmp_path, b"bytes")
    assert not hold.remove(tmp_path, sha256, an_hour_after)
    assert hold.get(tmp_path, sha256) == b"bytes"
    os.utime(file, (old, old))
    assert hold.remove(tmp_path, sha256, an_hour_after)
    assert not file.exists()
    assert hold.remove(tmp_path, sha256, an_hour_after), "gone already"


def test_a_damaged_file_is_written_anew_when_its_bytes_come_again(tmp_path):
    sha256 = hold.put(tmp_path, b"bytes")
    hold.path(tmp_path, sha256).write_bytes(b"BYTES")
    with pytest.raises(hold.NotHeld, match="have changed"):
        hold.get(tmp_path, sha256)
    assert hold.put(tmp_path, b"bytes") == sha256
    assert hold.get(tmp_path, sha256) == b"bytes"
