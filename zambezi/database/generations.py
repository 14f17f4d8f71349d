"""The generations of what is pushed to the plugin whole: `worklist`, `announced`, `revocations`, `ready`."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi.database.engine import Sessions, looking
from zambezi.database.tables import Generation

_ALL = select(Generation.name, Generation.number)

Name = Literal["worklist", "announced", "revocations", "ready"]


def raise_(session: Session, name: Name) -> int:
    """One more, in the transaction of the change that it counts; the row stays locked until that ends."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Generation).values(name=name, number=1)
    statement = statement.on_conflict_do_update(index_elements=["name"], set_={"number": Generation.number + 1})
    return session.execute(statement.returning(Generation.number)).scalar_one()


def raise_orders(session: Session) -> None:
    """An order changed: the worklist with it, and the studies that open orders announce."""
    raise_(session, "worklist")
    raise_(session, "announced")


def current(session: Session, name: Name) -> int:
    """The generation there is; 0 before the first change."""
    return session.scalars(select(Generation.number).where(Generation.name == name)).first() or 0


def look(sessions: Sessions) -> dict[str, int]:
    """The generations there are at this moment; no lock is taken. What was never raised isn't among them."""
    with looking(sessions) as connection:
        return dict(connection.execute(_ALL).all())


def raise_beyond(session: Session, name: Name, number: int) -> int:
    """Raise it above `number`, which somebody has seen already (the database was restored from a backup)."""
    raise_(session, name)
    row = session.get_one(Generation, name, populate_existing=True)
    row.number = max(row.number, number + 1)
    session.flush()
    return row.number
