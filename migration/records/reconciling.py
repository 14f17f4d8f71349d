"""Whether what an old system told and what the archive holds meet: links counted, orphans listed, both ways."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select
from sqlalchemy.orm import Session

from zambezi import legacy
from zambezi.database.tables import LegacyReport, Order, Patient, Study

#: What became of documents that are to be in the archive, by LegacyReport.archive_state.
DOCUMENTS = {
    "stored": "documents in the archive",
    "there": "documents that came with their study",
    "due": "documents that wait for their study",
    "refused": "documents that the archive could not take",
}


def counts(session: Session, name: str) -> dict[str, int]:
    """How many exams and reports of the import are linked, and how many stand alone."""
    exams, reports = Order.source == _mark(name), and_(LegacyReport.source == name, LegacyReport.is_latest)
    found = {
        "exams": _count(session, select(Order.id).where(exams)),
        "reports": _count(session, select(LegacyReport.id).where(reports)),
    }
    found |= {words: _count(session, query) for words, query in _queries(name).items()}
    states = select(LegacyReport.archive_state, func.count()).where(LegacyReport.source == name)
    in_archive = {row[0]: row[1] for row in session.execute(states.group_by(LegacyReport.archive_state))}
    return found | {words: in_archive[state] for state, words in DOCUMENTS.items() if in_archive.get(state)}


def orphans(session: Session, name: str, limit: int) -> dict[str, list[dict[str, Any]]]:
    """The first of each sort of orphan, by numbers alone."""
    return {
        words: [dict(row._mapping) for row in session.execute(query.limit(limit))]
        for words, query in _queries(name).items()
    }


def _queries(name: str) -> dict[str, Any]:
    latest = (LegacyReport.source == name, LegacyReport.is_latest)
    of_import = Order.source == _mark(name)
    report = (
        LegacyReport.id.label("report"), LegacyReport.source_key.label("key"), LegacyReport.study_uid,
        LegacyReport.accession_number,
    )  # fmt: skip
    order = (Order.id.label("order"), Order.accession_number, Order.study_uid)
    reported = exists().where(LegacyReport.is_latest, or_(LegacyReport.order_id == Order.id,
                                                          LegacyReport.study_uid == Order.study_uid))  # fmt: skip
    return {
        "reports without a study": select(*report).where(*latest, not_(has_study())).order_by(LegacyReport.id),
        "reports whose study is another patient's": select(*report, Study.patient_id.label("patient_of_study"))
        .join(Study, Study.study_uid == LegacyReport.study_uid)
        .where(*latest, Study.instances > 0, Study.patient_id != "", _another()).order_by(LegacyReport.id),
        "exams without images": select(*order)
        .where(of_import, ~exists().where(Study.order_id == Order.id, Study.instances > 0)).order_by(Order.id),
        "exams without a report": select(*order).where(of_import, Order.status == "completed", ~reported)
        .order_by(Order.id),
        "studies without an exam": select(Study.study_uid, Study.accession_number, Study.study_date)
        .where(Study.order_id.is_(None), Study.instances > 0, Study.cause == "migration").order_by(Study.study_uid),
    }  # fmt: skip


def has_study() -> ColumnElement[bool]:
    """By Study UID, by the order, or by the accession number of the same patient, as pages link them."""
    by_order = and_(LegacyReport.order_id.is_not(None), Study.order_id == LegacyReport.order_id)
    same_patient = exists().where(Patient.id == LegacyReport.patient_key, Patient.patient_id == Study.patient_id)
    by_number = and_(
        LegacyReport.study_uid.is_(None), LegacyReport.accession_number != "",
        Study.accession_number == LegacyReport.accession_number, same_patient,
    )  # fmt: skip
    return exists().where(Study.instances > 0, or_(Study.study_uid == LegacyReport.study_uid, by_order, by_number))


def _another() -> ColumnElement[bool]:
    """The report's patient is neither the study's, nor one who was merged into or with them."""
    whose = exists().where(
        or_(Patient.id == LegacyReport.patient_key, Patient.merged_into == LegacyReport.patient_key),
        Patient.patient_id == Study.patient_id,
    )
    return and_(LegacyReport.patient_key.is_not(None), ~whose)


def _count(session: Session, query: Any) -> int:
    return session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0


def _mark(name: str) -> str:
    return f"{legacy.MARK}{name}"[:64]
