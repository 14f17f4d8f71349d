"""What a person decides of studies that wait for one: by name and reason, one by one or by rule, and audited.

retry        try again, with all attempts anew; what is verified is not moved again
waive        leave it as it is
keep-ours    the archive's copy is right: leave it as it is (divergent, conflict, vanished)
keep-source  the source's copy is right: the deletion of ours is asked for by its one path (zambezi.deletions), which
             another person confirms; once it is done, `retry` brings the source's
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from migration import lanes, ledger
from zambezi import audit, clock, deletions, exceptions
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy, Study

Decision = Literal["retry", "waive", "keep-ours", "keep-source"]

_BOTH_SIDES = ("divergent", "conflict")
#: Which decision a state allows; the first is what we would do.
ALLOWED: dict[str, tuple[Decision, ...]] = {
    "parked": ("retry", "waive"),
    "incomplete": ("retry", "waive"),
    "vanished": ("retry", "keep-ours", "waive"),
    "divergent": ("retry", "keep-source", "keep-ours", "waive"),
    "conflict": ("keep-source", "keep-ours", "retry", "waive"),
    "retrying": ("retry",),
    "waived": ("retry",),
    "verified": ("retry",),  # moves nothing; what the plan wants beside the images by now is brought
}
#: Decided in one transaction at most: other writers get in between.
BATCH = 200
LONGEST_REASON = 1000


class Refused(ValueError):
    """It can't be decided so; the text says why, to a person."""


@dataclass(frozen=True)
class Wanted:
    """Which studies: in a state, whose reason holds a text, or by their UIDs; what is empty doesn't narrow."""

    state: str = ""
    text: str = ""
    study_uids: tuple[str, ...] = ()

    def conditions(self, project_id: int) -> list[ColumnElement[bool]]:
        """The same for a query."""
        study = MigrationStudy
        states = (self.state,) if self.state else ledger.FOR_A_PERSON
        found: list[ColumnElement[bool]] = [study.project_id == project_id]
        if self.study_uids:
            found.append(study.study_uid.in_(self.study_uids))
        if self.state or not self.study_uids:
            found.append(study.state.in_(states))
        if self.text:
            found.append(study.reason.icontains(self.text, autoescape=True))
        return found


def waiting(session: Session, project_id: int, wanted: Wanted, limit: int, after: int = 0) -> list[MigrationStudy]:
    """The studies that a person must look at, in the order of their ids."""
    query = select(MigrationStudy).where(*wanted.conditions(project_id), MigrationStudy.id > after)
    return list(session.scalars(query.order_by(MigrationStudy.id).limit(limit)))


def decide(
    session: Session, project: MigrationProject, study: MigrationStudy, decision: Decision, because: str, who: str,
    now: datetime,
) -> str:  # fmt: skip
    """Carry out what a person decided; in words, what becomes of the study. Refused where it may not be."""
    because = because.strip()
    allowed = ALLOWED.get(study.state, ())
    if decision not in allowed:
        raise Refused(
            f"study {study.study_uid} is {study.state}: found {decision!r}, allowed: {', '.join(allowed) or 'nothing'}"
        )
    if decision != "retry" and not because:
        raise Refused(f"{decision} needs a reason, which stands in the audit trail and on the certificate")
    if len(because) > LONGEST_REASON:
        raise Refused(f"the reason has {len(because)} characters; at most {LONGEST_REASON}")
    match decision:
        case "retry":
            _set(study, "ready", f"{who}: try again{f': {because}' if because else ''}", now)
            study.attempts = 0
        case "waive":
            _set(study, "waived", f"{who}: {because} (before: {study.reason})", now)
        case "keep-ours":
            _set(study, "waived", f"{who} keeps what the archive has: {because} (before: {study.reason})", now)
        case "keep-source":
            asked = _ask_deletions(session, study, because, who, now)
            study.reason = (
                f"{who} wants the source's: {because}; deletions {', '.join(map(str, asked))} wait for another person, "
                f"then retry (before: {study.reason})"
            )[:2000]
    if decision != "keep-source":
        exceptions.decide(
            session, "migration", study.study_uid, who=who, decision=f"{decision}: {because}"[:200], now=now,
            writer=ledger.WRITER,
        )  # fmt: skip
    audit.append(
        session, ledger.WRITER, "migration-changed", now, project=project.name, study_uid=study.study_uid,
        state=study.state, reason=study.reason, who=who,
    )  # fmt: skip
    return study.reason


