"""How far each instance is on its way to the new archive: a SQLite file of the move, what makes it resumable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from operations.moving.source import Other, Row
from zambezi import crash

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- state: due, stored, proven, failed (reason), gone (no longer in the old archive, to be taken from the new one)
CREATE TABLE IF NOT EXISTS instances (
  orthanc_id TEXT PRIMARY KEY, sop_uid TEXT NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL,
  uuid TEXT NOT NULL, compression INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  listed INTEGER NOT NULL, new_sop_uid TEXT, new_size INTEGER, new_md5 TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_state ON instances (state);
CREATE TABLE IF NOT EXISTS others (
  level TEXT NOT NULL, orthanc_id TEXT NOT NULL, what TEXT NOT NULL, kind INTEGER NOT NULL, value TEXT NOT NULL,
  carried TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS by_resource ON others (orthanc_id, what, kind);
"""
_BATCH = 10_000

#: The name at crash points.
PROCESS = "move"

T = TypeVar("T")


class Ledger:
    """The file of one move. Commits are the caller's, a batch at a time; what isn't committed is done again."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, isolation_level="IMMEDIATE")
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.executescript(_SCHEMA)

    def close(self) -> None:
        self.database.close()

    def fact(self, key: str) -> str:
        found = self.database.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else ""

    def note(self, key: str, value: str) -> None:
        """Remember a fact of the move, on disk at once."""
        with self.database:
            self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def list_anew(self, rows: Iterable[Row], others: Iterable[Other]) -> None:
        """Take the old index's list, all or nothing: what is as it was keeps its state; what isn't there is gone."""
        run = int(self.fact("run") or 0) + 1
        with self.database:
            for batch in _batches(rows):
                self.database.executemany(
                    "INSERT INTO instances (orthanc_id, sop_uid, size, md5, uuid, compression, state, listed)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'due', ?) ON CONFLICT (orthanc_id) DO UPDATE SET"
                    " listed = excluded.listed, state = CASE"
                    " WHEN uuid = excluded.uuid AND state IN ('stored', 'proven') THEN state ELSE 'due' END,"
                    " md5 = CASE WHEN uuid = excluded.uuid THEN md5 ELSE excluded.md5 END,"
                    " sop_uid = excluded.sop_uid, size = excluded.size, uuid = excluded.uuid,"
                    " compression = excluded.compression, reason = ''",
                    [(one.orthanc_id, one.sop_uid, one.size, one.md5, one.uuid, one.compression, run) for one in batch],
                )
            self.database.execute("UPDATE instances SET state = 'gone' WHERE listed <> ?", (run,))
            self.database.execute("DELETE FROM others")
            for some in _batches(others):
                self.database.executemany(
                    "INSERT INTO others (level, orthanc_id, what, kind, value) VALUES (?, ?, ?, ?, ?)",
                    [(one.level, one.orthanc_id, one.what, one.kind, one.value) for one in some],
                )
            self.database.execute("INSERT OR REPLACE INTO facts VALUES ('run', ?)", (str(run),))
        crash.point(PROCESS)

    def count(self, *states: str) -> int:
        """Instances in these states; all that are to be moved where none is named."""
        counts = dict(self.database.execute("SELECT state, count(*) FROM instances GROUP BY state").fetchall())
        return sum(n for state, n in counts.items() if (state in states if states else state != "gone"))

    def bytes_due(self) -> int:
        sql = "SELECT coalesce(sum(size), 0) FROM instances WHERE state IN ('due', 'failed')"
        return int(self.database.execute(sql).fetchone()[0])

    def some(self, state: str, after: str, limit: int) -> list[Row]:
        """The next instances in a state, in the order of their Orthanc ids."""
        found = self.database.execute(
            "SELECT orthanc_id, sop_uid, uuid, compression, size, md5 FROM instances"
            " WHERE state = ? AND orthanc_id > ? ORDER BY orthanc_id LIMIT ?",
            (state, after, limit),
        )
        return [Row(*row) for row in found]

    def failed(self, limit: int = 20) -> list[tuple[str, str]]:
        sql = "SELECT orthanc_id, reason FROM instances WHERE state = 'failed' ORDER BY orthanc_id LIMIT ?"
        return self.database.execute(sql, (limit,)).fetchall()

    def set_states(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """(state, reason, md5 of the old file, Orthanc id) of a batch, on disk at once."""
        with self.database:
            self.database.executemany("UPDATE instances SET state = ?, reason = ?, md5 = ? WHERE orthanc_id = ?", rows)
        crash.point(PROCESS)

    def set_found(self, rows: Sequence[tuple[str, str, str | None, int | None, str | None, str]]) -> None:
        """(state, reason, SOP UID, size and MD5 as the new archive has them, Orthanc id) of a batch."""
        with self.database:
            self.database.executemany(
                "UPDATE instances SET state = ?, reason = ?, new_sop_uid = ?, new_size = ?, new_md5 = ?"
                " WHERE orthanc_id = ?",
                rows,
            )
        crash.point(PROCESS)

    def doubt(self) -> None:
        """The new archive has less than it had: each instance is read back again."""
        with self.database:
            self.database.execute("UPDATE instances SET state = 'stored' WHERE state = 'proven'")

    def forget(self, orthanc_ids: Sequence[str]) -> None:
        with self.database:
            self.database.executemany("DELETE FROM instances WHERE orthanc_id = ?", [(one,) for one in orthanc_ids])


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
