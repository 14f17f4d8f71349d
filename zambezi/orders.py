"""Patients, orders and the states of an exam: the one place where they are made and changed.

HL7, MPPS, the archive's journal and the RIS pages all come here. Every function works inside the caller's
transaction, appends its audit entry to the caller's chain (`writer`) and raises the generation of the
worklist, so that the plugin's copy follows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, identifiers
from zambezi.config.settings import Site
from zambezi.database import generations
from zambezi.database.tables import Order, Patient

#: Which states may follow which (DICOM PS3.3 C.4.10 calls them states of a Scheduled Procedure Step).
#: A state may be skipped, since few modalities report all of them; a final one is left by a new
#: beginning only. in-progress -> scheduled: the modality had chosen a wrong worklist entry (DCM 110514).
TRANSITIONS: dict[str, frozenset[str]] = {
    "scheduled": frozenset({"arrived", "in-progress", "completed", "discontinued", "cancelled"}),
    "arrived": frozenset({"scheduled", "in-progress", "completed", "discontinued", "cancelled"}),
    "in-progress": frozenset({"scheduled", "completed", "discontinued"}),
    "discontinued": frozenset({"in-progress", "scheduled"}),
    "completed": frozenset(),
    "cancelled": frozenset(),
}

#: States in which a modality is still offered the order.
OPEN = ("scheduled", "arrived", "in-progress")

PRIORITIES = ("STAT", "HIGH", "ROUTINE")

#: SH of DICOM PS3.5 6.2: the longest accession number that survives a modality.
LONGEST_SHORT_STRING = 16


class OrderRefused(ValueError):
    """What was asked can't be done with this patient or order; the text tells a person why."""


@dataclass(frozen=True)
class NewOrder:
    """What is known of an order when it is placed; numbers that are empty are made by us."""

    scheduled_at: datetime
    modality: str = ""
    procedure_code: str = ""
    procedure_text: str = ""
    station_aet: str = ""
    priority: str = "ROUTINE"
    clinical_information: str = ""
    referring_physician: str = ""
    placer_number: str = ""
    filler_number: str = ""
    accession_number: str = ""
    study_uid: str = ""
    source: str = "ris"


