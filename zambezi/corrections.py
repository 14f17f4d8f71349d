"""Corrections of what the archive holds: asking for one, and what may become of it.

A correction is asked for here (state due); the custody worker (operations/custody/correcting.py) carries it out:

    due -> preparing -> switching -> done          preparing: nothing in the archive has changed yet
             |   retrying (waits, then again)      switching: from here only forward, whatever dies
             parked (a person must look: try it again or cancel it)

Corrections of the same instances are carried out one after the other: a later one waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from zambezi import audit, clock, correctable, exceptions, worklist
from zambezi.correctable import ValueRefused
from zambezi.database.tables import Correction, CorrectionItem, Held, Order, Patient

KINDS = ("edit", "reassign", "merge", "split", "move", "replace", "undo")
#: Somebody works on it, or will.
OPEN = ("due", "preparing", "switching", "retrying")
#: Nothing in the archive has changed yet.
CANCELLABLE = ("due", "preparing", "retrying", "parked")
#: The exceptions' room; the reference is the correction's id.
ROOM = "correction"

_KEYS = frozenset({"instances", "study", "studies", "series", "set", "order", "replace", "patients", "into"})
#: How each kind may name what it is about, and what it must have besides.
_SELECTIONS: dict[str, tuple[str, ...]] = {
    "edit": ("instances", "series", "study", "studies"),
    "reassign": ("study", "studies"),
    "merge": (),
    "split": ("study", "studies"),
    "move": ("instances", "series"),
    "replace": ("instances",),
    "undo": (),
}


class CorrectionRefused(ValueError):
    """This can't be asked for, or not be done with this correction; the text says what is allowed, a fault a line."""


def values_of(patient: Patient) -> dict[str, str | None]:
    """What the images of a patient carry (PS3.3 C.7.1.1), by tag."""
    return {
        correctable.PATIENT_NAME: worklist.person_name(patient.family_name, patient.given_name),
        correctable.PATIENT_ID: patient.patient_id,
        correctable.ISSUER: patient.issuer or None,
        "00100030": patient.birth_date or "",
        "00100040": patient.sex if patient.sex in ("M", "F", "O") else "",
    }


