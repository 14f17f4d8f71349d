"""Deletion by its one path (DESIGN rule 3): one person asks, another confirms, a time is waited, custody deletes.

`refusal_of_confirming` and `refusal_of_beginning` are the decisions, pure; the rest writes what was decided, with its
audit entry, in the caller's transaction. A legal hold goes above everything: while one stands, nothing is asked for or
confirmed, and what was confirmed before must be confirmed anew, with its whole wait, once the hold is lifted. That is
why one person may lift a hold: nothing is deleted by it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.database.tables import Deletion, DeletionItem, Delivery, LegalHold, Order, Patient, Series, Study

#: Why images are rejected: our word -> (DCM code, its meaning), as IHE IOCM names them (PS3.16 CID 7011), or our own.
CODES: dict[str, tuple[str, str]] = {
    "quality": ("113001", "Rejected for Quality Reasons"),
    "patient-safety": ("113037", "Rejected for Patient Safety Reasons"),
    "wrong-worklist": ("113038", "Incorrect Modality Worklist Entry"),
    "expired": ("113039", "Data Retention Policy Expired"),
    "duplicate": ("", "The same images are there twice"),
    "other": ("", "Another reason"),
}
#: Until here nothing has been deleted, and a word of a person ends it.
WITHDRAWN_FROM = ("asked", "confirmed", "due", "retrying", "parked")
#: Confirmed and not over: what a legal hold stops.
STOPPED_FROM = ("confirmed", "due", "retrying", "deleting", "parked")
#: Neither over nor given up: another one for the same images is not needed.
OPEN = ("asked", *STOPPED_FROM)
LONGEST_REASON = 1000
#: The archive's follower may write down a deletion so long after the last image went.
_NOTICED = timedelta(minutes=1)


class Refused(ValueError):
    """It may not be done. `why` is one word for programs and pages, the text says it to a person."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True)
class Listed:
    """An image that is asked for by itself: SHA-256 of its file, where that is known."""

    orthanc_id: str
    series_uid: str
    sop_uid: str
    sha256: str | None


# --- decisions ------------------------------------------------------------------------------------------


def person(who: str) -> str:
    """Whom a name stands for: the same person at the console and on the pages is one person."""
    return who.removeprefix("console:").strip().casefold()


def refusal_of_confirming(state: str, asked_by: str, confirmed_by: str | None, who: str, hold: str) -> Refused | None:
    """Why this person may not confirm now; None if they may. `hold`: the legal hold that stands, in words."""
    if state not in ("asked", "parked") or confirmed_by is not None:
        return Refused("state", f"it does not wait for a confirmation (state {state})")
    if person(who) == person(asked_by):
        return Refused("same-person", f"{asked_by} asked for it; another person must confirm it")
    if hold:
        return Refused("legal-hold", hold)
    return None


def refusal_of_beginning(
    state: str, asked_by: str, confirmed_by: str | None, not_before: str | None, now: datetime, hold: str
) -> Refused | None:
    """Why not one instance may be deleted now; None if deleting may begin."""
    if hold:
        return Refused("legal-hold", hold)
    if state != "due":
        return Refused("state", f"its copies are not in the hold yet (state {state})")
    if confirmed_by is None or person(confirmed_by) == person(asked_by):
        return Refused("same-person", "two people must want it")
    if not_before is None or clock.text(now) < not_before:
        return Refused("too-early", f"it may begin at {not_before}")
    return None


# --- two people -----------------------------------------------------------------------------------------


