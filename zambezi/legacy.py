"""Exams and reports of an old information system: recorded as over, linked to images, never acted upon.

An exam that is over is on no worklist, and its entry in the audit trail (`imported`) sets off no message: nothing in
here speaks to a neighbour. A report is another system's: no draft, no signature of ours, no way to be changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from zambezi import audit, clock, identifiers, orders
from zambezi.database.tables import LegacyReport, Order, Patient, Study

#: Begins Order.source of an imported exam; the import's name follows.
MARK = "legacy:"


@dataclass(frozen=True)
class PastExam:
    """An exam as an old system tells of it; `performed_at` and `status` as in Order, numbers may be empty."""

    source: str  # the import's name
    key: str  # of the row
    performed_at: str
    status: str
    accession_number: str = ""
    study_uid: str = ""
    placer_number: str = ""
    filler_number: str = ""
    procedure_code: str = ""
    procedure_text: str = ""
    modality: str = ""
    priority: str = "ROUTINE"
    referring_physician: str = ""
    clinical_information: str = ""


@dataclass(frozen=True)
class PastReport:
    """A report as an old system tells of it."""

    source: str
    key: str
    text: str
    media: str
    document: bytes | None = None
    sop_uid: str = ""
    study_uid: str = ""
    accession_number: str = ""
    title: str = ""
    author: str = ""
    written_at: str = ""
    status: str = ""


@dataclass(frozen=True)
class Linked:
    """A report of an old system and the study that it is of, by what."""

    report: LegacyReport
    because: str  # study-uid, order, accession


def is_legacy(order: Order) -> bool:
    """Whether the exam was imported."""
    return order.source.startswith(MARK)


def record_exam(
    session: Session, patient: Patient, exam: PastExam, *, now: datetime, writer: str, who: str
) -> tuple[Order, bool]:
    """The exam's order, over and done, and whether it is new: one that is here already for this patient stays as it is.

    OrderRefused where its accession number or Study UID is another patient's order's.
    """
    accession = exam.accession_number or made_accession(exam.source, exam.key)
    here = _order_here(session, patient, accession, exam.study_uid)
    if here is not None:
        return here, False
    short = hashlib.sha256(f"{exam.source}/{exam.key}".encode()).hexdigest()[:14].upper()
    wanted = orders.NewOrder(
        scheduled_at=clock.parse(exam.performed_at), modality=exam.modality, priority=exam.priority,
        placer_number=exam.placer_number, filler_number=exam.filler_number, accession_number=accession,
        study_uid=exam.study_uid,
    )  # fmt: skip
    orders.check_numbers(wanted)
    order = Order(
        patient_key=patient.id, patient=patient, placer_number=exam.placer_number or None,
        filler_number=exam.filler_number or accession, accession_number=accession,
        study_uid=exam.study_uid or orders.make_uid(), procedure_id=f"R{short}", step_id=f"S{short}",
        procedure_code=exam.procedure_code, procedure_text=exam.procedure_text, modality=exam.modality,
        station_aet=None, scheduled_at=exam.performed_at, priority=exam.priority, status=exam.status,
        clinical_information=exam.clinical_information, referring_physician=exam.referring_physician,
        source=f"{MARK}{exam.source}"[:64], created_at=clock.text(now), updated_at=clock.text(now),
    )  # fmt: skip
    session.add(order)
    session.flush()
    audit.append(
        session, writer, "order-changed", now, order=order.id, accession_number=accession, study_uid=order.study_uid,
        source=order.source, changed=["imported"], who=who,
    )  # fmt: skip
    _link_images(session, order, has_own_uid=bool(exam.study_uid), now=now, writer=writer)
    return order, True


def change_exam(session: Session, order: Order, exam: PastExam, *, now: datetime, writer: str, who: str) -> list[str]:
    """What an imported exam says is otherwise in the old system by now; what was changed. Its numbers stay."""
    columns = ("status", "procedure_code", "procedure_text", "modality", "priority", "referring_physician",
               "clinical_information")  # fmt: skip
    facts = {name: getattr(exam, name) for name in columns} | {"scheduled_at": exam.performed_at}
    changed = [name for name, value in facts.items() if getattr(order, name) != value]
    for name in changed:
        setattr(order, name, facts[name])
    if changed:
        order.updated_at = clock.text(now)
        session.flush()
        audit.append(
            session, writer, "order-changed", now, order=order.id, accession_number=order.accession_number,
            study_uid=order.study_uid, source=order.source, changed=["imported", *changed], who=who,
        )  # fmt: skip
    return changed


def record_report(session: Session, patient: Patient | None, report: PastReport, *, now: datetime) -> LegacyReport:
    """The report, as the next version of what this source said under this key before; its hashes are made here."""
    before = session.scalars(
        select(LegacyReport)
        .where(LegacyReport.source == report.source, LegacyReport.source_key == report.key)
        .order_by(LegacyReport.version.desc())
    ).first()
    if before is not None:
        before.is_latest = False
    order = _order_of(session, patient, report)
    made = LegacyReport(
        source=report.source, source_key=report.key, version=before.version + 1 if before else 1,
        study_uid=report.study_uid or None, order_id=order.id if order else None,
        patient_key=patient.id if patient else order.patient_key if order else None,
        accession_number=report.accession_number, title=report.title, author=report.author,
        written_at=report.written_at or None, status=report.status, text=report.text,
        text_sha256=hashlib.sha256(report.text.encode()).hexdigest(), media=report.media, document=report.document,
        document_sha256=hashlib.sha256(report.document).hexdigest() if report.document is not None else None,
        sop_uid=report.sop_uid or None, imported_at=clock.text(now),
    )  # fmt: skip
    session.add(made)
    if order is not None and order.report_status == "none" and is_legacy(order):
        order.report_status, order.updated_at = "final", clock.text(now)
    session.flush()
    return made


def reports_of(session: Session, study: Study | None, order: Order | None) -> list[Linked]:
    """The old systems' reports of this study, or of this order where it has no images, the newest first.

    By Study UID, by the order, else by accession number; never of a patient who is known to be another. An
    accession number alone joins only what is of one patient: old systems gave them out again.
    """
    keys = []
    if study is not None:
        keys.append(LegacyReport.study_uid == study.study_uid)
        if study.accession_number:
            keys.append(LegacyReport.accession_number == study.accession_number)
    if order is not None:
        keys.append(LegacyReport.order_id == order.id)
        keys.append(LegacyReport.study_uid == order.study_uid)
    if not keys:
        return []
    query = select(LegacyReport).where(LegacyReport.is_latest, or_(*keys))
    found = session.scalars(query.order_by(LegacyReport.written_at.desc(), LegacyReport.id.desc())).all()
    return [linked for report in found if (linked := _linked(session, report, study, order)) is not None]


def studies_of(session: Session, report: LegacyReport) -> list[Study]:
    """The studies with images that this report is shown with: the other direction of `reports_of`."""
    keys = [Study.study_uid == (report.study_uid or "-"), Study.order_id == (report.order_id or -1)]
    if report.accession_number:
        keys.append(Study.accession_number == report.accession_number)
    found = session.scalars(select(Study).where(Study.instances > 0, or_(*keys)).order_by(Study.study_uid)).all()
    return [study for study in found if _linked(session, report, study, _order_of_study(session, study)) is not None]


def _order_of_study(session: Session, study: Study) -> Order | None:
    return session.get(Order, study.order_id) if study.order_id is not None else None


def move_reports(session: Session, old_study_uid: str, new_study_uid: str) -> None:
    """The images under the old Study UID have the new one: reports that name it follow, unless others have it still."""
    others = select(Study.study_uid).where(Study.study_uid == old_study_uid, Study.instances > 0)
    if session.scalars(others).first() is not None:
        return
    session.execute(update(LegacyReport).where(LegacyReport.study_uid == old_study_uid).values(study_uid=new_study_uid))


def made_accession(source: str, key: str) -> str:
    """A number for an exam that has none, always the same for the same row (16 characters, PS3.5 6.2 SH)."""
    return "L" + hashlib.sha256(f"{source}/{key}".encode()).hexdigest()[:15].upper()


def _linked(session: Session, report: LegacyReport, study: Study | None, order: Order | None) -> Linked | None:
    whose = session.get(Patient, report.patient_key) if report.patient_key is not None else None
    whose = identifiers.survivor_of(session, whose) if whose is not None else None
    if whose is not None and order is not None and identifiers.survivor_of(session, order.patient) is not whose:
        return None
    is_known = whose is not None and (
        order is not None or (study is not None and identifiers.is_called(session, whose, study.patient_id))
    )
    if whose is not None and study is not None and order is None and study.patient_id and not is_known:
        return None
    if order is not None and report.order_id == order.id:
        return Linked(report, "order")
    if report.study_uid and report.study_uid in (study.study_uid if study else "", order.study_uid if order else ""):
        return Linked(report, "study-uid")
    # A report that names a Study UID is of that study, whatever accession number it shares with another.
    return Linked(report, "accession") if is_known and not report.study_uid else None


def _order_here(session: Session, patient: Patient, accession_number: str, study_uid: str) -> Order | None:
    found: Sequence[Order] = session.scalars(
        select(Order).where(or_(Order.accession_number == accession_number, Order.study_uid == (study_uid or "-")))
    ).all()
    for order in found:
        which = "accession number" if order.accession_number == accession_number else "Study Instance UID"
        if identifiers.survivor_of(session, order.patient) is not identifiers.survivor_of(session, patient):
            raise orders.OrderRefused(f"its {which} belongs to order {order.id}, which is another patient's")
        if which == "accession number" and study_uid and order.study_uid != study_uid and is_legacy(order):
            raise orders.OrderRefused(
                f"its accession number belongs to order {order.id} of this patient, which is of another study"
            )
    return found[0] if found else None


def _order_of(session: Session, patient: Patient | None, report: PastReport) -> Order | None:
    """The order that the report is of: by its own numbers, and of its patient where that is known."""
    keys = []
    if report.study_uid:
        keys.append(Order.study_uid == report.study_uid)
    if report.accession_number:
        keys.append(Order.accession_number == report.accession_number)
    for key in keys:
        order = session.scalars(select(Order).where(key)).first()
        if order is None:
            continue
        if patient is None or identifiers.survivor_of(session, order.patient) is patient:
            return order
    return None


def _link_images(session: Session, order: Order, *, has_own_uid: bool, now: datetime, writer: str) -> None:
    """Images that came before their exam are its own from now on."""
    keys = [Study.study_uid == order.study_uid, Study.accession_number == order.accession_number]
    found = session.scalars(select(Study).where(Study.order_id.is_(None), or_(*keys), Study.instances > 0)).all()
    mine = [one for one in found if identifiers.is_called(session, order.patient, one.patient_id)]
    if has_own_uid:  # an accession number that another study bears, too, doesn't make that study ours
        mine = [one for one in mine if one.study_uid == order.study_uid]
    elif len({one.study_uid for one in mine}) > 1:
        return  # which of them is meant, nobody can know
    for study in mine:
        study.order_id = order.id
        taken = session.scalars(select(Order.id).where(Order.study_uid == study.study_uid)).first()
        if not has_own_uid and taken is None:
            order.study_uid = study.study_uid
        session.flush()
        audit.append(
            session, writer, "exam-changed", now, study_uid=study.study_uid, order=order.id,
            accession_number=order.accession_number, changed=["linked"],
        )  # fmt: skip
