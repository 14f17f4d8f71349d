"""What must hold after any crash, kill or power cut (the issue's "after either")."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import select

from demo.hospital import Hospital
from tests.senders import sop_uids_in
from zambezi.database.tables import AuditEntry, Delivery, Order


def eventually(what: str, look: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `look` finds nothing to complain about; AssertionError with its last complaint."""
    end = time.monotonic() + seconds
    while True:
        complaint = look()
        if not complaint:
            return
        assert time.monotonic() < end, f"{what}: {complaint}"
        time.sleep(0.5)


def stored_once(hospital: Hospital, succeeded: Mapping[str, str]) -> None:
    """Every instance that was answered Success is in Orthanc and has exactly one `stored` entry."""

    def entries() -> str:
        with hospital.database().begin() as session:
            found = session.scalars(select(AuditEntry.sop_uid).where(AuditEntry.event == "stored")).all()
        counted = Counter(found)
        missing = [uid for uid in succeeded if not counted[uid]]
        doubled = [uid for uid in succeeded if counted[uid] > 1]
        assert not doubled, f"{len(doubled)} instances have more than one stored entry, such as {doubled[0]}"
        return f"{len(missing)} of {len(succeeded)} instances have no stored entry yet" if missing else ""

    eventually("audit", entries)
    held = set()
    for study_uid in set(succeeded.values()):
        for instance in hospital.orthanc().find("Instance", {"StudyInstanceUID": study_uid}, expand=True):
            held.add(instance["MainDicomTags"]["SOPInstanceUID"])
    lost = set(succeeded) - held
    assert not lost, f"{len(lost)} instances were answered Success and are not in Orthanc, such as {sorted(lost)[0]}"


def routed_once(hospital: Hospital, succeeded: Mapping[str, str], seconds: float = 300) -> None:
    """Every route has one delivery row, delivered; each receiver holds every SOP Instance UID."""
    studies = set(succeeded.values())

    def undelivered() -> str:
        with hospital.database().begin() as session:
            rows = session.scalars(
                select(Delivery).where(Delivery.kind == "dicom", Delivery.study_uid.in_(studies))
            ).all()
        for destination in ("SECOND", "BACKUP"):
            named = {instance[2] for row in rows if row.destination == destination for instance in row.instances}
            if not set(succeeded) <= named:
                return f"{len(set(succeeded) - named)} instances have no route to {destination} yet"
        waiting = Counter(row.state for row in rows if row.state != "delivered")
        return f"deliveries: {dict(waiting)}" if waiting else ""

    eventually("routes", undelivered, seconds)
    with hospital.database().begin() as session:
        routed = [
            json.loads(payload)
            for payload in session.scalars(
                select(AuditEntry.payload).where(AuditEntry.event == "routed", AuditEntry.study_uid.in_(studies))
            )
        ]
        rows = session.scalars(select(Delivery).where(Delivery.kind == "dicom", Delivery.study_uid.in_(studies))).all()
    assert len(routed) == len(rows), f"{len(routed)} routes, but {len(rows)} delivery rows"
    for destination in ("SECOND", "BACKUP"):
        named = Counter(i[2] for entry in routed if entry["destination"] == destination for i in entry["instances"])
        doubled = [uid for uid, count in named.items() if count > 1]
        assert not doubled, f"{len(doubled)} instances were routed to {destination} more than once"
    for name in ("second", "backup"):
        held = sop_uids_in(Path(hospital.neighbours.folder / name))
        assert set(succeeded) <= held, f"{name} lacks {len(set(succeeded) - held)} of {len(succeeded)} instances"


def orders_once(hospital: Hospital, acknowledged: list[str]) -> None:
    """Every order whose message was acknowledged is in the RIS, once (accession numbers)."""
    with hospital.database().begin() as session:
        found = Counter(session.scalars(select(Order.accession_number).where(Order.accession_number.in_(acknowledged))))
    assert {number: found[number] for number in acknowledged} == dict.fromkeys(acknowledged, 1)


def chains_hold(hospital: Hospital) -> None:
    """`zambezi audit verify` passes, the journal and the central copies included."""
    done = hospital.try_zambezi("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