def ask(
    session: Session, *, study_uid: str, study_orthanc_id: str, series_uid: str | None = None,
    sop_uid: str | None = None, code: str, reason: str, who: str, now: datetime, writer: str,
    listed: Collection[Listed] = (),
) -> Deletion:  # fmt: skip
    """Ask for the deletion of a study, one of its series, or one image of a series; another person must confirm it.

    `listed`: of the study these images alone, as long as they are still what they are now; else custody lists what is
    there when the other person has confirmed.
    Refused: unknown-study, unknown-series, code, reason, legal-hold, asked-already.
    """
    reason = reason.strip()
    if code not in CODES:
        raise Refused("code", f"code: found {code!r}, allowed: {', '.join(CODES)}")
    if not reason or len(reason) > LONGEST_REASON:
        raise Refused("reason", f"reason: 1 to {LONGEST_REASON} characters, found {len(reason)}")
    if session.get(Study, (study_uid, study_orthanc_id)) is None:
        raise Refused("unknown-study", f"the archive has no study {study_uid} ({study_orthanc_id})")
    if sop_uid and not series_uid:
        raise Refused("unknown-series", "an image is named together with its series")
    if (
        series_uid
        and not session.scalars(
            select(Series).where(Series.series_uid == series_uid, Series.study_uid == study_uid)
        ).first()
    ):
        raise Refused("unknown-series", f"study {study_uid} has no series {series_uid}")
    hold = forbidden(session, study_uid, "")
    if hold:
        raise Refused("legal-hold", hold)
    for other in of_study(session, study_uid):
        if other.state in OPEN and other.study_orthanc_id == study_orthanc_id and _overlap(other, series_uid, sop_uid):
            raise Refused("asked-already", f"deletion {other.id} is about the same images and is not over")
    at = clock.text(now)
    deletion = Deletion(
        study_uid=study_uid, study_orthanc_id=study_orthanc_id, series_uid=series_uid, sop_uid=sop_uid, code=code,
        reason=reason, state="asked", asked_by=who, asked_at=at, next_at=at, updated_at=at,
    )  # fmt: skip
    session.add(deletion)
    session.flush()
    session.add_all(
        DeletionItem(
            deletion_id=deletion.id, orthanc_id=one.orthanc_id, series_uid=one.series_uid, sop_uid=one.sop_uid,
            sha256=one.sha256, state="planned",
        )
        for one in listed
    )  # fmt: skip
    note(
        session, deletion, writer, now, who=who, code=code, series_uid=series_uid, sop_uid=sop_uid, reason=reason,
        count=len(listed) or None,
    )  # fmt: skip
    return deletion


def confirm(session: Session, deletion: Deletion, who: str, now: datetime, writer: str, waiting: timedelta) -> Deletion:
    """Another person than the asker wants it, too: it is carried out when `waiting` is over. Refused otherwise."""
    deletion = locked(session, deletion.id)
    refusal = refusal_of_confirming(
        deletion.state, deletion.asked_by, deletion.confirmed_by, who, hold_on(session, deletion)
    )
    if refusal:
        raise refusal
    not_before = clock.text(now + waiting)
    deletion.confirmed_by, deletion.confirmed_at, deletion.not_before = who, clock.text(now), not_before
    _set(deletion, "confirmed", now, next_at=not_before, outcome="", attempts=0)
    exceptions.decide(session, "deletion", reference(deletion), who=who, decision="confirmed", now=now)
    note(session, deletion, writer, now, who=who, not_before=not_before)
    return deletion


def withdraw(session: Session, deletion: Deletion, who: str, now: datetime, writer: str, reason: str = "") -> Deletion:
    """Nothing is deleted: possible until the first image is. Refused: state."""
    deletion = locked(session, deletion.id)
    if deletion.state not in WITHDRAWN_FROM or items(session, deletion, ("deleted", "gone")):
        raise Refused("state", f"it can't be withdrawn any more (state {deletion.state}); what is gone can be restored")
    _set(deletion, "withdrawn", now)
    exceptions.decide(session, "deletion", reference(deletion), who=who, decision="withdrawn", now=now)
    note(session, deletion, writer, now, who=who, reason=reason.strip()[:LONGEST_REASON])
    return deletion


