"""Who is meant by an identifier: patients that were merged go on being found under what they were called before.

A merged patient's row stays (`Patient.merged_into`), so that an identifier on an old request, in an old message or on
an old image leads to the one who has the orders now.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi.database.tables import Patient


def find(session: Session, patient_id: str, issuer: str) -> Patient | None:
    """The patient with this ID of this issuer, merged away or not."""
    return session.scalars(select(Patient).where(Patient.patient_id == patient_id, Patient.issuer == issuer)).first()


def lineage(session: Session, patient: Patient) -> list[Patient]:
    """The patient, the one it was merged into, the one that was merged into in turn; the last is the survivor."""
    line = [patient]
    while line[-1].merged_into is not None:
        after = session.get_one(Patient, line[-1].merged_into)
        if after in line:  # no merge of ours makes a circle; one made by hand must not hang a process
            break
        line.append(after)
    return line


def survivor_of(session: Session, patient: Patient) -> Patient:
    """Whom this patient is today: itself, or the last that it was merged into."""
    return lineage(session, patient)[-1]


def is_called(session: Session, patient: Patient, patient_id: str) -> bool:
    """Whether this is the patient's ID, or that of one who was merged into them."""
    if patient.patient_id == patient_id:
        return True
    named = session.scalars(select(Patient).where(Patient.patient_id == patient_id, Patient.merged_into.is_not(None)))
    return any(survivor_of(session, one) is patient for one in named)


def former(session: Session, patients: Iterable[int] | None = None) -> dict[int, list[Patient]]:
    """Of each survivor (`patients`, else all of them) by id: the patients merged into it, at whatever remove."""
    merged = session.scalars(select(Patient).where(Patient.merged_into.is_not(None)).order_by(Patient.id)).all()
    wanted = None if patients is None else set(patients)
    found: dict[int, list[Patient]] = {}
    into = {patient.id: patient.merged_into for patient in merged}
    for patient in merged:
        at, seen = patient.merged_into, {patient.id}
        while (after := into.get(at or 0)) is not None and at not in seen:
            seen.add(at or 0)
            at = after
        if at is not None and (wanted is None or at in wanted):
            found.setdefault(at, []).append(patient)
    return found


def former_ids(session: Session) -> dict[int, list[str]]:
    """Of each survivor by id: the patient IDs that it was known by, for searches and lists."""
    return {survivor: [patient.patient_id for patient in merged] for survivor, merged in former(session).items()}
