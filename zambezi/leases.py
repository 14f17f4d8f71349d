"""Leases: work that lies in a table is carried out by one worker at a time, whatever dies in between.

A worker claims a row with a lease and a fence, in one transaction; it renews the lease while it works (`Keeper`). A
worker that was thought dead and wakes up again finds another fence in the row and can finish nothing. More
workers, more hosts, both database engines: same code. Any table with `Leased` (zambezi.database.tables), an
`id` and a `state` will do. This is the house's only implementation: every queue uses it.

A lease that ran out needs no sweeper: the row is claimable again, and whoever claims it says from whom it was
taken (`Lease.taken_from`). Hosts that share a database compare their clocks with one another's leases: keep them
by NTP. A clock that jumps can end a lease early, which costs a repetition; never can two workers finish one row.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database.engine import Sessions, looking

log = logging.getLogger(__name__)


class Fenced(Exception):
    """The row was claimed by somebody else in the meantime, or decided by a person: this worker must let go of it."""


@dataclass(frozen=True)
class Lease:
    """A worker's right to one row of `table` until the lease ends."""

    table: Any
    id: Any
    fence: int
    owner: str
    taken_from: str = ""  # who let the lease before run out: it died, or hung


class Look:
    """Whether `claim` may find something, for workers at rest: asked each second, it takes no lock and next to no time.

    The same words as for `claim`; what may be claimed after all is `claim`'s to say. `early`: also what waits in a
    `ready` state and isn't due yet.
    """

    def __init__(
        self, table: Any, *, ready: Sequence[str], working: str, also_working: Sequence[str] = (),
        where: Sequence[ColumnElement[bool]] = (), early: bool = False,
    ) -> None:  # fmt: skip
        at = bindparam("at", type_=table.next_at.type)
        waiting = table.state.in_(ready) if early else and_(table.state.in_(ready), table.next_at <= at)
        abandoned = and_(table.state.in_((working, *also_working)), table.lease_until <= at)
        # Made once: making a statement takes longer than asking it.
        self._statement = select(table.id).where(or_(waiting, abandoned), *where).limit(1)

    def __call__(self, sessions: Sessions, now: datetime) -> bool:
        with looking(sessions) as connection:
            return connection.execute(self._statement, {"at": clock.text(now)}).first() is not None


def claim(
    session: Session,
    table: Any,
    *,
    ready: Sequence[str],
    working: str,
    now: datetime,
    owner: str,
    lease: timedelta,
    also_working: Sequence[str] = (),
    where: Sequence[ColumnElement[bool]] = (),
    order_by: Sequence[Any] = (),
    counts_abandoned: bool = True,
) -> tuple[Any, Lease] | None:
    """Claim one row: in a `ready` state and due (`next_at`), or being worked on under a lease that has run out.

    The row goes into the state `working`, but stays in one of `also_working` if it was abandoned there (a later
    stage of the same work). A claim is an attempt; the one that was abandoned stays one, unless `counts_abandoned`
    is false (where a worker's death says nothing of the work). On PostgreSQL workers skip rows that another one is
    just claiming.
    """
    at = clock.text(now)
    busy = (working, *also_working)
    waiting = and_(table.state.in_(ready), table.next_at <= at)
    abandoned = and_(table.state.in_(busy), table.lease_until <= at)
    chosen = (
        select(table.id, table.state, table.lease_owner)
        .where(or_(waiting, abandoned), *where)
        .order_by(*(order_by or (table.next_at, table.id)))
        .limit(1)
        .with_for_update(of=table, skip_locked=True)
    )
    found = session.execute(chosen).first()
    if found is None:
        return None
    state = found.state if found.state in also_working else working
    is_abandoned = found.state in busy
    values = {
        "state": state, "fence": table.fence + 1, "lease_owner": owner, "lease_until": clock.text(now + lease),
        "attempts": table.attempts + (0 if is_abandoned and not counts_abandoned else 1),
    }  # fmt: skip
    fence = session.execute(
        update(table).where(table.id == found.id).values(**values).returning(table.fence)
    ).scalar_one()
    row = session.get_one(table, found.id, populate_existing=True)
    taken_from = (found.lease_owner or "") if is_abandoned else ""
    if taken_from:
        log.warning("%s %s: the lease of %s ran out, %s goes on", table.__tablename__, found.id, taken_from, owner)
    return row, Lease(table, found.id, fence, owner, taken_from)


def abandoned(session: Session, table: Any, working: Sequence[str], now: datetime) -> int:
    """How many rows lie under a lease that has run out at this moment: their workers died or hang."""
    late = (table.state.in_(working), table.lease_until <= clock.text(now))
    return session.scalar(select(func.count()).select_from(table).where(*late)) or 0


def renew(session: Session, held: Lease, *, now: datetime, lease: timedelta) -> None:
    """Go on holding the row; Fenced if it isn't ours any more."""
    change(session, held, {"lease_until": clock.text(now + lease)})


def change(session: Session, held: Lease, values: Mapping[str, Any]) -> None:
    """Change columns of the row and go on holding it; Fenced if it isn't ours any more."""
    table = held.table
    ours = and_(table.id == held.id, table.fence == held.fence, table.lease_owner == held.owner)
    if session.execute(update(table).where(ours).values(**values).returning(table.id)).first() is None:
        raise Fenced(f"{table.__tablename__} {held.id} is not {held.owner}'s any more (fence {held.fence})")


def write(session: Session, held: Lease, values: Mapping[str, Any]) -> Any:
    """The same, and the row as it is now."""
    change(session, held, values)
    return session.get_one(held.table, held.id, populate_existing=True)


def finish(session: Session, held: Lease, state: str, **values: Any) -> Any:
    """Let go of the row in a state; Fenced if it isn't ours any more. The row as it is now."""
    return write(session, held, {"state": state, "lease_owner": None, "lease_until": None, **values})


class Keeper:
    """Renews a lease in the background while its holder works; `check` raises Fenced once it is lost.

    `also` is done in the same transaction as each renewal: a probe that must be held, a sign of progress.
    """

    def __init__(
        self, sessions: Sessions, held: Lease, now: Callable[[], datetime], lease: timedelta,
        also: Callable[[Session], None] = lambda session: None,
    ) -> None:  # fmt: skip
        self._sessions, self._held, self._now, self._lease, self._also = sessions, held, now, lease, also
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

    @property
    def is_first(self) -> bool:
        """Whether nobody ever held the row before."""
        return self._held.fence == 1

    def check(self) -> None:
        """Call it before each step that can't be taken back."""
        if self._lost.is_set():
            raise Fenced(f"the lease of {self._held.table.__tablename__} {self._held.id} was lost")

    def _keep(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / 3):
            try:
                with self._sessions.begin() as session:
                    renew(session, self._held, now=self._now(), lease=self._lease)
                    self._also(session)
            except Fenced:
                self._lost.set()
                return
            except SQLAlchemyError as error:  # the database is away: the lease runs out if it stays away
                log.warning("a lease could not be renewed: %s", type(error).__name__)