def again(session: Session, deletion: Deletion, who: str, now: datetime, writer: str) -> Deletion:
    """Try a stopped one again, where what was in the way is put right. Refused: state, legal-hold, unconfirmed."""
    deletion = locked(session, deletion.id)
    hold = hold_on(session, deletion)
    if deletion.state not in ("parked", "retrying"):
        raise Refused("state", f"it has not stopped (state {deletion.state})")
    if hold:
        raise Refused("legal-hold", hold)
    if deletion.confirmed_by is None:
        raise Refused("unconfirmed", "a legal hold stopped it: another person than the asker must confirm it anew")
    _set(deletion, "retrying", now, next_at=clock.text(now), attempts=0)
    exceptions.decide(session, "deletion", reference(deletion), who=who, decision="try again", now=now)
    note(session, deletion, writer, now, who=who)
    return deletion


def restore(session: Session, deletion: Deletion, who: str, reason: str, now: datetime, writer: str) -> Deletion:
    """Put every held copy back into the archive; custody does it at once. Refused: state, reason."""
    deletion = locked(session, deletion.id)
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON:
        raise Refused("reason", f"reason: 1 to {LONGEST_REASON} characters, found {len(reason)}")
    begun = deletion.state == "parked" and items(session, deletion, ("deleted", "gone"))
    if deletion.state != "done" and not begun:
        raise Refused("state", f"there is nothing to restore (state {deletion.state})")
    deletion.restored_by = who
    _set(deletion, "restoring", now, next_at=clock.text(now), lease_until=clock.text(now), attempts=0)
    exceptions.decide(session, "deletion", reference(deletion), who=who, decision="restore", now=now)
    note(session, deletion, writer, now, who=who, reason=reason)
    return deletion


# --- legal holds ----------------------------------------------------------------------------------------


def forbidden(session: Session, study_uid: str | None, patient_id: str) -> str:
    """Why nothing of this study, or of this patient, may be deleted or discarded: the legal hold in words; else "".

    The patients are the one that is named, and those that the archive and the study's order name. An identifier that
    was merged into another one stands for that one, too.
    """
    standing = standing_holds(session, study_uid, {patient_id})
    if not standing:
        return ""
    first = standing[0]
    about = "this study" if first.study_uid else "this patient"
    return f"legal hold {first.id}, set by {first.set_by} on {first.set_at[:10]}, forbids to delete anything of {about}"


def standing_holds(session: Session, study_uid: str | None, patient_ids: Collection[str] = ()) -> Sequence[LegalHold]:
    """The legal holds that stand on a study or on its patient, the oldest first."""
    known = {one for one in patient_ids if one} | _patients_of(session, study_uid)
    about: list[ColumnElement[bool]] = [LegalHold.patient_id.in_(_family(session, known))] if known else []
    if study_uid:
        about.append(LegalHold.study_uid == study_uid)
    if not about:
        return ()
    query = select(LegalHold).where(LegalHold.lifted_at.is_(None), or_(*about)).order_by(LegalHold.id)
    return session.scalars(query).all()


def hold_on(session: Session, deletion: Deletion, patient_id: str = "") -> str:
    """The legal hold that stands on a deletion's images, in words; "" where none does."""
    return forbidden(session, deletion.study_uid, patient_id)


def set_legal_hold(
    session: Session, *, study_uid: str | None = None, patient_id: str | None = None, reason: str, who: str,
    now: datetime, writer: str,
) -> LegalHold:  # fmt: skip
    """Nothing of this study, or of this patient, is deleted from now on; what was confirmed is stopped.

    One image whose DELETE is on its way at this moment may still go; its copy is in the hold. Refused: about, reason.
    """
    study_uid, patient_id, reason = (study_uid or "").strip(), (patient_id or "").strip(), reason.strip()
    if bool(study_uid) == bool(patient_id) or len(study_uid) > 64 or len(patient_id) > 64:
        raise Refused("about", "a legal hold is on one study or on one patient: name one of the two")
    if not reason or len(reason) > LONGEST_REASON:
        raise Refused("reason", f"reason: 1 to {LONGEST_REASON} characters, found {len(reason)}")
    hold = LegalHold(
        study_uid=study_uid or None, patient_id=patient_id or None, reason=reason, set_by=who, set_at=clock.text(now)
    )
    session.add(hold)
    session.flush()
    _note_hold(session, hold, "set", who, reason, now, writer)
    query = select(Deletion).where(Deletion.state.in_(STOPPED_FROM)).order_by(Deletion.id).with_for_update()
    for deletion in session.scalars(query.execution_options(populate_existing=True)).all():
        words = hold_on(session, deletion)
        if words:
            stop(session, deletion, words, now, writer)
    return hold


