"""Orders, reports and performed steps follow images that were corrected to another study or another patient.

The rows of studies come from the archive's journal; a correction knows more than the journal (which study became
which, whose order it is), and tells it here, once the archive holds the new images.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions, identifiers, legacy, orders, orthanc_ids
from zambezi.database.tables import Order, PerformedStep, Report, Series, Study

#: Tags that a correction may change -> column of Study, and its length.
STUDY_FACTS = {
    "00100020": ("patient_id", 64), "00100010": ("patient_name", 200), "00100030": ("birth_date", 8),
    "00100040": ("sex", 16), "00080050": ("accession_number", 64), "00080020": ("study_date", 8),
    "00080030": ("study_time", 16), "00081030": ("description", 200),
}  # fmt: skip


def relink(
    session: Session, *, old_study_uid: str, old_orthanc_id: str, new_study_uid: str, new_orthanc_id: str,
    patient_id: str, accession_number: str, order_id: int | None, now: datetime, writer: str,
    changes: Mapping[str, str | None] | None = None, whole: bool = True,
) -> Study:  # fmt: skip
    """What was linked to the old study is linked to the new one; doing it twice is doing it once. The new study's row.

    `order_id` None: the order that the study had, as long as it is this patient's, else the one whose numbers the
    images carry; the other way round where they went into another study. `changes` are the tags that were set (None:
    removed). `whole` is False where only a part of the old study went away: its reports and steps stay with the rest.
    """
    old = session.get(Study, (old_study_uid, old_orthanc_id))
    was_linked = session.get(Order, old.order_id) if old is not None and old.order_id is not None else None
    patient_before = old.patient_id if old is not None else patient_id
    is_same = (old_study_uid, old_orthanc_id) == (new_study_uid, new_orthanc_id)
    study = _row(session, old, new_study_uid, new_orthanc_id, now)
    if old is None and study.order_id is not None:
        was_linked = session.get(Order, study.order_id)  # this was done before: the row says what was found then
    facts = {**(changes or {}), "00100020": patient_id, "00080050": accession_number}
    for tag, value in facts.items():
        if tag in STUDY_FACTS:
            column, longest = STUDY_FACTS[tag]
            setattr(study, column, (value or "")[:longest])
    order = _order(session, study, was_linked, order_id, old_study_uid)
    study.order_id = order.id if order else None
    session.flush()
    if whole:
        is_shared = _is_shared(session, old_study_uid, old_orthanc_id, study)
        _move_reports(session, old_study_uid, is_shared, was_linked, study, order, now)
        _move_steps(session, old_study_uid, old_orthanc_id, is_shared, was_linked, study, order)
        if not is_same and old is not None:
            _forget(session, old)
        legacy.move_reports(session, old_study_uid, new_study_uid)
    if was_linked is not order:
        _follow(session, study, was_linked, order, whole, now, writer)
    if order is not None and identifiers.is_called(session, order.patient, patient_id):
        fits = "the images carry the order's patient now"
        exceptions.decide(session, "archive", f"study {new_study_uid}", who=writer, decision=fits, now=now)
    for one in {found.id: found for found in (was_linked, order) if found}.values():
        _report_status(session, one, now)
    if old is not None:
        audit.append(
            session, writer, "exam-changed", now, study_uid=new_study_uid, old_study_uid=old_study_uid,
            orthanc_id=new_orthanc_id, old_orthanc_id=old_orthanc_id, patient_id=patient_id,
            old_patient_id=patient_before, order=study.order_id, old_order=was_linked.id if was_linked else None,
            accession_number=accession_number, changed=["relinked"],
        )  # fmt: skip
    return study


def _row(session: Session, old: Study | None, study_uid: str, orthanc_id: str, now: datetime) -> Study:
    study = session.get(Study, (study_uid, orthanc_id))
    if study is not None:
        return study
    # The journal has not told of it yet. It will count the instances; what else it says goes before what we copy.
    at = clock.text(now)
    copied = ("patient_name", "birth_date", "sex", "study_date", "study_time", "description", "modalities", "sender")
    study = Study(
        study_uid=study_uid, orthanc_id=orthanc_id, cause="correction", instances=0,
        first_at=old.first_at if old else at, last_at=at, completed_at=old.completed_at if old else None,
        **{name: getattr(old, name) for name in copied if old is not None},
    )  # fmt: skip
    session.add(study)
    session.flush()
    return study


def _order(
    session: Session, study: Study, was_linked: Order | None, order_id: int | None, old_uid: str
) -> Order | None:
    if order_id is not None:
        return session.get(Order, order_id)
    there = session.get(Order, study.order_id) if study.order_id is not None else None
    by_uid = session.scalars(select(Order).where(Order.study_uid == study.study_uid)).first()
    before, behind = (None, was_linked) if study.study_uid != old_uid else (was_linked, None)
    for one in (before, there, by_uid):
        if one is not None and identifiers.is_called(session, one.patient, study.patient_id):
            return one
    by_number = None
    if study.accession_number:
        by_number = orders.find_by_accession(session, study.accession_number, study.patient_id)
    if by_number is None and behind and identifiers.is_called(session, behind.patient, study.patient_id):
        return behind
    return by_number


def _is_shared(session: Session, old_uid: str, old_orthanc_id: str, study: Study) -> bool:
    """Whether another patient's images carry the old Study UID, too: the order says then what is whose."""
    others = Study.orthanc_id.not_in((old_orthanc_id, study.orthanc_id))
    return bool(session.scalar(select(exists().where(Study.study_uid == old_uid, others, Study.instances > 0))))


