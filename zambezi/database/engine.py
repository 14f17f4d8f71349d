"""One way to the relational database: SQLite (embedded) or PostgreSQL, with the settings that keep it whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.orm import Session, sessionmaker

from zambezi import crash

Sessions = sessionmaker[Session]

#: What keeps a worker from waiting for ever for a PostgreSQL whose machine has lost its power: libpq's own settings.
#: The server ends what holds its rows while nothing happens, and who waits for a row for as long as SQLite would wait.
_POSTGRESQL = {
    "connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}  # fmt: skip
_WRITING = "-c lock_timeout=30s -c idle_in_transaction_session_timeout=5min -c synchronous_commit=on"

#: `wrote`: whether this thread's last commit changed anything. Looking for work every second is no crash point.
_committing = threading.local()


def connect(url: str, process: str, reading: bool = False) -> Engine:
    """An engine for `process` (its name at crash points).

    SQLite: WAL, synchronous=FULL, foreign keys, a busy timeout, and BEGIN IMMEDIATE for every transaction:
    with the default two writers can read the same head of a chain and fork it silently. `reading`: an engine
    that only looks, from one consistent moment, and holds up no writer however long it takes.
    """
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30})
        event.listen(engine, "connect", _prepare_sqlite)
        if reading:
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON").close())
        event.listen(engine, "begin", _begin_reading if reading else _begin_immediate)
    else:
        level: IsolationLevel = "REPEATABLE READ" if reading else "READ COMMITTED"
        how: dict[str, Any] = _POSTGRESQL | ({} if reading else {"options": _WRITING})
        engine = create_engine(_psycopg(url), connect_args=how, pool_pre_ping=True, isolation_level=level)
    event.listen(engine, "commit", lambda connection: _before_commit(connection, process))
    return engine


def sessions(engine: Engine, process: str) -> Sessions:
    """A factory of sessions; shells open one with `with sessions.begin() as session:` and hand it on."""
    made = sessionmaker(engine, expire_on_commit=False)
    event.listen(made, "after_commit", lambda session: _after_commit(process))
    return made


@contextmanager
def looking(sessions: Sessions) -> Iterator[Connection]:
    """A connection that only looks, for a moment: it waits for no writer and holds up none.

    What is done because of it must be looked at again in a transaction.
    """
    with sessions.kw["bind"].connect() as connection:
        yield connection.execution_options(only_looks=True)


def _before_commit(connection: Connection, process: str) -> None:
    before = connection.info.get("changes")
    _committing.wrote = before is None or before != _changes(connection)
    if _committing.wrote:
        crash.point(process)


def _after_commit(process: str) -> None:
    # Also called when a savepoint is released, which commits nothing.
    if getattr(_committing, "wrote", False):
        _committing.wrote = False
        crash.point(process)


def _changes(connection: Connection) -> Any:
    """How many rows this SQLite connection has changed so far."""
    return connection.connection.dbapi_connection.total_changes  # type: ignore[union-attr]


def _psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_immediate does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("only_looks") else "BEGIN IMMEDIATE")
    connection.info["changes"] = _changes(connection)


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
    connection.info["changes"] = _changes(connection)
