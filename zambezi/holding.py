"""The hold's rows: why each object lies there, what becomes of it, and who decided (DESIGN rule 4).

The bytes are in the hold's folder (zambezi.hold), on disk, before a row says so. An object leaves the hold in one of
three ways: it is released into the archive, two persons discard it, or the retention of a safe copy ends. Then its
row stays, and its file goes once no other row needs it.

States: comparing -> same or waiting; from waiting or kept: releasing -> released, or discard-asked -> discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import audit, clock, deletions, exceptions
from zambezi.database.tables import Correction, Held

#: The exceptions' room of all that lies in the hold; the reference is the row's id.
ROOM = "hold"
#: What was released stays in the hold for so long: the way back, should the release have been a mistake.
KEEP_RELEASED = timedelta(days=30)
#: States in which nothing more becomes of an object; the same bytes coming again begin anew.
_OVER = ("same", "released", "discarded")
#: Why an object lies in the hold as a safe copy, which nobody must decide about.
_SAFE_COPIES = ("corrected", "deleted")
#: The label of the page that an exception leads to; in the catalogue of the hold's pages.
OPEN = "Open in the hold"
_SUGGESTIONS = {
    "conflict": "Compare both sides, then let the newcomer take the other's place, or discard it.",
    "no-identity": "Find out which device sent it and have it put right there; export the file if it is needed.",
    "identity": "Compare it with the order, release it into the archive or discard it; have the device put right.",
    "unreadable": "Find out which device sent it; export the file if it is needed, or discard it.",
    "quarantine": "Look at it, then release it into the archive or discard it.",
}


class HoldRefused(ValueError):
    """This can't be done with what is held; the text says why and what can be done."""


def hold(
    session: Session, *, sha256: str, size: int, why: str, reason: str, reference: str, now: datetime, writer: str,
    state: str = "waiting", sop_uid: str | None = None, series_uid: str | None = None, study_uid: str | None = None,
    patient_id: str = "", orthanc_id: str | None = None, other_sha256: str | None = None, sender: str = "",
    keep_until: datetime | None = None,
) -> Held:  # fmt: skip
    """The row of bytes that are in the hold already; once for each (sha256, why, reference), however often it comes.

    `reason` is in words and names no patient. `state`: comparing (a conflict, to be looked at closer), waiting (for
    a person) or kept (a safe copy, until `keep_until`). Bytes that came before raise `times`; what was over begins
    anew.
    """
    at = clock.text(now)
    until = clock.text(keep_until) if keep_until else None
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Held).values(
        sha256=sha256, size=size, why=why, reason=reason, reference=reference[:200], state=state, sop_uid=sop_uid,
        series_uid=series_uid, study_uid=study_uid, patient_id=patient_id[:64], orthanc_id=orthanc_id,
        other_sha256=other_sha256, sender=sender[:200], held_at=at, keep_until=until, next_at=at,
        times=1, differs=[], is_intact=True, attempts=0, fence=0,
    )  # fmt: skip
    again = {"times": Held.times + 1}
    returned = statement.on_conflict_do_update(index_elements=["sha256", "why", "reference"], set_=again)
    found = session.execute(returned.returning(Held.id)).scalar_one()
    held = session.get_one(Held, found, populate_existing=True)
    if held.times > 1 and held.state in _OVER:
        held.state, held.reason, held.keep_until, held.next_at, held.attempts = state, reason, until, at, 0
        held.differs, held.is_intact = [], True
        held.asked_by = held.asked_at = held.decided_by = held.decided_at = held.decision = held.correction_id = None
    elif held.times > 1:
        audit.append(session, writer, "held", now, **_facts(held), times=held.times)
        return held
    session.flush()
    audit.append(
        session, writer, "held", now, **_facts(held), size=size, why=why, reason=reason, reference=held.reference,
        orthanc_id=orthanc_id, other_sha256=other_sha256, sender=sender, times=held.times,
    )  # fmt: skip
    if held.state == "waiting":
        put_before_a_person(session, held, now)
    return held


def put_before_a_person(session: Session, held: Held, now: datetime, said: str = "") -> None:
    """The exception item of a row that waits; `said` replaces the row's own reason."""
    exceptions.wait(
        session, ROOM, str(held.id), what=said or held.reason, suggestion=_SUGGESTIONS.get(held.why, ""), now=now,
        kind=held.why, study_uid=held.study_uid, actions=[{"label": OPEN, "href": f"/hold/{held.id}"}],
    )  # fmt: skip