def _move_reports(
    session: Session, old_uid: str, is_shared: bool, was_linked: Order | None, study: Study, order: Order | None,
    now: datetime,
) -> None:  # fmt: skip
    mine = [Report.study_uid == old_uid]
    if is_shared:
        mine.append(Report.order_id == (was_linked.id if was_linked else None))
    reports = session.scalars(select(Report).where(*mine)).all()
    if not reports:
        return
    is_another = was_linked is not order and not (was_linked and order and was_linked.patient_key == order.patient_key)
    taken = (
        old_uid != study.study_uid
        and session.scalars(select(Report.id).where(Report.study_uid == study.study_uid).limit(1)).first()
    )
    if taken:
        _wait(
            session, study, "two-reports", now,
            f"the study {old_uid} became {study.study_uid}, and both have reports",
            "The reports of the old study were left under it. Decide which report counts and write an addendum.",
        )  # fmt: skip
        return
    for report in reports:
        report.study_uid, report.order_id = study.study_uid, order.id if order else None
    session.flush()
    if is_another and any(report.state == "final" for report in reports):
        _wait(
            session, study, "signed-report", now,
            "a signed report went with its images to another patient or order; its PDF still names the first",
            "Write an addendum, so that a signed version names the right patient, and tell those who got the first.",
        )  # fmt: skip


def _move_steps(
    session: Session, old_uid: str, old_orthanc_id: str, is_shared: bool, was_linked: Order | None, study: Study,
    order: Order | None,
) -> None:  # fmt: skip
    mine = PerformedStep.study_uid == old_uid
    if is_shared:
        mine = and_(mine, PerformedStep.order_id == (was_linked.id if was_linked else None))
    if was_linked is not None:
        others = Study.orthanc_id.not_in((old_orthanc_id, study.orthanc_id))
        has_another = session.scalar(select(exists().where(Study.order_id == was_linked.id, others)))
        if not has_another:  # what a station reported under a UID of its own was of these images, too
            mine = or_(mine, PerformedStep.order_id == was_linked.id)
    session.execute(
        update(PerformedStep).where(mine).values(study_uid=study.study_uid, order_id=order.id if order else None)
    )


def _forget(session: Session, old: Study) -> None:
    """The old study is no more in the archive: its rows go, the journal's entries stay."""
    uids = session.scalars(select(Series.series_uid).where(Series.study_uid == old.study_uid)).all()
    ids = [orthanc_ids.series(old.patient_id, old.study_uid, uid) for uid in uids]
    session.execute(delete(Series).where(Series.study_uid == old.study_uid, Series.orthanc_id.in_(ids)))
    session.delete(old)
    session.flush()


def _follow(
    session: Session, study: Study, before: Order | None, after: Order | None, whole: bool, now: datetime, writer: str
) -> None:
    """The order that got the images has its exam done; the one that lost its last images is to be done still."""
    status = before.status if before is not None else ("completed" if study.completed_at else "in-progress")
    if before is not None and whole and not _has_a_study(session, before):
        reason = "its images were another exam's"
        is_open_again = orders.reopen(session, before, now=now, writer=writer, reason=reason)
        if not is_open_again and before.status in orders.OPEN and before.study_uid == study.study_uid:
            orders.renumber(session, before, now=now, writer=writer, reason=reason)
    if after is None:
        return
    # Images that come later belong to the same study; a number that the sender made is not ours to change.
    is_ours = after.status == "scheduled" and after.study_uid.startswith("2.25.")
    if is_ours and not _is_taken(session, study.study_uid):
        after.study_uid = study.study_uid
    if after.status in orders.OPEN and status in orders.TRANSITIONS[after.status] - {"scheduled", "cancelled"}:
        orders.set_status(session, after, status, now=now, writer=writer, reason="its images were corrected")


def _has_a_study(session: Session, order: Order) -> bool:
    return bool(session.scalar(select(exists().where(Study.order_id == order.id))))


def _is_taken(session: Session, study_uid: str) -> bool:
    return bool(session.scalar(select(exists().where(Order.study_uid == study_uid))))


def _report_status(session: Session, order: Order, now: datetime) -> None:
    written = or_(Report.state == "final", Report.edits > 0)
    states = session.scalars(select(Report.state).where(Report.order_id == order.id, written).distinct()).all()
    status = "final" if "final" in states else "draft" if states else "none"
    if status == "none" and legacy.is_legacy(order) and legacy.reports_of(session, None, order):
        status = "final"
    if order.report_status != status:
        order.report_status, order.updated_at = status, clock.text(now)
        session.flush()


def _wait(session: Session, study: Study, kind: str, now: datetime, what: str, suggestion: str) -> None:
    exceptions.wait(
        session, "correction", f"{kind}: study {study.study_uid}", now=now, kind=kind, study_uid=study.study_uid,
        what=what, suggestion=suggestion, actions=[{"label": "Study", "href": f"/studies/{study.study_uid}"}],
    )  # fmt: skip
