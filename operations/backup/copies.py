"""Copies of databases while they are used: SQLite by its online backup, PostgreSQL by pg_dump from one snapshot.

Orthanc's index on SQLite can't be copied while Orthanc runs (operations.backup.standstill).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import conninfo, sql

from operations.backup.repository import BackupFault
from operations.recovery import die_with_parent

#: Who holds a SQLite file for so long doesn't let go of it.
_BUSY_S = 60.0
_PAGES = 4096
_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

#: Every attachment that Orthanc has, by the names of the files: of which sort (1: DICOM), whose, its size and digest on
#: disk, under which name. The two engines' indexes name the digest otherwise.
_ATTACHMENTS: LiteralString = (
    "SELECT f.fileType, r.publicId, COALESCE(d.value, ''), f.compressedSize, COALESCE(f.{}, ''), f.uuid"
    " FROM AttachedFiles f JOIN Resources r ON r.internalId = f.id"
    " LEFT JOIN DicomIdentifiers d ON d.id = f.id AND d.tagGroup = 8 AND d.tagElement = 24 ORDER BY f.uuid"
)
SQLITE_ATTACHMENTS = _ATTACHMENTS.format("compressedMD5")
POSTGRES_ATTACHMENTS: LiteralString = _ATTACHMENTS.format("compressedHash") + ' COLLATE "C"'


def sqlite_copy(source: Path, target: Path) -> None:
    """Copy a SQLite file as it is at one moment; writers go on. BackupFault where somebody keeps it locked."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.unlink(missing_ok=True)
    began = time.monotonic()

    def waited(status: int, _remaining: int, _total: int) -> None:
        if status in _SQLITE_BUSY and time.monotonic() - began > _BUSY_S:
            raise BackupFault(f"{source} is locked by another process; `zambezi status` shows what runs")

    os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        with closing(sqlite3.connect(source, timeout=30)) as there, closing(sqlite3.connect(target)) as here:
            there.execute("BEGIN")
            there.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on one moment is seen
            there.backup(here, pages=_PAGES, progress=waited, sleep=0.25)
            here.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        raise BackupFault(f"{source} can't be copied: {error}") from error


def sqlite_counts(file: Path) -> dict[str, int]:
    """Rows of every table."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        names = [
            str(row[0])
            for row in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            )
        ]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608  names from the schema


def sqlite_rows(file: Path, query: str) -> Iterator[Sequence[Any]]:
    """The rows of a query."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        yield from database.execute(query)


@dataclass(frozen=True)
class Postgres:
    """A database of PostgreSQL, as libpq's keywords."""

    keywords: Mapping[str, str]

    @classmethod
    def of_url(cls, url: str) -> Postgres:
        return cls({key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value})

    @classmethod
    def of_index(cls, orthanc: Mapping[str, Any]) -> Postgres | None:
        """Where Orthanc's index lies (its section PostgreSQL); None: on SQLite."""
        section = orthanc.get("PostgreSQL")
        if not isinstance(section, Mapping) or not section.get("EnableIndex", True):
            return None
        uri = str(section.get("ConnectionUri", ""))
        if uri:
            return cls.of_url(uri)
        keys = {"Host": "host", "Port": "port", "Database": "dbname", "Username": "user", "Password": "password"}
        return cls({ours: str(section[theirs]) for theirs, ours in keys.items() if section.get(theirs)})

    @property
    def name(self) -> str:
        return f"{self.keywords.get('dbname', '?')} at {self.keywords.get('host', 'this machine')}"

    def to(self, database: str) -> Postgres:
        """The same server, another database."""
        return Postgres({**self.keywords, "dbname": database})

    def connect(self, autocommit: bool = False) -> psycopg.Connection[Any]:
        """A connection; BackupFault with the server's own word where there is none."""
        try:
            return psycopg.connect(autocommit=autocommit, connect_timeout=20, **self.keywords)  # type: ignore[arg-type]  # libpq's keywords are text
        except psycopg.Error as error:
            raise BackupFault(f"the database {self.name} doesn't answer: {_first(str(error))}") from error

    @contextmanager
    def frozen(self) -> Iterator[tuple[psycopg.Connection[Any], str]]:
        """A connection that sees one moment, and the name by which pg_dump sees the same."""
        with self.connect() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = connection.execute("SELECT pg_export_snapshot()").fetchone()
            assert found is not None
            yield connection, str(found[0])

    def dump(self, snapshot: str, target: Path) -> None:
        """Write the database as it was at that moment; uncompressed, so that restic finds what stayed the same."""
        self._program("pg_dump", "--format=custom", "--compress=0", f"--snapshot={snapshot}", f"--file={target}")

    def put_back(self, dump: Path) -> None:
        """Fill an empty database from a dump, all or nothing."""
        self._program(
            "pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-comments",
            dump=dump,
        )  # fmt: skip

    def _program(self, name: str, *words: str, dump: Path | None = None) -> None:
        program = shutil.which(name)
        if not program:
            raise BackupFault(f"{name} is not installed; as root: apt-get install postgresql-client")
        # The password goes by the environment: everybody sees a command line.
        open_part = {key: value for key, value in self.keywords.items() if key != "password"}
        environ = dict(os.environ)
        if "password" in self.keywords:
            environ["PGPASSWORD"] = self.keywords["password"]
        command = [program, "--dbname", conninfo.make_conninfo(**open_part), *words, *([str(dump)] if dump else [])]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=False, preexec_fn=die_with_parent
        )
        if done.returncode:
            raise BackupFault(f"{name} of the database {self.name} failed: {_first(done.stderr)}")

    def is_empty(self) -> bool:
        """Whether nothing was ever made in it."""
        with self.connect() as connection:
            return not _tables(connection)


def postgres_counts(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Rows of every table."""
    counted = {}
    for name in _tables(connection):
        found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
        counted[name] = int(found[0]) if found else 0
    return counted


def postgres_rows(connection: psycopg.Connection[Any], query: LiteralString) -> Iterator[Sequence[Any]]:
    """The rows of a query, a few thousand at a time."""
    with connection.cursor(name="rows") as cursor:
        cursor.itersize = 5000
        yield from cursor.execute(query)


def _tables(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [str(row[0]) for row in rows]


def _first(complaint: str) -> str:
    return next((line.strip() for line in complaint.splitlines() if line.strip()), "no reason given")
