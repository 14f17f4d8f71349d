"""The ledger of a migration: who works on which study, and every change of state with its audit entry.

A worker claims a study with a lease and a fence (zambezi.leases). Nothing of a migration lives in memory only:
after a kill -9 the lease runs out, the study is claimed again and the difference to what is stored says what is
left to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from migration import planned
from migration.inventory import raise_exception
from zambezi import audit, clock, exceptions, leases
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy
from zambezi.leases import Lease

WRITER = "migration"
LEASE = timedelta(seconds=30)
#: States in which nothing more will happen to a study by itself.
AT_REST = ("verified", "divergent", "parked", "held", "skipped", "waived", "rolled-back")


@dataclass(frozen=True)
class Claim:
    """A worker's right to one study until the lease ends; `attempts` counts this one."""

    lease: Lease
    study_uid: str
    project: str
    attempts: int

    @property
    def study_id(self) -> int:
        return int(self.lease.id)


def claim(
    session: Session, project: MigrationProject, *, now: datetime, owner: str, lease: timedelta = LEASE
) -> Claim | None:
    """Claim the most urgent, newest study that is ready, due again, or held by a dead lease (the audit says so).

    A worker's death is no failed attempt of the study: what was moved is there, and the next one goes on.
    """
    found = leases.claim(
        session, MigrationStudy, ready=("ready", "retrying"), working="moving", also_working=("verifying",),
        where=[MigrationStudy.project_id == project.id, planned.is_decided(session, project.id)],
        now=now, owner=owner, lease=lease,
        order_by=(MigrationStudy.priority.desc(), MigrationStudy.study_date.desc(), MigrationStudy.id),
        counts_abandoned=False,
    )  # fmt: skip
    if found is None:
        return None
    row, held = found
    made = Claim(held, row.study_uid, project.name, row.attempts)
    # Whatever stage it was left in, the way begins with counting what is missing.
    leases.write(session, held, {"state": "moving"})
    if held.taken_from:
        _audit(session, made, "moving", f"the lease of {held.taken_from} ran out; {owner} goes on", now)
    return made


def verifying(session: Session, held: Claim, now: datetime) -> None:
    """The set is there; now each instance is compared."""
    leases.write(session, held.lease, {"state": "verifying"})
    _audit(session, held, "verifying", "", now)


def finish(
    session: Session, held: Claim, state: str, reason: str, now: datetime, *, wait: timedelta | None = None,
    counts: bool = True, suggestion: str = "",
) -> None:  # fmt: skip
    """Let go of the study in a state: at rest, or due again after `wait`; leases.Fenced if it isn't ours any more.

    Unless it `counts`, this was no attempt of the study (the window closed, the configuration is wrong).
    """
    leases.finish(
        session, held.lease, state, reason=reason, next_at=clock.text(now + (wait or timedelta())),
        verified_at=clock.text(now) if state == "verified" else None,
        attempts=held.attempts if counts else held.attempts - 1,
    )  # fmt: skip
    if state in ("divergent", "parked"):
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
        raise_exception(session, project, f"study-{state}", reason, suggestion, now, held.study_uid)
    elif state == "verified":
        who = "the migration itself"
        exceptions.decide(session, "migration", held.study_uid, who=who, decision=state, now=now, writer=WRITER)
    _audit(session, held, state, reason, now)


def set_verdicts(session: Session, held: Claim, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write columns of instances (by SOP Instance UID), if the study is still ours."""
    leases.write(session, held.lease, {"fence": held.lease.fence})
    for sop_uid, values in verdicts.items():
        session.execute(
            update(MigrationInstance)
            .where(MigrationInstance.study_id == held.study_id, MigrationInstance.sop_uid == sop_uid)
            .values(**values)
        )


def set_project(session: Session, project: MigrationProject, state: str, note: str, now: datetime) -> None:
    """Change a project's state, with the reason in words."""
    project.state, project.note, project.updated_at = state, note, clock.text(now)
    audit.append(session, WRITER, "migration-changed", now, project=project.name, state=state, reason=note)
    if state == "running":
        who, about = "the migration itself", f"project {project.name}"
        exceptions.decide(session, "migration", about, who=who, decision="it runs again", now=now, writer=WRITER)


def states(session: Session, project_id: int) -> dict[str, int]:
    """How many studies of a project are in which state."""
    query = (
        select(MigrationStudy.state, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(MigrationStudy.state)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def _audit(session: Session, held: Claim, state: str, reason: str, now: datetime) -> None:
    audit.append(
        session, WRITER, "migration-changed", now, project=held.project, study_uid=held.study_uid, state=state,
        reason=reason,
    )  # fmt: skip
