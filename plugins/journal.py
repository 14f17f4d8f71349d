"""The journal: the plugin's own SQLite file of sealed entries, and the tables that stand beside them.

An entry, what follows from it (routes, triggers, the completeness clock) and the follower's cursor are
committed in one transaction, many entries at a time. `synchronous=FULL`: what is committed survives the
mains. One lock for writers; readers have a connection of their own and never wait for a commit.

Nobody may speak with Orthanc inside a transaction: Orthanc may be waiting for this very lock.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from zambezi import chain, crash
from zambezi.chain import Sealed
from zambezi.events import EVENTS

PROCESS = "orthanc"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The chain. `payload` is the bytes that were hashed; the other columns are for looking up.
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, hash TEXT NOT NULL, payload BLOB NOT NULL, event TEXT NOT NULL,
  study_uid TEXT, orthanc_id TEXT);
CREATE INDEX IF NOT EXISTS entries_completed ON entries (seq) WHERE event = 'study-completed';

-- Rows of /changes that were recorded: a number alone is handed out twice by an index that lost its tail.
CREATE TABLE IF NOT EXISTS changes (
  index_id TEXT NOT NULL, seq INTEGER NOT NULL, orthanc_id TEXT NOT NULL, date TEXT NOT NULL,
  PRIMARY KEY (index_id, seq, orthanc_id, date)) WITHOUT ROWID;

-- Where following stands (the row with the highest n), and places it can go back to.
CREATE TABLE IF NOT EXISTS anchors (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  index_id TEXT NOT NULL, seq INTEGER NOT NULL, orthanc_id TEXT NOT NULL, date TEXT NOT NULL);

-- Instances as recorded, in the order in which they came: ordered by their ids, which are hashes, each of a study's
-- images would be written to another page. `generation` is NULL until the study was complete with it; `unsure` marks
-- those whose change number an index that lost its tail may have taken back. `reference` belongs to the cause;
-- `sha256` is of the bytes as they were received, NULL where nobody saw them come.
CREATE TABLE IF NOT EXISTS instances (
  orthanc_id TEXT NOT NULL UNIQUE, study_orthanc_id TEXT NOT NULL, series_orthanc_id TEXT NOT NULL,
  study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sop_uid TEXT NOT NULL, modality TEXT NOT NULL,
  cause TEXT NOT NULL, remote_aet TEXT NOT NULL, called_aet TEXT NOT NULL,
  index_id TEXT NOT NULL, change_seq INTEGER NOT NULL, generation INTEGER,
  present INTEGER NOT NULL DEFAULT 1, unsure INTEGER NOT NULL DEFAULT 0,
  reference TEXT NOT NULL DEFAULT '', sha256 TEXT);
CREATE INDEX IF NOT EXISTS instances_of_study ON instances (study_orthanc_id);
CREATE INDEX IF NOT EXISTS instances_by_sop_uid ON instances (sop_uid);
CREATE INDEX IF NOT EXISTS instances_of_series ON instances (series_orthanc_id);
CREATE INDEX IF NOT EXISTS instances_unsure ON instances (unsure) WHERE unsure = 1;

-- `priority` is that of the order which announced the study.
CREATE TABLE IF NOT EXISTS studies (
  study_orthanc_id TEXT PRIMARY KEY, study_uid TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 0,
  priority TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS studies_by_uid ON studies (study_uid);

-- The completeness clock: a row for each study (and cause) that is not complete.
CREATE TABLE IF NOT EXISTS clocks (
  study_orthanc_id TEXT NOT NULL, cause TEXT NOT NULL, last_at TEXT NOT NULL,
  PRIMARY KEY (study_orthanc_id, cause)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS clocks_by_time ON clocks (last_at);

-- For which rules (by how they know that a study is complete) a clock has run out already, while others wait. It
-- holds for that very `last_at`: what comes later makes all of them wait anew.
CREATE TABLE IF NOT EXISTS fired (
  study_orthanc_id TEXT NOT NULL, cause TEXT NOT NULL, how TEXT NOT NULL, last_at TEXT NOT NULL,
  PRIMARY KEY (study_orthanc_id, cause, how)) WITHOUT ROWID;
-- What came of instances that were coerced: their bytes before, by which a sender that repeats itself is known, and
-- in which tags they differ now, joined by blanks (NULL: nobody looked).
CREATE TABLE IF NOT EXISTS came (orthanc_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, changed TEXT) WITHOUT ROWID;

-- What a rule sent where, so that a late image goes as the next generation, alone.
CREATE TABLE IF NOT EXISTS routed (
  orthanc_id TEXT NOT NULL, rule TEXT NOT NULL, destination TEXT NOT NULL,
  PRIMARY KEY (orthanc_id, rule, destination)) WITHOUT ROWID;

-- Who calls at the DICOM port (plugins.callers): the last sign of each kind.
CREATE TABLE IF NOT EXISTS callers (
  aet TEXT NOT NULL, ip TEXT NOT NULL, sign TEXT NOT NULL, at TEXT NOT NULL, called_aet TEXT NOT NULL,
  reason TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (aet, ip, sign)) WITHOUT ROWID;
"""

