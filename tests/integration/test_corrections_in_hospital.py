"""A correction in a whole installation: the worker dies in the middle, receivers get the corrected copy."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from sqlalchemy import select

from demo.hospital import Hospital
from tests import invariants
from tests.running import crash_folder
from tests.senders import Sender, order_message, send_message, small_study
from zambezi import clock
from zambezi.database.tables import AuditEntry, Correction, Delivery, Order, Study

ACCESSION, OTHER = "KORR1", "KORR2"


def test_a_study_sent_under_the_wrong_order_goes_to_the_right_one_though_operations_dies(hospital: Hospital):
    ports = hospital.environment.ports
    for name, accession in (("KP1", ACCESSION), ("KP2", OTHER)):
        assert send_message(ports.mllp, order_message(name, name, accession)) == "AA"
    with hospital.database().begin() as session:
        wrong = session.scalars(select(Order).where(Order.accession_number == ACCESSION)).one()
    sender = Sender(ports.dicom)
    sender.send(small_study("KP1", 3, wrong.study_uid))
    uids = set(sender.succeeded)

    def undelivered(rule: str) -> str:
        with hospital.database().begin() as session:
            rows = session.scalars(
                select(Delivery).where(Delivery.study_uid == wrong.study_uid, Delivery.rule == rule)
            ).all()
        return (
            "" if len(rows) == 2 and {row.state for row in rows} == {"delivered"} else f"{[row.state for row in rows]}"
        )

    invariants.eventually("both archives have it", lambda: undelivered("ct-to-the-other-archives"))
    shown = hospital.zambezi("correct", "reassign", "--study", wrong.study_uid, "--order", OTHER)
    assert "PatientID: 'KP1' -> 'KP2' (3)" in shown
    assert "BACKUP has the old copy of 3 instances" in shown
    death = crash_folder(hospital) / "custody"
    death.write_text("14")
    death.chmod(0o666)
    asked = ("correct", "reassign", "--study", wrong.study_uid, "--order", OTHER, "--reason", "wrong entry", "--yes")
    number = int(hospital.zambezi(*asked).split()[1])

    def unfinished() -> str:
        with hospital.database().begin() as session:
            row = session.get_one(Correction, number)
            if row.lease_until and not death.exists():
                row.lease_until = min(row.lease_until, clock.text(clock.now()))  # the dead worker's minute is over
        return "" if row.state == "done" else f"{row.state}: {row.outcome}"

    invariants.eventually("operations dies", lambda: "it lives" if death.exists() else "")
    invariants.eventually("the correction is done", unfinished)
    invariants.eventually("the receivers have it anew", lambda: undelivered(f"correction {number}"))
    assert "KP2" in stored_patients(hospital, uids)
    archive = hospital.orthanc()
    for uid in uids:
        assert len(archive.find("Instance", {"SOPInstanceUID": uid})) == 1
    assert archive.find("Study", {"PatientID": "KP1"}) == []
    with hospital.database().begin() as session:
        stored = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "stored", AuditEntry.sop_uid.in_(uids))
        ).all()
        new = session.scalars(select(Study).where(Study.study_uid == wrong.study_uid, Study.patient_id == "KP2")).one()
    assert len(stored) == 6
    assert (new.accession_number, new.instances) == (OTHER, 3)
    invariants.chains_hold(hospital)


def stored_patients(hospital: Hospital, uids: set[str]) -> set[str]:
    """The patient IDs under which the second archive has these images."""
    images = [
        dcmread(file, stop_before_pixels=True) for file in hospital.neighbours.folder.rglob("*") if is_dicom(file)
    ]
    return {str(one.PatientID) for one in images if str(one.SOPInstanceUID) in uids}


def is_dicom(file: Path) -> bool:
    """Whether it is an image; a receiver's own files lie beside its images."""
    return file.is_file() and file.open("rb").read(132)[128:] == b"DICM"
