"""Passes after the inventory: what is new at a source that is still written to, again and again until cut-over.

A pass asks the source for all of its studies, as the inventory did, and counts only those that can have changed:
what it never named before, what it claims another number of images for than the ledger has, and, where it claims
nothing, what is younger than `RECENT`. `everything` counts all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration import inventory, ledger
from migration.source import Source
from zambezi import audit, clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationPass, MigrationProject, MigrationStudy

#: A study may get images late, for so long after its date.
RECENT = timedelta(days=90)
#: Of these the inventory's own way makes none ready again.
_REOPENED = tuple(state for state in ledger.AT_REST if state not in ("held", "skipped", "rolled-back"))


@dataclass(frozen=True)
class Known:
    """What the ledger has of a study: how many images it expects, and in which state it is."""

    expected: int
    state: str


def must_count(known: Known | None, facts: Mapping[str, str], today: date) -> bool:
    """Whether a study that the source names can have changed since it was counted."""
    if known is None:
        return True
    claimed = facts.get("NumberOfStudyRelatedInstances", "")
    if claimed.isdigit():
        return int(claimed) != known.expected
    written = facts.get("StudyDate", "")
    return not written[:8].isdigit() or written[:8] >= (today - RECENT).strftime("%Y%m%d")


def take(
    sessions: Sessions, source: Source, project_id: int, who: str, now: Callable[[], datetime],
    everything: bool = False, said: Callable[[int, int], None] = lambda done, of: None,
) -> MigrationPass:  # fmt: skip
    """One pass; what is new is ready to be moved. Raises as migration.source.Source does; a pass cut off counts none.

    `said` hears how many studies were looked at, of how many.
    """
    with sessions.begin() as session:
        number = session.scalar(
            select(func.max(MigrationPass.number)).where(MigrationPass.project_id == project_id)
        )  # fmt: skip
        this = MigrationPass(
            project_id=project_id, number=(number or 0) + 1, began_at=clock.text(now()), who=who[:80], studies=0,
            counted=0, new_studies=0, new_instances=0, doubts=0,
        )  # fmt: skip
        session.add(this)
        rows = session.execute(
            select(MigrationStudy.study_uid, MigrationStudy.expected, MigrationStudy.state).where(
                MigrationStudy.project_id == project_id
            )
        )
        known = {uid: Known(expected, state) for uid, expected, state in rows}
    found, coverage = source.find_studies(now().date())
    uids = sorted(found.uids)
    for n, study_uid in enumerate(uids):
        said(n, len(uids))
        before = known.get(study_uid)
        if not (everything or must_count(before, found.facts.get(study_uid, {}), now().date())):
            continue
        counted = source.count(study_uid)
        with sessions.begin() as session:
            change = inventory.record(session, project_id, study_uid, counted, now(), found)
            this.counted += 1
            if before is None:
                this.new_studies += 1
            elif change.appeared:
                this.new_instances += len(change.appeared)
                _ready_again(session, project_id, study_uid, len(change.appeared), now())
    said(len(uids), len(uids))
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        this.studies, this.doubts, this.ended_at = len(uids), len(coverage.doubts), clock.text(now())
        session.merge(this)
        is_new = bool(this.new_studies or this.new_instances)
        if is_new and project.state in ("finished", "certified"):
            ledger.set_project(session, project, "running", f"pass {this.number} found more", now())
        audit.append(
            session, ledger.WRITER, "migration-changed", now(), project=project.name, state=project.state,
            studies=this.studies, doubts=this.doubts, who=who,
            reason=f"pass {this.number}: {this.new_studies} new studies, {this.new_instances} new instances",
        )  # fmt: skip
    return this


def passes(session: Session, project_id: int) -> list[MigrationPass]:
    """All passes, the latest first."""
    query = select(MigrationPass).where(MigrationPass.project_id == project_id)
    return list(session.scalars(query.order_by(MigrationPass.number.desc())))


def _ready_again(session: Session, project_id: int, study_uid: str, more: int, now: datetime) -> None:
    query = select(MigrationStudy).where(MigrationStudy.project_id == project_id, MigrationStudy.study_uid == study_uid)
    study = session.scalars(query).one()
    if study.state in _REOPENED:
        study.state, study.reason = "ready", f"{more} more instances at the source"
        study.next_at, study.verified_at, study.attempts = clock.text(now), None, 0
