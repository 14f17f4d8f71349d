"""The ledger of a migration: who works on which study, and every change of state with its audit entry.

A worker claims a study with a lease and a fence; one that was thought dead and wakes up again finds another
fence in the row and can change nothing. Nothing of a migration lives in memory only: after a kill -9 the
lease runs out, the study is claimed again and the difference to what is stored says what is left to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from migration.inventory import raise_exception
from zambezi import audit, clock, exceptions
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy

log = logging.getLogger(__name__)

WRITER = "migration"
LEASE = timedelta(seconds=30)
#: States in which nothing more will happen to a study by itself.
AT_REST = ("verified", "divergent", "parked")


class Fenced(Exception):
    """The study was claimed by somebody else in the meantime: this worker must let go of it."""


@dataclass(frozen=True)
class Claim:
    """A worker's right to one study until the lease ends."""

    study_id: int
    study_uid: str
    project: str
    fence: int


def claim(
    session: Session, project: MigrationProject, *, now: datetime, owner: str, lease: timedelta = LEASE
) -> Claim | None:
    """Claim the newest study that is ready, due again, or held by a dead lease; one UPDATE ... RETURNING."""
    at = clock.text(now)
    waiting = and_(MigrationStudy.state.in_(("ready", "retrying")), MigrationStudy.next_at <= at)
    abandoned = and_(MigrationStudy.state.in_(("moving", "verifying")), MigrationStudy.lease_until <= at)
    chosen = (
        select(MigrationStudy.id)
        .where(MigrationStudy.project_id == project.id, or_(waiting, abandoned))
        .order_by(MigrationStudy.study_date.desc(), MigrationStudy.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = session.execute(
        update(MigrationStudy)
        .where(MigrationStudy.id == chosen.scalar_subquery())
        .values(
            state="moving",
            fence=MigrationStudy.fence + 1,
            lease_owner=owner,
            lease_until=clock.text(now + lease),
        )
        .returning(MigrationStudy.id, MigrationStudy.study_uid, MigrationStudy.fence)
    ).first()
    return Claim(found.id, found.study_uid, project.name, found.fence) if found else None


def renew(session: Session, held: Claim, *, now: datetime, lease: timedelta = LEASE) -> None:
    """Go on holding the study; Fenced if it isn't ours any more."""
    _write(session, held, {"lease_until": clock.text(now + lease)})


def verifying(session: Session, held: Claim, now: datetime) -> None:
    """The set is there; now each instance is compared."""
    _write(session, held, {"state": "verifying"})
    _audit(session, held, "verifying", "", now)


def finish(
    session: Session, held: Claim, state: str, reason: str, now: datetime, *, wait: timedelta | None = None,
    counts: bool = False, suggestion: str = "",
) -> None:  # fmt: skip
    """Let go of the study in a state: at rest, or due again after `wait` (an attempt of ours if it `counts`)."""
    values: dict[str, Any] = {
        "state": state, "reason": reason, "lease_owner": None, "lease_until": None,
        "next_at": clock.text(now + (wait or timedelta())),
        "verified_at": clock.text(now) if state == "verified" else None,
    }  # fmt: skip
    if counts:
        values["attempts"] = MigrationStudy.attempts + 1
    _write(session, held, values)
    if state in ("divergent", "parked"):
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
        raise_exception(session, project, f"study-{state}", reason, suggestion, now, held.study_uid)
    elif state == "verified":
        who = "the migration itself"
        exceptions.decide(session, "migration", held.study_uid, who=who, decision=state, now=now, writer=WRITER)
    _audit(session, held, state, reason, now)


def set_verdicts(session: Session, held: Claim, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write columns of instances (by SOP Instance UID), if the study is still ours."""
    _write(session, held, {"fence": held.fence})
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


def _write(session: Session, held: Claim, values: dict[str, Any]) -> None:
    ours = and_(MigrationStudy.id == held.study_id, MigrationStudy.fence == held.fence)
    if (
        session.execute(update(MigrationStudy).where(ours).values(**values).returning(MigrationStudy.id)).first()
        is None
    ):
        raise Fenced(f"study {held.study_uid} was claimed by another worker")


def _audit(session: Session, held: Claim, state: str, reason: str, now: datetime) -> None:
    audit.append(
        session, WRITER, "migration-changed", now, project=held.project, study_uid=held.study_uid, state=state,
        reason=reason,
    )  # fmt: skip


class Keeper:
    """Renews a lease in the background while its holder waits for the source; `check` raises Fenced once it is lost."""

    def __init__(self, sessions: Sessions, held: Claim, now: Callable[[], datetime], lease: timedelta = LEASE) -> None:
        self._sessions, self._held, self._now, self._lease = sessions, held, now, lease
        self._over = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        if self._lost.is_set():
            raise Fenced(f"the lease of study {self._held.study_uid} was lost")

    def _keep(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / 3):
            try:
                with self._sessions.begin() as session:
                    renew(session, self._held, now=self._now(), lease=self._lease)
            except Fenced:
                self._lost.set()
                return
            except SQLAlchemyError as error:  # the database is away: the lease runs out if it stays away
                log.warning("a lease could not be renewed: %s", type(error).__name__)