def compared(
    session: Session, held: Held, state: str, reason: str, differs: Sequence[str], now: datetime, writer: str
) -> None:
    """What the comparison with the archive's copy showed: `same` (its file may go) or `waiting` (for a person)."""
    held.state, held.reason, held.differs = state, reason, list(differs)
    if state == "same":
        held.keep_until = clock.text(now)
        _settle(session, held, "zambezi", reason, now)
    else:
        put_before_a_person(session, held, now)
    _changed(session, held, now, writer, reason=reason)


def ask_release(session: Session, held: Held, who: str, reason: str, now: datetime, writer: str) -> None:
    """Let the object go into the archive; the custody worker carries it out. HoldRefused where it can't be."""
    _locked(session, held)
    _may_be_decided(held, "released")
    if not held.sop_uid or not held.study_uid or not held.series_uid:
        raise HoldRefused(
            "it has no Study, Series or SOP Instance UID, so the archive has no place for it; export it "
            f"(zambezi hold export {held.id} FILE), have it put right, and send it again"
        )
    _begin_release(held, who, reason, now)
    _changed(session, held, now, writer, who=who, reason=reason)


def ask_replace(
    session: Session, held: Held, correct: Callable[[], Correction], who: str, reason: str, now: datetime, writer: str
) -> None:
    """Let the newcomer take the place of what is archived: `correct` asks for the correction of kind replace, which
    does it and can be undone (zambezi.corrections). HoldRefused where it can't be."""
    _locked(session, held)
    _may_be_decided(held, "released")
    if held.why != "conflict" or not held.sop_uid:
        raise HoldRefused("only what conflicts with an archived instance can take its place")
    if not reason.strip():
        raise HoldRefused("say why: the reason stands in the audit trail")
    correction = correct()
    session.flush()
    _begin_release(held, who, reason, now)
    held.correction_id = correction.id
    _changed(session, held, now, writer, who=who, reason=reason, correction=correction.id)


def released(session: Session, held: Held, said: str, now: datetime, writer: str) -> None:
    """The archive has it now: the file is kept for a while, in case it was a mistake."""
    held.state, held.keep_until, held.decision = "released", clock.text(now + KEEP_RELEASED), said
    _settle(session, held, held.decided_by or "zambezi", said, now)
    _changed(session, held, now, writer, reason=said)


def release_failed(session: Session, held: Held, said: str, now: datetime, writer: str) -> None:
    """It could not be released: it waits for a person again, with the reason."""
    held.state = _at_rest(held)
    held.decided_by = held.decided_at = held.correction_id = None
    held.decision = said
    put_before_a_person(session, held, now, f"It could not be released: {said}")
    _changed(session, held, now, writer, reason=said)


def ask_discard(session: Session, held: Held, who: str, reason: str, now: datetime, writer: str) -> None:
    """The first of two persons wants it discarded, and says why."""
    _locked(session, held)
    _may_be_decided(held, "discarded")
    if not reason.strip():
        raise HoldRefused("say why: the reason stands in the audit trail")
    _not_under_legal_hold(session, held)
    held.state, held.asked_by, held.asked_at, held.decision = "discard-asked", who, clock.text(now), reason.strip()
    exceptions.wait(
        session, ROOM, str(held.id), what=f"{who} asks to discard a held object: {held.decision}",
        suggestion="Another person confirms that it is discarded, or withdraws it.", now=now, kind="discard-asked",
        study_uid=held.study_uid, actions=[{"label": OPEN, "href": f"/hold/{held.id}"}],
    )  # fmt: skip
    _changed(session, held, now, writer, who=who, reason=held.decision)


def confirm_discard(session: Session, held: Held, who: str, now: datetime, writer: str) -> None:
    """The second person agrees: the object is discarded, and its file goes once nothing else needs it."""
    _locked(session, held)
    if held.state != "discard-asked":
        raise HoldRefused("nobody has asked to discard it; first one person asks, then another confirms")
    if deletions.person(who) == deletions.person(held.asked_by or ""):
        raise HoldRefused("you asked for it yourself: another person must confirm")
    _not_under_legal_hold(session, held)
    held.state, held.decided_by, held.decided_at, held.keep_until = "discarded", who, clock.text(now), None
    _settle(session, held, who, f"discarded: {held.decision}", now)
    _changed(session, held, now, writer, who=who, reason=held.decision, asked_by=held.asked_by)


def withdraw_discard(session: Session, held: Held, who: str, now: datetime, writer: str) -> None:
    """It is not discarded after all, whoever asked for it; it is as it was before."""
    _locked(session, held)
    if held.state != "discard-asked":
        raise HoldRefused("nobody has asked to discard it")
    held.state = _at_rest(held)
    held.asked_by = held.asked_at = held.decision = None
    if held.state == "waiting":
        put_before_a_person(session, held, now)
    else:
        exceptions.decide(session, ROOM, str(held.id), who=who, decision="not discarded", now=now)
    _changed(session, held, now, writer, who=who, reason="withdrawn")


