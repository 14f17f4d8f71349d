"""What the ledger of a migration waits for, after the clock was put back.

Ahead, leases and waits end early, which costs a repetition (zambezi.leases). Back, what was written before lies in a
future that is far away: a study that is due, a dead worker's lease, a source's pause.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from migration import ledger, worker
from zambezi import breakers, clock
from zambezi.config.settings import MigrationSource
from zambezi.database.tables import Breaker, MigrationPace, MigrationProject, MigrationStudy


def set_right(session: Session, project: MigrationProject, settings: MigrationSource, now: datetime) -> None:
    """Have nothing of a project wait for a moment that nobody can have meant.

    A lease that is longer than leases are lasts for one more: whoever holds it, and lives, renews it meanwhile.
    """
    at, study, policy = clock.text(now), MigrationStudy, settings.policy
    tape = timedelta(seconds=settings.near_line_deadline_seconds)
    longest = clock.text(now + max(policy.cap, policy.first, tape, breakers.DISK.cap))
    leased = clock.text(now + ledger.LEASE)
    # In the order in which everybody locks: a source's pace, breakers, studies.
    paced = update(MigrationPace).where(MigrationPace.source == project.source, MigrationPace.cut_at > at)
    session.execute(paced.values(cut_at=at))
    names = (f"source:{project.source}", worker.QUEUE)
    paused = update(Breaker).where(Breaker.name.in_(names), Breaker.probe_at > longest)
    session.execute(paused.values(probe_at=at))
    for where, values in (
        ((study.state == "ready", study.next_at > at), {"next_at": at}),
        ((study.state == "retrying", study.next_at > longest), {"next_at": at}),
        ((study.lease_until > leased,), {"lease_until": leased}),
    ):
        session.execute(update(study).where(study.project_id == project.id, *where).values(**values))
