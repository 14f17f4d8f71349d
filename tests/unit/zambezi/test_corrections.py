"""What may be asked for, and what the answer says where it may not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock, correctable, corrections
from zambezi.correctable import ValueRefused
from zambezi.corrections import CorrectionRefused
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Correction, CorrectionItem, Held, Patient

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
STUDY = {"study_uid": "1.2.3", "orthanc_id": "a" * 44}


@pytest.fixture
def session(tables_url: str) -> Iterator[Session]:
    engine = connect(tables_url, "test")
    with sessions(engine, "test").begin() as made:
        yield made
    engine.dispose()


def patient(session: Session, patient_id: str, name: str = "Macuácua") -> Patient:
    at = clock.text(NOW)
    row = Patient(
        patient_id=patient_id, issuer="HCZ", family_name=name, given_name="Ana", birth_date="19800131", sex="U",
        created_at=at, updated_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def ask(session: Session, kind: str, request: dict[str, Any], reason: str = "wrong patient", **how: Any) -> Correction:
    return corrections.ask(session, kind, request, reason, "ana", NOW, "ris", **how)


def done(session: Session, number: int, old: str, new: str, sha: str, kind: str = "edit") -> Correction:
    at = clock.text(NOW + timedelta(minutes=number))
    row = Correction(
        id=number, kind=kind, state="done", request={}, reason="r", asked_by="ana", next_at=at, created_at=at,
        updated_at=at, done_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    session.add(
        CorrectionItem(
            correction_id=number, old_orthanc_id=old, sop_uid="1.2", old_study_uid="1", old_series_uid="1.1",
            new_study_uid="1", new_series_uid="1.1", new_orthanc_id=new, new_sha256=sha, state="done",
        )
    )  # fmt: skip
    session.flush()
    return row


def test_a_correction_is_due_with_its_values_normalised_and_its_entry_in_the_trail(session: Session):
    row = ask(session, "edit", {"study": STUDY, "set": {"PatientBirthDate": "19800131", "(0008,1030)": " TC  "}})
    assert (row.state, row.next_at) == ("due", clock.text(NOW))
    assert row.request == {"study": STUDY, "set": {"00081030": "TC", "00100030": "19800131"}}
    entry = session.scalars(select(AuditEntry).where(AuditEntry.event == "correction-changed")).one()
    assert (entry.who, entry.study_uid) == ("ana", "1.2.3")
    assert b"19800131" not in entry.payload


def test_a_named_patient_gives_what_its_images_carry(session: Session):
    row = ask(session, "reassign", {"study": STUDY, "patients": {"into": patient(session, "P7").id}})
    assert row.request["set"] == {
        "00100010": "Macuácua^Ana", "00100020": "P7", "00100021": "HCZ", "00100030": "19800131", "00100040": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "request_", "says"),
    [
        ("paint", {}, "allowed are edit"),
        ("edit", {"study": STUDY}, "nothing to change"),
        ("edit", {"set": {"00100020": "P"}}, "found none"),
        ("edit", {"study": STUDY, "series": STUDY, "set": {"00100020": "P"}}, "one of instances"),
        ("edit", {"study": {"orthanc_id": "x"}, "set": {"00100020": "P"}}, "44 characters"),
        ("edit", {"study": STUDY, "colour": 1, "set": {"00100020": "P"}}, "found colour"),
        ("edit", {"study": STUDY, "set": {"0020000D": "1.2"}}, "only where images move"),
        ("edit", {"study": STUDY, "set": {"00080018": "1.2"}}, "can't be corrected"),
        ("reassign", {"study": STUDY, "set": {"00081030": "x"}}, "name the patient"),
        ("reassign", {"study": STUDY, "order": 9}, "no order 9"),
        ("merge", {"patients": {"from": 1, "into": 2}}, "no patient with the number 2"),
        ("merge", {"study": STUDY}, "all studies of one patient"),
        ("move", {"instances": ["b" * 44], "set": {"00081030": "x"}}, "set StudyInstanceUID"),
        ("replace", {"replace": 4}, "nothing with the number 4"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_is_allowed(
    session: Session, kind: str, request_: dict[str, Any], says: str
):
    with pytest.raises(CorrectionRefused, match=says):
        ask(session, kind, request_)
    assert session.scalars(select(Correction)).all() == []


def test_a_reason_is_needed(session: Session):
    with pytest.raises(CorrectionRefused, match="say why"):
        ask(session, "edit", {"study": STUDY, "set": {"00100020": "P"}}, reason="  ")


def test_patients_are_not_merged_into_themselves_nor_given_another_ones_number(session: Session):
    one = patient(session, "P1")
    with pytest.raises(CorrectionRefused, match="into itself"):
        ask(session, "merge", {"patients": {"from": one.id, "into": one.id}})
    with pytest.raises(CorrectionRefused, match="PatientID"):
        ask(session, "split", {"study": STUDY, "patients": {"into": one.id}, "set": {"00100020": "P2"}})


def test_what_has_no_identity_replaces_nothing(session: Session):
    at = clock.text(NOW)
    session.add(
        Held(id=4, sha256="0" * 64, why="no-identity", reason="r", reference="j/1", held_at=at, next_at=at)
    )  # fmt: skip
    session.flush()
    with pytest.raises(CorrectionRefused, match="no identity"):
        ask(session, "replace", {"replace": 4})


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PatientBirthDate", "20260230"), ("StudyTime", "2460"), ("AccessionNumber", "1" * 17), ("PatientSex", "U"),
        ("PatientName", "a^b^c^d^e^f"), ("PatientName", "x" * 65), ("PatientName", "a\\b"), ("PatientID", ""),
        ("PatientID", "a\nb"), ("PatientAge", "34"), ("SeriesNumber", "eins"), ("SpecificCharacterSet", "latin"),
        ("PatientID", None), ("StudyDescription", 7),
    ],
)  # fmt: skip
def test_values_are_held_to_their_vr(tag: str, value: Any):
    with pytest.raises(ValueRefused, match=tag):
        correctable.checked({tag: value}, moving=False)


def test_every_fault_is_said_at_once():
    with pytest.raises(ValueRefused) as refused:
        correctable.checked({"StudyTime": "25", "PatientID": ""}, moving=False)
    assert len(str(refused.value).splitlines()) == 2


def test_only_what_is_done_and_was_not_changed_later_can_be_undone(session: Session):
    a, b = "a" * 44, "b" * 44
    done(session, 101, a, b, "1")
    assert corrections.why_not_undone(session, 101) == ""
    done(session, 102, b, b, "2")
    assert (
        corrections.why_not_undone(session, 101)
        == "correction 102 changed the same instances later: undo that one first"
    )
    assert corrections.why_not_undone(session, 102) == ""
    done(session, 103, b, b, "1", kind="undo")
    assert corrections.why_not_undone(session, 101) == ""
    waiting = ask(session, "undo", {}, undo_of=101)
    assert "only what is done" in corrections.why_not_undone(session, waiting.id)
    with pytest.raises(CorrectionRefused, match="no correction 99"):
        ask(session, "undo", {}, undo_of=99)


def test_a_correction_is_cancelled_until_the_archive_changes(session: Session):
    row = ask(session, "edit", {"study": STUDY, "set": {"00100020": "P"}})
    before = row.fence
    corrections.cancel(session, row.id, "rui", NOW, "ris")
    assert (row.state, row.fence) == ("cancelled", before + 1)
    for state in ("switching", "done", "cancelled"):
        row.state = state
        with pytest.raises(CorrectionRefused, match=state):
            corrections.cancel(session, row.id, "rui", NOW, "ris")


def test_a_parked_correction_is_tried_again_from_the_beginning(session: Session):
    row = ask(session, "edit", {"study": STUDY, "set": {"00100020": "P"}})
    row.state, row.attempts = "parked", 9
    corrections.retry(session, row.id, "rui", NOW, "ris")
    assert (row.state, row.attempts) == ("due", 0)