def make_uid() -> str:
    """A new UID of our own: 2.25 and a random UUID as a number (DICOM PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def register_patient(
    session: Session, *, patient_id: str, issuer: str, family_name: str, given_name: str = "",
    birth_date: str | None = None, sex: str | None = None, now: datetime, writer: str, who: str = "",
) -> Patient:  # fmt: skip
    """The patient with this ID of this issuer: made, or brought up to date with what is given.

    None leaves a birth date or sex as it is, "" takes it away (HL7's empty and `""`). An identifier that was merged
    away gives its survivor, whose name and birth date stay: what a late message says of a patient known as
    "unknown 12" must not become the name of whom that was.
    """
    if not patient_id or len(patient_id) > 64:
        raise OrderRefused("the patient ID must have 1 to 64 characters")
    if not family_name and not given_name:
        raise OrderRefused("the patient has no name")
    generations.raise_(session, "worklist")
    facts: dict[str, Any] = {"family_name": family_name[:64], "given_name": given_name[:64]}
    facts |= {"birth_date": birth_date or None} if birth_date is not None else {}
    facts |= {"sex": sex or None} if sex is not None else {}
    patient = identifiers.find(session, patient_id, issuer)
    if patient is not None and patient.merged_into is not None:
        return _redirected(session, patient, now, writer, who)
    if patient is None:
        patient = Patient(
            patient_id=patient_id, issuer=issuer, created_at=clock.text(now), updated_at=clock.text(now), **facts
        )
        session.add(patient)
        changed = ["registered"]
    else:
        changed = _change(patient, facts, now)
    session.flush()
    if changed:
        audit.append(
            session, writer, "patient-changed", now,
            patient=patient.id, patient_id=patient_id, issuer=issuer, changed=changed, **_by(who),
        )  # fmt: skip
    return patient


def find_patient(session: Session, patient_id: str, issuer: str) -> Patient | None:
    """The patient with this ID of this issuer; of an identifier that was merged away, the survivor."""
    patient = identifiers.find(session, patient_id, issuer)
    return patient and identifiers.survivor_of(session, patient)


def find_by_accession(session: Session, accession_number: str, patient_id: str) -> Order | None:
    """The order with this accession number, where it is of the patient with this ID (today's, or one merged away)."""
    order = session.scalars(select(Order).where(Order.accession_number == accession_number)).first()
    return order if order is not None and identifiers.is_called(session, order.patient, patient_id) else None


def _redirected(session: Session, patient: Patient, now: datetime, writer: str, who: str) -> Patient:
    survivor = identifiers.survivor_of(session, patient)
    audit.append(
        session, writer, "patient-changed", now, patient=patient.id, patient_id=patient.patient_id,
        issuer=patient.issuer, changed=[], redirected_to=survivor.id, **_by(who),
    )  # fmt: skip
    return survivor


def place_order(
    session: Session, patient: Patient, wanted: NewOrder, *, now: datetime, site: Site, writer: str, who: str = ""
) -> Order:
    """A new order of the patient, scheduled; accession number and Study UID are made where none came.

    OrderRefused where an accession number or Study UID that came belongs to another order, or is too long
    for DICOM: cutting it would make it another order's.
    """
    check_numbers(wanted)
    generations.raise_orders(session)  # and nobody else places an order until this transaction ends
    accession_number = wanted.accession_number or _next_accession(session, site, now)
    study_uid = wanted.study_uid or make_uid()
    for column, value, name in (
        (Order.accession_number, accession_number, "accession number"),
        (Order.study_uid, study_uid, "Study Instance UID"),
    ):
        other = session.scalars(select(Order).where(column == value)).first()
        if other is not None:
            raise OrderRefused(f"{name} {value} belongs to order {other.id} already")
    short = uuid.uuid4().hex[:14].upper()
    order = Order(
        patient_key=patient.id, patient=patient,
        placer_number=wanted.placer_number or None, filler_number=wanted.filler_number or accession_number,
        accession_number=accession_number, study_uid=study_uid, procedure_id=f"R{short}", step_id=f"S{short}",
        procedure_code=wanted.procedure_code[:64], procedure_text=wanted.procedure_text[:200],
        modality=wanted.modality, station_aet=wanted.station_aet or None,
        scheduled_at=clock.text(wanted.scheduled_at), priority=wanted.priority,
        clinical_information=wanted.clinical_information, referring_physician=wanted.referring_physician[:200],
        source=wanted.source, created_at=clock.text(now), updated_at=clock.text(now),
    )  # fmt: skip
    session.add(order)
    session.flush()
    _audit(session, order, "order-changed", now, writer, who, changed=["placed"], source=order.source)
    return order


def change_order(
    session: Session, order: Order, facts: Mapping[str, Any], *, now: datetime, writer: str, who: str = ""
) -> list[str]:
    """Change what an order says (columns of Order by name) while the exam is not over; what was changed."""
    if order.status not in OPEN:
        raise OrderRefused(f"order {order.accession_number} is {order.status}; it can't be changed any more")
    generations.raise_orders(session)
    changed = _change(order, facts, now)
    if changed:
        _audit(session, order, "order-changed", now, writer, who, changed=changed)
    return changed


def schedule_order(
    session: Session, order: Order, scheduled_at: datetime, station_aet: str = "", *,
    now: datetime, writer: str, who: str = "",
) -> list[str]:  # fmt: skip
    """Give the order another time and, where one is named, another station."""
    facts: dict[str, Any] = {"scheduled_at": clock.text(scheduled_at)}
    facts |= {"station_aet": station_aet} if station_aet else {}
    return change_order(session, order, facts, now=now, writer=writer, who=who)


def cancel_order(
    session: Session, order: Order, *, now: datetime, writer: str, who: str = "", reason: str = ""
) -> bool:
    """Cancel an order whose exam has not begun; False if it was cancelled already.

    OrderRefused once the exam has begun: images exist or are being made, and a person must decide.
    """
    if order.status not in ("scheduled", "arrived", "cancelled"):
        raise OrderRefused(f"order {order.accession_number} is {order.status}; only a person can cancel it now")
    return set_status(session, order, "cancelled", now=now, writer=writer, who=who, reason=reason)


def set_status(
    session: Session, order: Order, status: str, *, now: datetime, writer: str, who: str = "", reason: str = ""
) -> bool:
    """Move the order to `status`; False if it is there already, OrderRefused if it can't get there."""
    if status not in TRANSITIONS:
        raise OrderRefused(f"no state {status!r}; there are {', '.join(TRANSITIONS)}")
    generations.raise_orders(session)
    session.refresh(order, ["status"])  # under the lock that raising the generation took
    before = order.status
    if before == status:
        return False
    if status not in TRANSITIONS[before]:
        raise OrderRefused(f"order {order.accession_number} is {before}; it can't become {status}")
    order.status, order.updated_at = status, clock.text(now)
    because = {"reason": reason} if reason else {}
    event = "order-changed" if status == "cancelled" else "exam-changed"
    _audit(session, order, event, now, writer, who, before=before, status=status, **because)
    return True


def reopen(session: Session, order: Order, *, now: datetime, writer: str, reason: str) -> bool:
    """The exam that was noted for this order was another's: it is to be done still. False where it isn't noted.

    The order gets a new Study Instance UID, since the old one is on the other's images.
    """
    if order.status not in ("in-progress", "completed", "discontinued"):
        return False
    generations.raise_orders(session)
    before, order.status, order.updated_at = order.status, "scheduled", clock.text(now)
    old_uid, order.study_uid = order.study_uid, make_uid()
    _audit(
        session, order, "exam-changed", now, writer, "", before=before, status="scheduled", reason=reason,
        old_study_uid=old_uid,
    )  # fmt: skip
    return True


def renumber(session: Session, order: Order, *, now: datetime, writer: str, reason: str) -> None:
    """Give an order that is to be done still a new Study Instance UID: another's images carry the one it had."""
    generations.raise_orders(session)
    old_uid, order.study_uid, order.updated_at = order.study_uid, make_uid(), clock.text(now)
    _audit(session, order, "exam-changed", now, writer, "", reason=reason, old_study_uid=old_uid)


def check_numbers(wanted: NewOrder) -> None:
    """OrderRefused where a number or word of the order doesn't fit into DICOM or HL7."""
    for name, value, most in (
        ("the accession number", wanted.accession_number, LONGEST_SHORT_STRING),
        ("the modality", wanted.modality, LONGEST_SHORT_STRING),
        ("the station's AE title", wanted.station_aet, LONGEST_SHORT_STRING),
        ("the Study Instance UID", wanted.study_uid, 64),
        ("the placer's number", wanted.placer_number, 64),
        ("the filler's number", wanted.filler_number, 64),
    ):
        if len(value) > most:
            raise OrderRefused(f"{name} {value[:80]!r} has {len(value)} characters; DICOM and HL7 carry {most}")
    if "\\" in wanted.accession_number:
        raise OrderRefused("the accession number holds a backslash, which separates values in DICOM")
    if wanted.study_uid and not set(wanted.study_uid) <= set("0123456789."):
        raise OrderRefused(f"the Study Instance UID {wanted.study_uid!r} is not made of digits and dots")
    if wanted.priority not in PRIORITIES:
        raise OrderRefused(f"no priority {wanted.priority!r}; there are {', '.join(PRIORITIES)}")


def _next_accession(session: Session, site: Site, now: datetime) -> str:
    # With the day inside, a database that was restored from last week's backup can't make a number twice.
    day = f"{site.accession_prefix}{now.astimezone(site.zone):%y%m%d}"
    last = session.scalars(
        select(Order.accession_number)
        .where(Order.accession_number.like(f"{day}____"))
        .order_by(Order.accession_number.desc())
        .limit(1)
    ).first()
    number = int(last[len(day) :]) + 1 if last and last[len(day) :].isdigit() else 1
    if number > 9999:
        raise OrderRefused(f"the 9,999 accession numbers {day}... of this day are used up")
    return f"{day}{number:04d}"


def _change(row: Patient | Order, facts: Mapping[str, Any], now: datetime) -> list[str]:
    changed = [name for name, value in facts.items() if getattr(row, name) != value]
    for name in changed:
        setattr(row, name, facts[name])
    if changed:
        row.updated_at = clock.text(now)
    return changed


def _audit(session: Session, order: Order, event: str, now: datetime, writer: str, who: str, **facts: Any) -> None:
    session.flush()
    audit.append(
        session, writer, event, now,
        order=order.id, accession_number=order.accession_number, study_uid=order.study_uid, **_by(who), **facts,
    )  # fmt: skip


def _by(who: str) -> dict[str, str]:
    return {"who": who} if who else {}