#: Columns that came after the first version, as they stand in the schema.
_ADDED = (
    ("instances", "reference", "TEXT NOT NULL DEFAULT ''"), ("instances", "sha256", "TEXT"),
    ("studies", "priority", "TEXT NOT NULL DEFAULT ''"), ("came", "changed", "TEXT"),
)  # fmt: skip


class Transaction:
    """One commit in the making: entries behind the head, and whatever SQL goes with them."""

    def __init__(self, database: sqlite3.Connection, journal: str, seq: int, head: str) -> None:
        self._database = database
        self._journal = journal
        self._sealed: list[tuple[Any, ...]] = []
        self.seq = seq
        self.hash = head

    def append(self, event: str, at: datetime, orthanc_id: str | None = None, **facts: Any) -> Sealed:
        """Seal an event behind the head. Facts that are None are left out."""
        if event not in EVENTS:
            raise ValueError(f"no event {event!r}; zambezi/events.py lists them")
        if orthanc_id is not None:
            facts["orthanc_id"] = orthanc_id
        told = {name: value for name, value in facts.items() if value is not None}
        sealed = chain.seal(self._journal, self.seq + 1, self.hash, event, at, told)
        row = sealed.seq, sealed.hash, sealed.payload, event, facts.get("study_uid"), orthanc_id
        self._sealed.append(row)
        self.seq, self.hash = sealed.seq, sealed.hash
        return sealed

    def write_entries(self) -> None:
        """What was sealed goes into the table, all at once, right before the commit: none of it is read earlier."""
        self._database.executemany(
            "INSERT INTO entries (seq, hash, payload, event, study_uid, orthanc_id) VALUES (?, ?, ?, ?, ?, ?)",
            self._sealed,
        )

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._database.execute(sql, values)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._database.executemany(sql, rows)

    def set_meta(self, key: str, value: str) -> None:
        self.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def set_later(self, key: str, moment: str) -> None:
        """A moment that only goes forward."""
        self.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
            (key, moment),
        )


class JournalMismatch(Exception):
    """A reader's cursor is not a place of this journal."""