def lift_legal_hold(session: Session, hold: LegalHold, reason: str, who: str, now: datetime, writer: str) -> LegalHold:
    """It stands no longer. By one person: what it stopped must be confirmed anew, by two, with the whole wait.

    Refused: lifted, reason.
    """
    hold = session.get_one(LegalHold, hold.id, with_for_update=True, populate_existing=True)
    reason = reason.strip()
    if hold.lifted_at is not None:
        raise Refused("lifted", f"legal hold {hold.id} was lifted already")
    if not reason or len(reason) > LONGEST_REASON:
        raise Refused("reason", f"reason: 1 to {LONGEST_REASON} characters, found {len(reason)}")
    hold.lifted_at, hold.lifted_by, hold.lift_reason = clock.text(now), who, reason
    _note_hold(session, hold, "lifted", who, reason, now, writer)
    return hold


def stop(session: Session, deletion: Deletion, why: str, now: datetime, writer: str) -> None:
    """A legal hold stops it: who wants it must confirm it anew. Whoever works on it is fenced off.

    Before the first image was deleted it is asked for again; after that it waits for a person: restore, or confirm.
    """
    begun = deletion.state == "deleting" or bool(items(session, deletion, ("deleted", "gone")))
    deletion.confirmed_by = deletion.confirmed_at = deletion.not_before = None
    _set(deletion, "parked" if begun else "asked", now, outcome=f"stopped: {why}")
    exceptions.decide(session, "deletion", reference(deletion), who=writer, decision="a legal hold stopped it", now=now)
    if begun:
        gone = len(items(session, deletion, ("deleted", "gone")))
        exceptions.wait(
            session, "deletion", reference(deletion), now=now, kind="deletion-stopped", study_uid=deletion.study_uid,
            what=f"a legal hold stopped deletion {deletion.id} of study {deletion.study_uid} after {gone} images",
            suggestion="Restore what is gone; its copies are in the hold.", actions=actions(deletion),
        )  # fmt: skip
    note(session, deletion, writer, now, reason=why)


# --- rows -----------------------------------------------------------------------------------------------


def locked(session: Session, deletion_id: int) -> Deletion:
    """The deletion as it is now, until this transaction ends nobody else's to change."""
    return session.get_one(Deletion, deletion_id, with_for_update=True, populate_existing=True)


def of_study(session: Session, study_uid: str) -> Sequence[Deletion]:
    """Every deletion that was ever asked for in this study, the newest first."""
    return session.scalars(select(Deletion).where(Deletion.study_uid == study_uid).order_by(Deletion.id.desc())).all()


def items(session: Session, deletion: Deletion, states: Collection[str] = ()) -> Sequence[DeletionItem]:
    """The listed instances, all or those in these states."""
    query = select(DeletionItem).where(DeletionItem.deletion_id == deletion.id)
    if states:
        query = query.where(DeletionItem.state.in_(states))
    return session.scalars(query.order_by(DeletionItem.series_uid, DeletionItem.orthanc_id)).all()


def gone_counts(session: Session, numbers: Collection[int]) -> dict[int, int]:
    """How many images each of these deletions has removed."""
    rows = session.execute(
        select(DeletionItem.deletion_id, func.count())
        .where(DeletionItem.deletion_id.in_(numbers), DeletionItem.state.in_(("deleted", "gone", "restored")))
        .group_by(DeletionItem.deletion_id)
    )
    return {row[0]: row[1] for row in rows}


def receivers(session: Session, study_uid: str, orthanc_ids: Collection[str]) -> list[str]:
    """The destinations that were sent one of these instances, or were just being sent it: they may hold copies."""
    query = select(Delivery).where(Delivery.study_uid == study_uid, Delivery.kind == "dicom")
    wanted, found = set(orthanc_ids), set()
    for row in session.scalars(query):
        all_of_it = row.state in ("delivered", "sending")
        sent = {id for id, _, sop_uid in row.instances if all_of_it or sop_uid in row.acknowledged}
        if wanted & sent:
            found.add(row.destination)
    return sorted(found)


