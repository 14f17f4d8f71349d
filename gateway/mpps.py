"""Modality Performed Procedure Step (DICOM PS3.4 F.7): what modalities say they did, kept and followed.

Everything is committed before the modality is answered. A step whose order can't be found is kept all the
same and waits for a person; refusing it would only stop the modality's work.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import ready
from zambezi import audit, clock, exceptions, orders
from zambezi.database.tables import Order, PerformedStep

WRITER = "gateway"

#: Statuses of PS3.7 C.4.2 and PS3.4 F.7.
SUCCESS = 0x0000
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111
NO_SUCH_OBJECT = 0x0112
MISSING_ATTRIBUTE = 0x0120

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"

#: DCM "Incorrect worklist entry selected" (PS3.16 CID 9300).
WRONG_ENTRY = "110514"


def create(session: Session, sop_uid: str, attributes: Dataset, station_aet: str, now: datetime) -> int:
    """N-CREATE: a modality has begun; the status to answer with."""
    if session.get(PerformedStep, sop_uid) is not None:
        return DUPLICATE
    status = str(attributes.get("PerformedProcedureStepStatus", ""))
    if not status:
        return MISSING_ATTRIBUTE
    if status != IN_PROGRESS:
        return INVALID_VALUE
    order = find_order(session, attributes)
    step = PerformedStep(
        sop_uid=sop_uid, status=status, study_uid=_scheduled(attributes, "StudyInstanceUID") or None,
        order_id=order.id if order else None, station_aet=station_aet, attributes=attributes.to_json_dict(),
        created_at=clock.text(now), updated_at=clock.text(now),
    )  # fmt: skip
    session.add(step)
    session.flush()
    _audit(session, step, order, now)
    if order is None:
        exceptions.wait(
            session, "mpps", sop_uid, now=now, kind="mpps-no-order", study_uid=step.study_uid,
            facts={"source": station_aet}, actions=_actions(None, step.study_uid),
            what=f"{station_aet} began an exam that belongs to no order here",
            suggestion="Find the order and link its study, or register the exam; its images are in the archive.",
        )  # fmt: skip
    else:
        _follow(session, order, "in-progress", step, now, f"{station_aet} began it (MPPS)")
    return SUCCESS


def change(session: Session, sop_uid: str, changes: Dataset, now: datetime) -> int:
    """N-SET: a modality goes on or ends; the status to answer with. What is ended never changes any more."""
    step = session.get(PerformedStep, sop_uid, with_for_update=True)
    if step is None:
        return NO_SUCH_OBJECT
    if step.status != IN_PROGRESS:
        return PROCESSING_FAILURE
    status = str(changes.get("PerformedProcedureStepStatus", "") or step.status)
    if status not in (IN_PROGRESS, COMPLETED, DISCONTINUED):
        return INVALID_VALUE
    step.attributes = {**step.attributes, **changes.to_json_dict()}
    step.status, step.updated_at = status, clock.text(now)
    session.flush()
    order = session.get(Order, step.order_id) if step.order_id else None
    _audit(session, step, order, now)
    if status != IN_PROGRESS:
        ready.performed(session, step, now)
    if order is not None and status == COMPLETED:
        _follow(session, order, "completed", step, now, f"{step.station_aet} completed it (MPPS)")
    elif order is not None and status == DISCONTINUED:
        _discontinued(session, order, step, changes, now)
    return SUCCESS


def find_order(session: Session, attributes: Dataset) -> Order | None:
    """The order that a step belongs to: by the Study UID it was given, else by accession number and patient."""
    study_uid, accession = _scheduled(attributes, "StudyInstanceUID"), _scheduled(attributes, "AccessionNumber")
    if study_uid:
        found = session.scalars(select(Order).where(Order.study_uid == study_uid)).first()
        if found is not None:
            return found
    patient_id = str(attributes.get("PatientID", ""))
    return orders.find_by_accession(session, accession, patient_id) if accession else None


def _discontinued(session: Session, order: Order, step: PerformedStep, changes: Dataset, now: datetime) -> None:
    reasons = changes.get("PerformedProcedureStepDiscontinuationReasonCodeSequence") or []
    if WRONG_ENTRY not in [str(reason.get("CodeValue", "")) for reason in reasons]:
        _follow(session, order, "discontinued", step, now, f"{step.station_aet} broke it off (MPPS)")
        return
    _follow(session, order, "scheduled", step, now, f"{step.station_aet} had chosen a wrong worklist entry (MPPS)")
    exceptions.wait(
        session, "mpps", step.sop_uid, now=now, kind="mpps-wrong-entry", study_uid=step.study_uid,
        facts={"source": step.station_aet, "accession": order.accession_number},
        actions=_actions(order, step.study_uid),
        what=f"{step.station_aet} had chosen a wrong worklist entry: order {order.accession_number} is scheduled again",
        suggestion="Images made under the wrong entry may be in the archive: compare them with the patient.",
    )  # fmt: skip


def _follow(session: Session, order: Order, status: str, step: PerformedStep, now: datetime, why: str) -> None:
    try:
        orders.set_status(session, order, status, now=now, writer=WRITER, reason=why)
    except orders.OrderRefused as refused:
        exceptions.wait(
            session, "mpps", step.sop_uid, now=now, what=f"{why}, but: {refused}", kind="mpps-refused",
            study_uid=step.study_uid, actions=_actions(order, step.study_uid),
            facts={"source": step.station_aet, "accession": order.accession_number, "reason": str(refused)},
            suggestion="The exam was performed as the modality says; decide what becomes of the order.",
        )  # fmt: skip


def _actions(order: Order | None, study_uid: str | None) -> list[dict[str, str]]:
    pages = [{"label": "Open the order", "href": f"/orders/{order.id}"}] if order else []
    return pages + ([{"label": "Open the study", "href": f"/studies/{study_uid}"}] if study_uid else [])


def _scheduled(attributes: Dataset, keyword: str) -> str:
    for one in attributes.get("ScheduledStepAttributesSequence") or []:
        value = str(one.get(keyword, "") or "")
        if value:
            return value
    return ""


def _audit(session: Session, step: PerformedStep, order: Order | None, now: datetime) -> None:
    about: dict[str, Any] = {"study_uid": step.study_uid} if step.study_uid else {}
    about |= {"order": order.id, "accession_number": order.accession_number} if order else {}
    audit.append(
        session, WRITER, "exam-changed", now,
        performed_step=step.sop_uid, status=step.status, aet=step.station_aet, **about,
    )  # fmt: skip