def decide_many(
    session: Session, project: MigrationProject, wanted: Wanted, decision: Decision, because: str, who: str,
    now: datetime, after: int = 0,
) -> tuple[int, int | None]:  # fmt: skip
    """The same for one batch of what is wanted: how many, and behind which id to go on (None: all were seen)."""
    rows = waiting(session, project.id, wanted, BATCH, after)
    allowed = [row for row in rows if decision in ALLOWED.get(row.state, ())]
    for row in allowed:
        decide(session, project, row, decision, because, who, now)
    return len(allowed), rows[-1].id if len(rows) == BATCH else None


def retry_all(session: Session, project: MigrationProject, who: str, now: datetime) -> int:
    """Everything that waits for a person is tried again; how many studies."""
    tried, behind = decide_many(session, project, Wanted(), "retry", "", who, now)
    while behind is not None:
        some, behind = decide_many(session, project, Wanted(), "retry", "", who, now, behind)
        tried += some
    return tried


def urgent(
    session: Session, project_id: int, wanted: str, because: str, who: str, now: datetime
) -> list[MigrationStudy]:  # fmt: skip
    """Somebody waits for this study, or for all of this patient's: they go before everything else; which they are.

    `wanted` is a Study Instance UID or the patient's identifier at the source. What is at rest stays there.
    """
    study, because = MigrationStudy, because.strip()
    if not because:
        raise Refused("urgent needs a reason, such as: patient is in the room")
    query = select(study).where(
        study.project_id == project_id, (study.study_uid == wanted) | (study.patient_id == wanted),
        study.state.in_(ledger.UNDER_WAY),
    )  # fmt: skip
    found = list(session.scalars(query.order_by(study.study_date.desc()).with_for_update()))
    project = session.get_one(MigrationProject, project_id)
    for row in found:
        row.priority = lanes.ranked(ledger.URGENT, row.priority)
        row.urgent_because = f"{who}: {because}"[:LONGEST_REASON]
        if row.state == "retrying":
            row.state, row.next_at = "ready", clock.text(now)
        audit.append(
            session, ledger.WRITER, "migration-changed", now, project=project.name, study_uid=row.study_uid,
            state=row.state, reason=f"urgent: {because}"[:LONGEST_REASON], who=who,
        )  # fmt: skip
    return found


def _set(study: MigrationStudy, state: str, reason: str, now: datetime) -> None:
    """A person's decision: a worker that holds the row finds another fence and lets go of it."""
    study.state, study.reason, study.next_at = state, reason[:2000], clock.text(now)
    study.fence, study.lease_owner, study.lease_until = study.fence + 1, None, None


def _ask_deletions(session: Session, study: MigrationStudy, because: str, who: str, now: datetime) -> list[int]:
    rows = session.scalars(
        select(MigrationInstance).where(
            MigrationInstance.study_id == study.id, MigrationInstance.verdict == "different"
        )
    ).all()
    held = session.scalars(select(Study.orthanc_id).where(Study.study_uid == study.study_uid)).all()
    if not rows or not held:
        raise Refused(f"the archive's journal knows no differing image of study {study.study_uid}: retry it first")
    if len(held) > 1:
        raise Refused(
            f"study {study.study_uid} is in the archive under {len(held)} patients: ask for the deletion of the wrong "
            "images by hand (zambezi delete), then retry"
        )
    asked, why = [], f"migration: the source's copy is right: {because}"[:1000]
    try:
        for row in rows:
            made = deletions.ask(
                session, study_uid=study.study_uid, study_orthanc_id=held[0], series_uid=row.series_uid,
                sop_uid=row.sop_uid, code="other", reason=why, who=who, now=now, writer=ledger.WRITER,
            )  # fmt: skip
            asked.append(made.id)
    except deletions.Refused as refused:
        raise Refused(str(refused)) from refused
    return asked