class Journal:
    """The journal file. `name` identifies it for good; a lost file begins a new journal, which readers notice."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _connect(file)
        with self._writer:
            self._writer.executescript(_SCHEMA)
            self._add_columns()
            self._writer.execute(
                "INSERT INTO meta VALUES ('journal', ?) ON CONFLICT DO NOTHING", (f"orthanc-{uuid.uuid4().hex[:12]}",)
            )
        self._file = file
        self._reader = self.reader()
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._committed = threading.Condition()
        self._closed = False
        self.name = str(self.query("SELECT value FROM meta WHERE key = 'journal'")[0][0])
        last = self.query("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1")
        self._head: tuple[int, str] = (last[0][0], last[0][1]) if last else (0, "")

    def _add_columns(self) -> None:
        """Columns that a file of an earlier version lacks."""
        for table, name, declared in _ADDED:
            there = {row[1] for row in self._writer.execute(f"PRAGMA table_info ({table})")}
            if name not in there:
                self._writer.execute(f"ALTER TABLE {table} ADD COLUMN {name} {declared}")

    @property
    def head(self) -> tuple[int, str]:
        """(seq, hash) of the last committed entry; (0, "") where there is none."""
        return self._head

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All or nothing, on disk when the block is left without an error."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(self._writer, self.name, *self._head)
                yield transaction
                transaction.write_entries()
                crash.point(PROCESS)
                self._writer.execute("COMMIT")
            except BaseException:  # whatever ends the block, half a transaction must not stay open
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            crash.point(PROCESS)
            self._head = (transaction.seq, transaction.hash)
        with self._committed:
            self._committed.notify_all()

    def reader(self) -> sqlite3.Connection:
        """A connection of one's own, for reading: one that waits for no other reader."""
        return _connect(self._file)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Read what is committed."""
        with self._reading:
            return self._reader.execute(sql, values).fetchall()

    def query_all(self, sql: str) -> list[Any]:
        """Read a whole table, on a connection of its own: of millions of rows no other reader should wait for that."""
        with closing(self.reader()) as reader:
            return reader.execute(sql).fetchall()

    def meta(self, key: str) -> str | None:
        found = self.query("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def seen(self) -> dict[str, str]:
        """When each AE title sent or asked something last."""
        rows = self.query("SELECT substr(key, 6), value FROM meta WHERE key >= 'seen ' AND key < 'seen!'")
        return {str(aet): str(at) for aet, at in rows}

    def entries_after(self, seq: int, head: str, limit: int) -> list[Sealed]:
        """Entries behind a reader's cursor; JournalMismatch where entry `seq` isn't here with that hash."""
        if seq:
            found = self.query("SELECT hash FROM entries WHERE seq = ?", (seq,))
            if not found:
                raise JournalMismatch(f"entry {seq} is not here; the last one is {self._head[0]}")
            if found[0][0] != head:
                raise JournalMismatch(f"entry {seq} has another hash here")
        rows = self.query("SELECT seq, hash, payload FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        return [Sealed(self.name, *row) for row in rows]

    def wait_beyond(self, seq: int, seconds: float) -> None:
        """Return when there is an entry behind `seq`, when the time is up, or when the journal closes."""
        with self._committed:
            self._committed.wait_for(lambda: self._head[0] > seq or self._closed, seconds)

    def release_readers(self) -> None:
        """Let everybody who waits for new entries go: Orthanc is stopping."""
        with self._committed:
            self._closed = True
            self._committed.notify_all()

    def close(self) -> None:
        self.release_readers()
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    def study_of(self, level: str, orthanc_id: str) -> str | None:
        """The Study Instance UID that a study, series or instance of Orthanc belongs to; None if it isn't recorded."""
        sql = {
            "studies": "SELECT study_uid FROM studies WHERE study_orthanc_id = ?",
            "series": "SELECT study_uid FROM instances WHERE series_orthanc_id = ? LIMIT 1",
            "instances": "SELECT study_uid FROM instances WHERE orthanc_id = ?",
        }[level]
        found = self.query(sql, (orthanc_id,))
        return str(found[0][0]) if found else None

    def patients_of(self, study_uid: str) -> int:
        """How many patients have images under this Study Instance UID, as far as it is recorded."""
        return int(self.query("SELECT count(*) FROM studies WHERE study_uid = ?", (study_uid,))[0][0])


def document(value: Any) -> str:
    """JSON as it stands in a column."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _connect(file: Path) -> sqlite3.Connection:
    # Threads of Orthanc come and go; each connection has its own lock instead.
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    return database
