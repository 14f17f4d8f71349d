"""Copying the central database from one engine to the other: every table, in one transaction, compared row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Integer, Table, delete, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations.moving.ledger import PROCESS
from operations.progress import Progress
from zambezi import audit
from zambezi.database.engine import connect
from zambezi.database.tables import AuditEntry, Base, ChainHead
from zambezi.database.upgrade import upgrade

_BATCH = 1000


class CentralFault(Exception):
    """The central database can't be moved; the text says why and what to do. The old one is as it was."""


def copy(old: str, new: str, is_ours: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Copy all rows; what was shown, for the proof. `is_ours`: what the new one has is of an earlier run of this move.

    The new one has all or nothing, whenever this is cut off; the old one is only read.
    """
    source, target = connect(old, PROCESS, reading=True), connect(new, PROCESS)
    try:
        upgrade(target)
        if _revision(source) != _revision(target):
            raise CentralFault(
                "the old central database is of another version of Zambezi: start this one once with the configuration"
                " it had, `zambezi down`, and then move"
            )
        before = seen(source)
        with target.begin() as connection:
            filled = [t.name for t in Base.metadata.sorted_tables if connection.execute(select(t).limit(1)).first()]
            if filled and not is_ours:
                raise CentralFault(
                    f"the new central database has rows already ({', '.join(filled[:5])}): give an empty one"
                )
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
            _rows_over(source, connection, before, tell)
        after = seen(target)
    except SQLAlchemyError as error:
        first = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise CentralFault(f"the central database could not be copied: {first}") from error
    finally:
        source.dispose()
        target.dispose()
    different = [name for name in before["tables"] if before["tables"][name] != after["tables"].get(name)]
    if different or before["chains"] != after["chains"] or before["broken"] != after["broken"]:
        raise CentralFault(f"the copy of the central database is not the same: {', '.join(different) or 'audit'}")
    return before


def seen(engine: Engine) -> dict[str, Any]:
    """What a central database holds: rows and a digest of each table, the audit chains' heads, where they are broken.

    The digest is the sum of the rows' SHA-256: engines list rows in orders of their own.
    """
    revision = _revision(engine)  # on SQLite a second connection would wait for the session's
    with Session(engine) as session:
        tables = {table.name: _digest(session, table) for table in Base.metadata.sorted_tables}
        heads = session.scalars(select(ChainHead).order_by(ChainHead.journal)).all()
        return {
            "revision": revision, "tables": tables,
            "chains": {head.journal: [head.seq, head.hash] for head in heads},
            "broken": [f"{one.journal} {one.seq}: {one.why}" for one in audit.verify(session)],
            "entries": session.scalar(select(func.count()).select_from(AuditEntry)),
        }  # fmt: skip


def _revision(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(MigrationContext.configure(connection).get_current_revision())


def _digest(session: Session, table: Table) -> list[Any]:
    count, total = 0, 0
    rows = session.connection().execution_options(yield_per=_BATCH).execute(select(table))
    for row in rows:
        said = json.dumps(list(row), default=lambda value: bytes(value).hex(), sort_keys=True, ensure_ascii=False)
        total += int.from_bytes(hashlib.sha256(said.encode()).digest(), "big")
        count += 1
    return [count, f"{total % 2**256:064x}"]


def _rows_over(source: Engine, target: Any, before: dict[str, Any], tell: Callable[[str], None]) -> None:
    progress = Progress("copying the central database", sum(n for n, _ in before["tables"].values()), tell)
    done = 0
    with source.connect() as reading:
        for table in Base.metadata.sorted_tables:
            # In the order of their keys: a row may name an earlier one of its own table.
            rows = reading.execution_options(yield_per=_BATCH).execute(select(table).order_by(*table.primary_key))
            for part in rows.mappings().partitions():
                target.execute(insert(table), [dict(row) for row in part])
                done += len(part)
                progress.at(done)
            _go_on_counting(target, table)
    tell(progress.line(done))


def _go_on_counting(target: Any, table: Table) -> None:
    """PostgreSQL gives numbers from a sequence, which knows nothing of rows that brought their own."""
    (key, *others) = table.primary_key
    if target.dialect.name != "postgresql" or others or not isinstance(key.type, Integer):
        return
    named = {"table": table.name, "key": key.name}
    if target.execute(text("SELECT pg_get_serial_sequence(:table, :key)"), named).scalar():
        target.execute(
            text(
                f'SELECT setval(pg_get_serial_sequence(:table, :key), max("{key.name}")) FROM "{table.name}"'  # noqa: S608
                f' HAVING max("{key.name}") IS NOT NULL'
            ),
            named,
        )
