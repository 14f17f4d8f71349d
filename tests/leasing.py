"""A worker that claims, works and finishes, as a process of its own: to be killed, and to be many.

python -m tests.leasing URL OWNER LEASE_SECONDS WORK_SECONDS      until nothing is left
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from zambezi import clock, leases
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Leased


class TestBase(DeclarativeBase):
    __test__ = False


class Work(Leased, TestBase):
    """Something to do exactly once: `finished` counts how often it was."""

    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="due")
    finished: Mapped[int] = mapped_column(default=0)
    by: Mapped[str] = mapped_column(String(80), default="")


def claimed(session: Any, owner: str, now: Any, lease: timedelta) -> Any:
    """One row of work and the lease on it."""
    return leases.claim(session, Work, ready=("due",), working="working", now=now, owner=owner, lease=lease)


def main(url: str, owner: str, lease_s: float, work_s: float) -> None:
    lease = timedelta(seconds=lease_s)
    made = sessions(connect(url, "test"), "test")
    while True:
        with made.begin() as session:
            found = claimed(session, owner, clock.now(), lease)
            left = session.scalar(select(func.count()).select_from(Work).where(Work.state != "done"))
        if found is None:
            if not left:
                return
            time.sleep(0.05)
            continue
        try:
            with leases.Keeper(made, found[1], clock.now, lease):
                time.sleep(work_s)
            with made.begin() as session:
                leases.finish(session, found[1], "done", finished=Work.finished + 1, by=owner)
        except leases.Fenced:
            continue


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
