"""Carrying out what a message says, in the caller's transaction.

`carry_out` raises NotForUs (answered AR) or CannotApply (answered AE; a person must look).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock, identifiers, orders, patients
from zambezi.config.settings import Hl7Peer, Site
from zambezi.database.tables import Order, Patient
from zambezi.hl7 import orders as told
from zambezi.hl7.ack import Trouble
from zambezi.hl7.merges import CHANGING, MERGING, Merge, merges
from zambezi.hl7.orders import CannotApply, OrderFacts, PatientFacts
from zambezi.hl7.read import Reading


class NotForUs(ValueError):
    """A message of a kind that nobody here carries out; `trouble` is told to the sender."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.trouble = Trouble(code, text, "MSH^1^9")


def carry_out(
    session: Session, reading: Reading, name: str, peer: Hl7Peer, site: Site, *, now: datetime, writer: str
) -> None:
    """Do what an ADT or ORM^O01 of the peer called `name` says; doing it twice is doing it once."""
    kind, event = reading.get("MSH-9.1"), reading.get("MSH-9.2")
    if kind not in ("ADT", "ORM"):
        raise NotForUs("200", f"messages of type {kind[:8] or '(none)'} are not carried out here; ADT and ORM are")
    if kind == "ADT" and event not in (*told.REGISTERING, *MERGING, *CHANGING):
        known = ", ".join(told.REGISTERING)
        raise NotForUs(
            "201",
            f"ADT event {event[:8] or '(none)'} is not carried out here; {known} are, {', '.join(MERGING)} to merge "
            f"patients and {', '.join(CHANGING)} to change an identifier",
        )
    if kind == "ORM" and event not in ("O01", ""):
        raise NotForUs("201", f"ORM event {event[:8]} is not carried out here; O01 is")
    if kind == "ADT" and event not in told.REGISTERING:
        for number, merge in enumerate(merges(reading, site.issuer), 1):
            _merge(session, merge, f"ADT^{event}, message {reading.control_id[:40]}", number, now, writer, name)
        return
    try:
        patient = _register(session, told.patient(reading, site.issuer), now, writer, name)
        if kind == "ORM":
            for wanted in told.orders(reading, peer.fields, site.zone):
                _order(session, wanted, patient, name, site, now, writer)
    except orders.OrderRefused as refused:
        raise CannotApply("204", str(refused)) from refused


def _register(session: Session, facts: PatientFacts, now: datetime, writer: str, name: str) -> Patient:
    return orders.register_patient(
        session, patient_id=facts.patient_id, issuer=facts.issuer, family_name=facts.family_name,
        given_name=facts.given_name, birth_date=facts.birth_date, sex=facts.sex, now=now, writer=writer, who=name,
    )  # fmt: skip


def _merge(session: Session, wanted: Merge, source: str, number: int, now: datetime, writer: str, name: str) -> None:
    old, new = wanted.prior, wanted.survivor
    how: dict[str, Any] = {"now": now, "writer": writer, "who": name, "reason": f"{name} says so ({source})"}
    prior = identifiers.find(session, old.patient_id, old.issuer)
    try:
        if source.startswith("ADT^A47") and prior is not None:
            patients.change_identifier(session, old=prior, patient_id=new.patient_id, issuer=new.issuer, **how)
            if wanted.facts is not None:
                _register(session, wanted.facts, now, writer, name)
            return
        if wanted.facts is not None:
            _register(session, wanted.facts, now, writer, name)
        # The row of that very identifier, not whom it has become: only so a merge in reverse is seen as one.
        survivor = identifiers.find(session, new.patient_id, new.issuer)
        if survivor is None:
            raise CannotApply("101", "PID-5 names nobody, and the identifier in PID-3 is not known", f"PID^{number}^5")
        prior = prior or patients.known_or_stub(session, old.patient_id, old.issuer, now)
        patients.merge(session, prior=prior, survivor=survivor, **how)
    except patients.MergeRefused as refused:
        raise CannotApply(refused.code, str(refused), f"MRG^{number}^1") from refused


def _order(
    session: Session, wanted: OrderFacts, patient: Patient, name: str, site: Site, now: datetime, writer: str
) -> None:
    order = _find(session, wanted, name)
    if order is None and wanted.action == "place":
        orders.place_order(session, patient, _new(wanted, name, now), now=now, site=site, writer=writer, who=name)
        return
    if order is None:
        number = wanted.placer_number or wanted.accession_number or wanted.study_uid or "(none)"
        raise CannotApply("204", f"no order with the number {number[:64]} is known here", "ORC^1^2")
    if order.patient_key != patient.id:
        raise CannotApply("205", f"order {order.accession_number} belongs to another patient", "PID^1^3")
    if wanted.action in ("place", "change"):
        _change(session, order, wanted, now, writer, name)
    elif wanted.action == "cancel":
        orders.cancel_order(session, order, now=now, writer=writer, who=name, reason="cancelled by the sender")
    elif wanted.status:
        orders.set_status(session, order, wanted.status, now=now, writer=writer, who=name, reason="the sender says so")


def _find(session: Session, wanted: OrderFacts, name: str) -> Order | None:
    # The placer's number first: a cancel may carry the old number there and a new accession number (Bahmni).
    for value, conditions in (
        (wanted.placer_number, (Order.placer_number == wanted.placer_number, Order.source == name)),
        (wanted.study_uid, (Order.study_uid == wanted.study_uid,)),
        (wanted.accession_number, (Order.accession_number == wanted.accession_number,)),
    ):
        found = session.scalars(select(Order).where(*conditions).order_by(Order.id.desc())).first() if value else None
        if found is not None:
            return found
    return None


def _new(wanted: OrderFacts, name: str, now: datetime) -> orders.NewOrder:
    return orders.NewOrder(
        scheduled_at=wanted.scheduled_at or now, modality=wanted.modality, procedure_code=wanted.procedure_code,
        procedure_text=wanted.procedure_text, station_aet=wanted.station_aet, priority=wanted.priority or "ROUTINE",
        clinical_information=wanted.clinical_information, referring_physician=wanted.referring_physician,
        placer_number=wanted.placer_number, filler_number=wanted.filler_number,
        accession_number=wanted.accession_number, study_uid=wanted.study_uid, source=name,
    )  # fmt: skip


def _change(session: Session, order: Order, wanted: OrderFacts, now: datetime, writer: str, name: str) -> None:
    for said, has, what in (
        (wanted.accession_number, order.accession_number, "accession number"),
        (wanted.study_uid, order.study_uid, "Study Instance UID"),
    ):
        if said and said != has:
            raise CannotApply("205", f"order {order.id} has the {what} {has}; it can't become {said[:64]}")
    facts: dict[str, Any] = {
        "procedure_code": wanted.procedure_code[:64], "procedure_text": wanted.procedure_text[:200],
        "modality": wanted.modality[:16], "station_aet": wanted.station_aet[:16], "priority": wanted.priority,
        "clinical_information": wanted.clinical_information, "referring_physician": wanted.referring_physician[:200],
        "scheduled_at": clock.text(wanted.scheduled_at) if wanted.scheduled_at else "",
    }  # fmt: skip
    differing = {column: value for column, value in facts.items() if value and getattr(order, column) != value}
    if differing:
        orders.change_order(session, order, differing, now=now, writer=writer, who=name)
