"""Workers of this machine that died: nobody waits for their leases to run out when the migration starts again.

A lease can't tell a worker that hangs from one that died; on the same machine the process table can. A number that
another program has by now says nothing: that lease runs out by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database.tables import MigrationStudy


def owner(host: str, pid: int, thread: int) -> str:
    """Under which name a worker holds its studies."""
    return f"{host}:{pid}:{thread}"


def is_dead(held_by: str, host: str, own_pid: int, lives: Callable[[int], bool]) -> bool:
    """Whether the holder of a lease died. Whoever asks holds none itself yet: its own number was another one's."""
    where, _, rest = held_by.rpartition(":")[0].rpartition(":")
    return where == host and rest.isdecimal() and (int(rest) == own_pid or not lives(int(rest)))


def end_leases(session: Session, host: str, now: datetime) -> int:
    """End the leases of workers that died on this host; how many. Who claims a study then says from whom it took it."""
    study = MigrationStudy
    held = select(study).where(study.state.in_(("moving", "verifying")), study.lease_owner.is_not(None))
    dead = [row for row in session.scalars(held) if is_dead(row.lease_owner or "", host, os.getpid(), _lives)]
    for row in dead:
        row.lease_until = clock.text(now)
    return len(dead)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another account's
    return True
