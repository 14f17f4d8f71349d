"""Which row of a Study Instance UID is meant: two patients' images may carry one, and a deleted one leaves its row."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import identifiers
from zambezi.database.tables import Order, Report, Study


def latest(session: Session, study_uid: str, orthanc_id: str = "") -> Study | None:
    """The very study where its Orthanc id is told; else the one that got images last, of those that have any."""
    if orthanc_id:
        return session.get(Study, (study_uid, orthanc_id))
    query = select(Study).where(Study.study_uid == study_uid)
    return session.scalars(query.order_by((Study.instances > 0).desc(), Study.last_at.desc()).limit(1)).first()


def of_report(session: Session, report: Report) -> Study | None:
    """The study whose images a report is of; None where none is here, or where nothing tells which of two patients'."""
    rows = session.scalars(select(Study).where(Study.study_uid == report.study_uid).order_by(Study.orthanc_id)).all()
    there = [one for one in rows if one.instances > 0] or rows
    if len(there) == 1:
        return there[0]
    order = session.get(Order, report.order_id) if report.order_id is not None else None
    if order is None:
        return None
    its = [one for one in there if identifiers.is_called(session, order.patient, one.patient_id)]
    return its[0] if len(its) == 1 else None