def checked(session: Session, held: Held, fault: str, now: datetime, writer: str) -> None:
    """What the look at its file showed: `fault` is empty where all is well."""
    was, held.is_intact, held.checked_at = held.is_intact, not fault, clock.text(now)
    reference = f"{held.id} damaged"
    if fault and was:
        what = f"The file of held object {held.id} is damaged: {fault}"
        exceptions.wait(
            session, ROOM, reference, what=what, now=now, kind="damaged", study_uid=held.study_uid,
            suggestion="Look at the disk, and bring the file back from the last backup.",
            actions=[{"label": OPEN, "href": f"/hold/{held.id}"}],
        )  # fmt: skip
        audit.append(session, writer, "incident", now, **_facts(held), reason=what)
    elif not fault and not was:
        exceptions.decide(session, ROOM, reference, who="zambezi", decision="the file is whole again", now=now)
        _changed(session, held, now, writer, reason="the file is whole again")


def due_for_removal(session: Session, now: datetime, keep: timedelta) -> list[Held]:
    """Safe copies, released and equal ones whose time is over; not what a legal hold protects.

    A safe copy without a term of its own is kept for `keep`.
    """
    own_term = and_(Held.state.in_(("kept", "released", "same")), Held.keep_until <= clock.text(now))
    no_term = and_(Held.state == "kept", Held.keep_until.is_(None), Held.held_at <= clock.text(now - keep))
    query = select(Held).where(or_(own_term, no_term)).order_by(Held.id)
    return [held for held in session.scalars(query.with_for_update()) if not forbidden(session, held)]


def let_go(session: Session, held: Held, now: datetime, writer: str) -> None:
    """The retention is over: nothing of this row needs the file any more."""
    _locked(session, held)
    held.keep_until = None
    if held.state == "kept":
        held.state, held.decided_by, held.decided_at = "discarded", "zambezi", clock.text(now)
        held.decision = "the time for which the copy was kept is over"
    _changed(session, held, now, writer, reason="the time for which the file was kept is over")


def needs_file() -> ColumnElement[bool]:
    """Which rows need their file."""
    return or_(
        Held.state.in_(("comparing", "waiting", "kept", "releasing", "discard-asked")),
        and_(Held.state.in_(("released", "same")), Held.keep_until.is_not(None)),
    )


def is_needed(session: Session, sha256: str) -> bool:
    """Whether any row needs the file: many may share one."""
    query = select(Held.id).where(Held.sha256 == sha256, needs_file()).limit(1)
    return session.scalars(query).first() is not None


def forbidden(session: Session, held: Held) -> str:
    """Empty, or which legal hold forbids that it goes: of its study or of its patient."""
    return deletions.forbidden(session, held.study_uid, held.patient_id)


def _not_under_legal_hold(session: Session, held: Held) -> None:
    standing = forbidden(session, held)
    if standing:
        raise HoldRefused(f"it may not be discarded: {standing}")


def _locked(session: Session, held: Held) -> None:
    session.flush()
    session.refresh(held, with_for_update=True)


def _may_be_decided(held: Held, what: str) -> None:
    if held.state in ("waiting", "kept"):
        if not held.is_intact:
            raise HoldRefused("its file is damaged or missing; bring it back from a backup first")
        return
    why = {
        "comparing": "it is just being compared with the archive's copy; wait a minute",
        "releasing": "it is on its way into the archive",
        "discard-asked": f"{held.asked_by} asked to discard it; confirm or withdraw that first",
    }.get(held.state, f"it is {held.state} already")
    raise HoldRefused(f"it can't be {what} now: {why}")


def _begin_release(held: Held, who: str, reason: str, now: datetime) -> None:
    held.state, held.next_at, held.attempts = "releasing", clock.text(now), 0
    held.decided_by, held.decided_at, held.decision = who, clock.text(now), reason.strip()


def _at_rest(held: Held) -> str:
    return "kept" if held.why in _SAFE_COPIES else "waiting"


def _settle(session: Session, held: Held, who: str, decision: str, now: datetime) -> None:
    exceptions.decide(session, ROOM, str(held.id), who=who, decision=decision, now=now)


def _facts(held: Held) -> dict[str, object]:
    return {"held": held.id, "sha256": held.sha256, "study_uid": held.study_uid, "sop_uid": held.sop_uid}


def _changed(session: Session, held: Held, now: datetime, writer: str, **facts: object) -> None:
    session.flush()
    audit.append(session, writer, "hold-changed", now, **_facts(held), state=held.state, **facts)
