"""Reading an Orthanc's index while that Orthanc is stopped: read only, and the same tables on either engine.

Orthanc's schema of version 6 is that of 1.10.1 and of 1.12.7; labels came with 1.12. Files are read from the storage.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from zambezi.environment import Environment

LEVELS = ("patients", "studies", "series", "instances")
#: Below, kinds of attachments and metadata are Orthanc's own.
USERS = 1024
_ZLIB = 2


class Unreadable(Exception):
    """The index can't be read; the text says why and what to do."""


@dataclass(frozen=True)
class Row:
    """An instance as the index has it; `md5` is of the uncompressed file, "" where Orthanc kept none."""

    orthanc_id: str
    sop_uid: str
    uuid: str
    compression: int
    size: int
    md5: str


@dataclass(frozen=True)
class Other:
    """What the index has beside DICOM files: metadata, labels, further attachments."""

    level: str
    orthanc_id: str
    what: str  # metadata, label, attachment
    kind: int
    value: str  # of an attachment: its file's name in the storage, and how it is compressed


class Index:
    """A stopped Orthanc's index."""

    def __init__(self, database: Any, streamed: bool) -> None:
        self._database = database
        self._streamed = streamed
        # Orthanc's own SQLite counts levels from 1, its plugin for PostgreSQL from 0.
        self._levels = dict(enumerate(LEVELS, 0 if streamed else 1))

    def instances(self) -> Iterator[Row]:
        """Every instance with its DICOM file (attachment 1, which nothing else has)."""
        md5 = "f.uncompressedHash" if self._streamed else "f.uncompressedMD5"
        sql = (
            f"SELECT r.publicId, t.value, f.uuid, f.compressionType, f.uncompressedSize, {md5}"  # noqa: S608
            " FROM Resources r JOIN AttachedFiles f ON f.id = r.internalId AND f.fileType = 1"
            " LEFT JOIN MainDicomTags t ON t.id = r.internalId AND t.tagGroup = 8 AND t.tagElement = 24"
        )
        for public, sop_uid, uuid, compression, size, digest in self._rows(sql):
            yield Row(public, _bare(sop_uid), uuid, int(compression), int(size), digest or "")

    def others(self) -> Iterator[Other]:
        """Metadata, labels and attachments of every resource, but for the DICOM files."""
        sql = (
            "SELECT r.resourceType, r.publicId, m.type, m.value FROM Metadata m JOIN Resources r ON r.internalId = m.id"
        )
        for level, public, kind, value in self._rows(sql):
            yield Other(self._levels[level], public, "metadata", int(kind), value or "")
        sql = (
            "SELECT r.resourceType, r.publicId, f.fileType, f.uuid, f.compressionType FROM AttachedFiles f"
            " JOIN Resources r ON r.internalId = f.id WHERE f.fileType <> 1"
        )
        for level, public, kind, uuid, compression in self._rows(sql):
            yield Other(self._levels[level], public, "attachment", int(kind), f"{uuid} {compression}")
        if self._has_labels():
            sql = "SELECT r.resourceType, r.publicId, l.label FROM Labels l JOIN Resources r ON r.internalId = l.id"
            for level, public, label in self._rows(sql):
                yield Other(self._levels[level], public, "label", 0, label)

    def arrivals(self) -> Iterator[tuple[int, str, str]]:
        """The rows of /changes that tell of new instances (change type 2), in their order: number, Orthanc id, date."""
        sql = (
            "SELECT c.seq, r.publicId, c.date FROM Changes c JOIN Resources r ON r.internalId = c.internalId"
            " WHERE c.changeType = 2 ORDER BY c.seq"
        )
        for seq, public, date in self._rows(sql):
            yield int(seq), public, date

    def _has_labels(self) -> bool:
        if self._streamed:
            return any(self._rows("SELECT 1 FROM pg_tables WHERE tablename = 'labels'"))
        return any(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND lower(name) = 'labels'"))

    def _rows(self, sql: str) -> Iterator[Any]:
        if self._streamed:
            with self._database.cursor(name="zambezi") as cursor:
                cursor.itersize = 10_000
                yield from cursor.execute(sql)
        else:
            yield from self._database.execute(sql)


@contextmanager
def of_sqlite(file: Path) -> Iterator[Index]:
    """The index in a file; Unreadable where it isn't there or was not closed."""
    if not file.exists():
        raise Unreadable(f"{file} is not there: there is no archive to move")
    if file.with_name(f"{file.name}-wal").exists():
        raise Unreadable(
            f"{file} is not closed: the archive runs, or ended without a clean stop; start it once with the "
            "configuration it had, then `zambezi down`"
        )
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as database:
            yield Index(database, streamed=False)
    except sqlite3.DatabaseError as error:
        raise Unreadable(f"{file} can't be read: {error}") from error


@contextmanager
def of_postgresql(section: Mapping[str, Any]) -> Iterator[Index]:
    """The index that the section PostgreSQL of Orthanc's configuration names; Unreadable where it doesn't answer."""
    try:
        with psycopg.connect(**_target(section)) as database:
            database.read_only = True
            yield Index(database, streamed=True)
    except psycopg.Error as error:
        first = str(error).strip().split("\n")[0]
        raise Unreadable(f"Orthanc's index on PostgreSQL can't be read: {first}") from error


def _target(section: Mapping[str, Any]) -> dict[str, Any]:
    if section.get("ConnectionUri"):
        return {"conninfo": section["ConnectionUri"]}
    names = {"Host": "host", "Port": "port", "Database": "dbname", "Username": "user", "Password": "password"}
    return {ours: section[theirs] for theirs, ours in names.items() if section.get(theirs)}


def content(storage: Path, uuid: str, compression: int) -> bytes:
    """An attachment, uncompressed; OSError or zlib.error where it can't be read."""
    found = (storage / uuid[:2] / uuid[2:4] / uuid).read_bytes()
    return zlib.decompress(found[8:]) if compression == _ZLIB else found  # its size stands before it


def open_index(environment: Environment, section: Mapping[str, Any] | None) -> Any:
    """The index of an installation, by its section PostgreSQL or, where there is none, its file."""
    return of_postgresql(section) if section else of_sqlite(environment.index_dir / "index")


def _bare(value: str | None) -> str:
    return (value or "").rstrip("\0 ")