def ordered(session: Session, orthanc_ids: Collection[str], at: datetime) -> set[str]:
    """Which of these instances, of whose deletion the archive's journal told at this time, a deletion of ours removed.

    A listed row answers once: what is stored and deleted again later is nobody's. More than once only while its
    deletion lasts, for one image may have to be deleted twice (a power cut undid it).
    """
    lasts = or_(Deletion.state.in_(("due", "retrying", "deleting")), Deletion.done_at >= clock.text(at - _NOTICED))
    rows = session.scalars(
        select(DeletionItem)
        .join(Deletion, Deletion.id == DeletionItem.deletion_id)
        .where(
            DeletionItem.orthanc_id.in_(orthanc_ids),
            or_(
                DeletionItem.state == "deleted",
                (DeletionItem.state == "held") & (Deletion.state == "deleting"),
                (DeletionItem.state == "gone") & lasts,
            ),
        )
    ).all()
    for row in rows:
        row.state = "gone"
    session.flush()
    return {row.orthanc_id for row in rows}


def note(session: Session, deletion: Deletion, writer: str, now: datetime, /, **facts: Any) -> None:
    """The deletion's audit entry, with the state it has now."""
    told = {name: value for name, value in facts.items() if value not in (None, "")}
    audit.append(
        session, writer, "deletion-changed", now, deletion=deletion.id, study_uid=deletion.study_uid,
        **{"state": deletion.state, **told},
    )  # fmt: skip


def reference(deletion: Deletion) -> str:
    """What the deletion is called in exceptions, causes and the hold."""
    return f"deletion {deletion.id}"


def actions(deletion: Deletion) -> list[dict[str, str]]:
    """Where something can be done about it, for an exception item."""
    return [{"label": "Open the deletion", "href": f"/deletions/{deletion.id}"}]


def _set(deletion: Deletion, state: str, now: datetime, **values: Any) -> None:
    """A person's decision: a worker that holds the row finds another fence and lets go of it."""
    deletion.state, deletion.fence, deletion.updated_at = state, deletion.fence + 1, clock.text(now)
    deletion.lease_owner = deletion.lease_until = None
    for name, value in values.items():
        setattr(deletion, name, value)


def _overlap(other: Deletion, series_uid: str | None, sop_uid: str | None) -> bool:
    same_series = not other.series_uid or not series_uid or other.series_uid == series_uid
    return same_series and (not other.sop_uid or not sop_uid or other.sop_uid == sop_uid)


def _patients_of(session: Session, study_uid: str | None) -> set[str]:
    if not study_uid:
        return set()
    rows = session.execute(
        select(Study.patient_id, Patient.patient_id)
        .outerjoin(Order, Order.id == Study.order_id)
        .outerjoin(Patient, Patient.id == Order.patient_key)
        .where(Study.study_uid == study_uid)
    )
    return {one for row in rows for one in row if one}


def _family(session: Session, patient_ids: set[str]) -> set[str]:
    """The identifiers of the same patients: what was merged into them, and what they were merged into."""
    known, keys = set(patient_ids), set[int]()
    while True:
        rows = session.scalars(
            select(Patient).where(
                or_(Patient.patient_id.in_(known), Patient.id.in_(keys), Patient.merged_into.in_(keys))
            )
        ).all()
        found = {row.id for row in rows} | {row.merged_into for row in rows if row.merged_into is not None}
        known |= {row.patient_id for row in rows}
        if found == keys:
            return known
        keys = found


def _note_hold(
    session: Session, hold: LegalHold, change: str, who: str, reason: str, now: datetime, writer: str
) -> None:
    about = {"study_uid": hold.study_uid} if hold.study_uid else {"patient_id": hold.patient_id}
    audit.append(
        session, writer, "legal-hold-changed", now, legal_hold=hold.id, change=change, who=who, reason=reason, **about
    )