def ask(
    session: Session, kind: str, request: Mapping[str, Any], reason: str, asked_by: str, now: datetime, writer: str,
    undo_of: int | None = None,
) -> Correction:  # fmt: skip
    """Ask for a correction: its row (state due) and its audit entry, in the caller's transaction.

    `request`: what it is about, one of
        instances [orthanc_id, ...]; study, or studies a list: {"study_uid", "orthanc_id"};
        series {"series_uid", "orthanc_id"}, or a list of them;
        patients {"from", "into"} (ids): a merge takes all studies of `from`, or the `studies` that it names there;
        replace: id of what is held and takes its archived copy's place (instances: that copy, where it isn't clear);
    and what it becomes: set {tag: value, None removes}, order (id), patients {"into"}, and for a move
        set 0020000D and, for another series, 0020000E; into {"orthanc_id"} where two patients have that study.
    CorrectionRefused says every fault and what is allowed.
    """
    if not reason.strip():
        raise CorrectionRefused("say why: the reason stands in the audit trail")
    resolved = resolve(session, kind, request, undo_of)
    at = clock.text(now)
    row = Correction(
        kind=kind, state="due", request=resolved, reason=reason.strip(), asked_by=asked_by[:80], undo_of=undo_of,
        next_at=at, created_at=at, updated_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    _audit(session, row, now, writer, who=asked_by, reason=row.reason, undo_of=undo_of)
    return row


def resolve(session: Session, kind: str, request: Mapping[str, Any], undo_of: int | None = None) -> dict[str, Any]:
    """The request checked and completed: the values of a named patient or order are in `set`. CorrectionRefused."""
    if kind not in KINDS:
        raise CorrectionRefused(f"kind: found {kind!r}, allowed are {', '.join(KINDS)}")
    strange = sorted(set(request) - _KEYS)
    if strange:
        raise CorrectionRefused(f"found {', '.join(strange)}, allowed are {', '.join(sorted(_KEYS))}")
    resolved = {name: value for name, value in request.items() if value not in (None, [], {})}
    if kind == "undo":
        why = why_not_undone(session, undo_of)
        if why:
            raise CorrectionRefused(why)
        return {}
    if kind == "replace":
        _check_replace(session, resolved)
        return resolved
    _check_selection(kind, resolved)
    try:
        named = correctable.checked(resolved.get("set", {}), moving=kind == "move")
        derived = correctable.checked(_derived(session, kind, resolved), moving=False)
    except ValueRefused as refused:
        raise CorrectionRefused(str(refused)) from refused
    disputed = [
        tag for tag in (correctable.PATIENT_ID, correctable.ACCESSION_NUMBER) if tag in named and tag in derived
    ]
    for tag in disputed:
        if named[tag] != derived[tag]:
            keyword = correctable.ATTRIBUTES[tag].keyword
            raise CorrectionRefused(f"{keyword}: the named patient or order has {derived[tag]!r}, not {named[tag]!r}")
    resolved["set"] = {**derived, **named}
    _check_enough(kind, resolved)
    return resolved


def why_not_undone(session: Session, undo_of: int | None, by: int | None = None) -> str:
    """Empty, or why this correction can't be undone: it isn't done, or a later one changed the same instances.

    `by` is the correction that is about to undo it, where there is one already.
    """
    before = session.get(Correction, undo_of) if undo_of is not None else None
    if before is None:
        return f"there is no correction {undo_of} to undo"
    if before.state != "done":
        return f"correction {before.id} is {before.state}: only what is done can be undone" + (
            "; cancel it instead" if before.state in CANCELLABLE else ""
        )
    undoing = select(Correction.id).where(
        Correction.undo_of == before.id, Correction.state.in_(OPEN), Correction.id != (by or 0)
    )
    under_way = session.scalars(undoing).first()
    if under_way is not None:
        return f"correction {under_way} is undoing it already"
    items = items_of(session, before.id)
    if not items:
        return f"correction {before.id} changed nothing: there is nothing to undo"
    for item in items:
        touched = or_(
            CorrectionItem.old_orthanc_id == item.new_orthanc_id, CorrectionItem.new_orthanc_id == item.new_orthanc_id
        )
        later = session.execute(
            select(Correction.id, Correction.state, CorrectionItem.new_orthanc_id, CorrectionItem.new_sha256)
            .join(CorrectionItem, CorrectionItem.correction_id == Correction.id)
            .where(touched, Correction.id.not_in((before.id, by or 0)), Correction.state.in_(("done", *OPEN)))
            .where(or_(Correction.done_at.is_(None), Correction.done_at > (before.done_at or "")))
            .order_by(Correction.done_at.is_(None).desc(), Correction.done_at.desc(), Correction.id.desc())
            .limit(1)
        ).first()
        if later is None:
            continue
        if later.state in OPEN:
            return f"correction {later.id} of the same instances is under way; wait until it is done"
        if (later.new_orthanc_id, later.new_sha256) != (item.new_orthanc_id, item.new_sha256):
            return f"correction {later.id} changed the same instances later: undo that one first"
    return ""


def items_of(session: Session, correction_id: int) -> Sequence[CorrectionItem]:
    """The instances of a correction, in a fixed order."""
    query = select(CorrectionItem).where(CorrectionItem.correction_id == correction_id)
    return session.scalars(query.order_by(CorrectionItem.old_study_uid, CorrectionItem.old_orthanc_id)).all()


def in_the_way(session: Session, correction_id: int, orthanc_ids: Sequence[str], states: Sequence[str]) -> int | None:
    """Another correction in one of these states that is at these instances (what they are, or what they become)."""
    wanted = set(orthanc_ids)
    under_way = session.execute(
        select(Correction.id, CorrectionItem.old_orthanc_id, CorrectionItem.new_orthanc_id)
        .join(CorrectionItem, CorrectionItem.correction_id == Correction.id)
        .where(Correction.id != correction_id, Correction.state.in_(states))
        .order_by(Correction.id)
    )
    return next((row[0] for row in under_way if row[1] in wanted or row[2] in wanted), None)


def cancel(session: Session, correction_id: int, who: str, now: datetime, writer: str) -> None:
    """Don't carry it out; CorrectionRefused once the archive is being changed, or is."""
    row = _locked(session, correction_id)
    if row.state not in CANCELLABLE:
        allowed = f"it is {row.state}: only {', '.join(CANCELLABLE)} can be cancelled"
        raise CorrectionRefused(f"correction {row.id}: {allowed}" + ("; undo it" if row.state == "done" else ""))
    session.execute(delete(CorrectionItem).where(CorrectionItem.correction_id == row.id))
    _decide(session, row, "cancelled", who, now, writer)


def retry(session: Session, correction_id: int, who: str, now: datetime, writer: str) -> None:
    """Try a parked correction again, from the beginning; CorrectionRefused where it isn't parked."""
    row = _locked(session, correction_id)
    if row.state not in ("parked", "retrying"):
        raise CorrectionRefused(f"correction {row.id}: it is {row.state}: only what is parked can be tried again")
    row.attempts, row.next_at = 0, clock.text(now)
    _decide(session, row, "due", who, now, writer)


def _decide(session: Session, row: Correction, state: str, who: str, now: datetime, writer: str) -> None:
    # The fence takes it out of the hands of a worker that is preparing it: its next commit is refused.
    row.state, row.fence, row.updated_at = state, row.fence + 1, clock.text(now)
    row.lease_owner = row.lease_until = None
    session.flush()
    decision = "try again" if state == "due" else state
    exceptions.decide(session, ROOM, str(row.id), who=who, decision=decision, now=now)
    _audit(session, row, now, writer, who=who)


def _locked(session: Session, correction_id: int) -> Correction:
    row = session.scalars(select(Correction).where(Correction.id == correction_id).with_for_update()).first()
    if row is None:
        raise CorrectionRefused(f"there is no correction {correction_id}")
    return row


def _audit(session: Session, row: Correction, now: datetime, writer: str, **facts: Any) -> None:
    study = row.request.get("study") or {}
    about: dict[str, Any] = {"study_uid": study["study_uid"]} if study.get("study_uid") else {}
    about |= {name: value for name, value in facts.items() if value is not None}
    audit.append(session, writer, "correction-changed", now, correction=row.id, kind=row.kind, state=row.state, **about)


def _check_selection(kind: str, request: Mapping[str, Any]) -> None:
    allowed = _SELECTIONS[kind]
    found = [name for name in ("instances", "series", "study", "studies") if name in request]
    if kind == "merge":
        if found:
            raise CorrectionRefused(f"a merge takes all studies of one patient; found {', '.join(found)} besides")
        return
    if len(found) != 1 or found[0] not in allowed:
        raise CorrectionRefused(
            f"{kind}: name what it is about by one of {', '.join(allowed)}; found {', '.join(found) or 'none'}"
        )
    value = request[found[0]]
    try:
        named = value if found[0] == "instances" else [one["orthanc_id"] for one in listed(value)]
        if not all(isinstance(one, str) and len(one) == 44 for one in named):
            raise TypeError
    except (TypeError, KeyError):
        raise CorrectionRefused(f"{found[0]}: each must be named by the archive's id (44 characters)") from None


def listed(value: Any) -> list[Any]:
    """One or several, as a list: `study` names one, `studies` several."""
    return value if isinstance(value, list) else [value]


def _check_enough(kind: str, request: Mapping[str, Any]) -> None:
    changes = request["set"]
    if kind in ("reassign", "split", "merge") and correctable.PATIENT_ID not in changes:
        raise CorrectionRefused(f"{kind}: name the patient (patients.into), an order, or set PatientID")
    if kind == "move" and correctable.STUDY_UID not in changes:
        raise CorrectionRefused("move: set StudyInstanceUID to the study that the images belong to")
    if not changes:
        raise CorrectionRefused("nothing to change: `set` is empty")


def _derived(session: Session, kind: str, request: Mapping[str, Any]) -> dict[str, str | None]:
    patients = request.get("patients") or {}
    into = _patient(session, patients["into"]) if patients.get("into") is not None else None
    changes: dict[str, str | None] = {}
    if kind == "merge":
        if into is None or patients.get("from") is None:
            raise CorrectionRefused("merge: name patients.from and patients.into")
        if _patient(session, patients["from"]).id == into.id:
            raise CorrectionRefused("merge: a patient can't be merged into itself")
    if request.get("order") is not None:
        order = session.get(Order, request["order"])
        if order is None:
            raise CorrectionRefused(f"there is no order {request['order']}")
        if into is not None and order.patient_key != into.id:
            raise CorrectionRefused("the order is of another patient than patients.into")
        into = order.patient
        changes[correctable.ACCESSION_NUMBER] = order.accession_number
    if into is not None:
        changes.update(values_of(into))
    return changes


def _patient(session: Session, patient_id: Any) -> Patient:
    found = session.get(Patient, patient_id) if isinstance(patient_id, int) else None
    if found is None:
        raise CorrectionRefused(f"there is no patient with the number {patient_id}")
    return found


def _check_replace(session: Session, request: Mapping[str, Any]) -> None:
    held = session.get(Held, request["replace"]) if isinstance(request.get("replace"), int) else None
    if held is None:
        raise CorrectionRefused(f"replace: nothing with the number {request.get('replace')} is in the hold")
    if held.sop_uid is None or held.orthanc_id is None:
        raise CorrectionRefused(f"replace: what is held as {held.id} has no identity in the archive")
    if held.state == "discarded":
        raise CorrectionRefused(f"replace: what was held as {held.id} was discarded")
    if request.get("set"):
        raise CorrectionRefused("replace: the held object takes the place as it is; correct it afterwards")
