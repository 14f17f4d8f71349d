"""Files and index held against each other, in memory that doesn't grow with the archive.

The index's names are sorted into 256 piles by their first two digits, which is also how Orthanc lays out its storage:
each pile is compared with one folder. What the index doesn't know goes into a small database, oldest first.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from operations.progress import Progress

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PILES = [f"{n:02x}" for n in range(256)]
_NAME = 16  # bytes of a name in its pile


class Unusable(Exception):
    """The index can't be read; the text says why and what to do."""


@dataclass(frozen=True)
class Compared:
    """Files (all, and those that the index doesn't know: with content, and empty), and names without a file."""

    files: int
    unknown: int
    empty: int
    missing: int
    spool: Path

    def lost(self) -> Iterator[Path]:
        """The files with content that the index doesn't know, oldest first."""
        yield from self._spooled("size > 0")

    def hollow(self) -> Iterator[Path]:
        """The empty ones."""
        yield from self._spooled("size = 0")

    def _spooled(self, which: str) -> Iterator[Path]:
        with closing(sqlite3.connect(self.spool / "unknown.db")) as database:
            for row in database.execute(f"SELECT path FROM unknown WHERE {which} ORDER BY modified, path"):  # noqa: S608
                yield Path(row[0])


def compare(storage: Path, index: Path, spool: Path, tell: Callable[[str], None]) -> Compared:
    """Hold them against each other; `spool` is a folder of ours for the time being, emptied at first.

    `tell` hears of the progress now and then. Unusable where the index can't be read.
    """
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    known = _sort(index, spool)
    files = unknown = empty = seen = 0
    progress = Progress("comparing files with the index", known, tell)
    with closing(sqlite3.connect(spool / "unknown.db")) as database:
        database.execute("PRAGMA synchronous = OFF")  # it is made anew after a crash
        database.execute(
            "CREATE TABLE unknown (modified INTEGER, path TEXT, size INTEGER, PRIMARY KEY (modified, path))"
            " WITHOUT ROWID"
        )
        for pile in _PILES:
            names = _pile(spool / pile)
            for file in _files(storage / pile):
                files += 1
                if uuid.UUID(file.name).bytes in names:
                    seen += 1
                    continue
                found = file.stat()
                database.execute("INSERT INTO unknown VALUES (?, ?, ?)", (found.st_mtime_ns, str(file), found.st_size))
                unknown, empty = unknown + (found.st_size > 0), empty + (found.st_size == 0)
            progress.at(files)
        database.commit()
    return Compared(files, unknown, empty, known - seen, spool)


def _sort(index: Path, spool: Path) -> int:
    """The names of the index's files, in their piles; how many there are."""
    count = 0
    with ExitStack() as stack:
        piles = {name.encode(): stack.enter_context((spool / name).open("wb")) for name in _PILES}
        if not index.exists():
            return 0
        try:
            with closing(sqlite3.connect(index)) as database:
                for (name,) in database.execute("SELECT uuid FROM AttachedFiles"):
                    piles[name[:2].encode()].write(uuid.UUID(name).bytes)
                    count += 1
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise Unusable(f"the index {index} can't be read: {error}; is an Orthanc still running?") from error
        except sqlite3.DatabaseError as error:
            raise Unusable(
                f"the index {index} is damaged ({error}); move it and its -wal and -shm away: all images are then"
                " ingested again at the next start"
            ) from error
    return count


def _pile(file: Path) -> set[bytes]:
    content = file.read_bytes()
    return {content[n : n + _NAME] for n in range(0, len(content), _NAME)}


def _files(folder: Path) -> Iterator[Path]:
    """The files of one folder of Orthanc's storage: xx/yy/uuid."""
    for second in sorted(folder.glob("[0-9a-f][0-9a-f]")):
        with os.scandir(second) as entries:
            yield from (Path(entry.path) for entry in entries if _UUID.fullmatch(entry.name) and entry.is_file())
