"""Files against the index: what is told apart, in which order, and in how much memory."""

from __future__ import annotations

import os
import sqlite3
import tracemalloc
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from operations import comparing
from operations.progress import Progress


def names(count: int) -> list[str]:
    """File names as Orthanc gives them, the same in each run."""
    return [str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in range(count)]


def put(storage: Path, name: str, content: bytes = b"x") -> Path:
    file = storage / name[:2] / name[2:4] / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def an_index(file: Path, known: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE AttachedFiles (uuid TEXT)")
        database.executemany("INSERT INTO AttachedFiles VALUES (?)", [(one,) for one in known])
        database.commit()
    return file


def test_what_the_index_does_not_know_comes_oldest_first_and_empty_ones_apart(tmp_path: Path):
    known, gone, young, old, empty = names(5)
    index = an_index(tmp_path / "index", [known, gone])
    storage = tmp_path / "storage"
    put(storage, known)
    put(storage, empty, b"")
    newest, oldest = put(storage, young), put(storage, old)
    os.utime(oldest, (1, 1))
    (storage / known[:2] / known[2:4] / "notes.txt").write_text("not Orthanc's")
    found = comparing.compare(storage, index, tmp_path / "spool", lambda _: None)
    assert (found.files, found.unknown, found.empty, found.missing) == (4, 2, 1, 1)
    assert list(found.lost()) == [oldest, newest]
    assert [file.name for file in found.hollow()] == [empty]


def test_without_an_index_all_are_unknown(tmp_path: Path):
    for name in names(3):
        put(tmp_path / "storage", name)
    found = comparing.compare(tmp_path / "storage", tmp_path / "none", tmp_path / "spool", lambda _: None)
    assert (found.unknown, found.missing) == (3, 0)


def test_a_damaged_index_is_said_to_be_damaged(tmp_path: Path):
    (tmp_path / "index").write_bytes(b"no database" * 100)
    with pytest.raises(comparing.Unusable, match="is damaged"):
        comparing.compare(tmp_path / "storage", tmp_path / "index", tmp_path / "spool", lambda _: None)


def test_memory_does_not_grow_with_the_archive(tmp_path: Path):
    peaks = []
    for count in (2_000, 60_000):
        index = an_index(tmp_path / str(count) / "index", names(count))
        tracemalloc.start()
        found = comparing.compare(tmp_path / "storage", index, tmp_path / "spool", lambda _: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.missing == count
    # 256 buffers of files, and one pile: all names at once would be 6 MB more.
    assert peaks[1] - peaks[0] < 300_000, peaks


def test_progress_says_how_many_how_fast_how_long_and_what_failed():
    told: list[str] = []
    times = iter([0.0, 5.0, 10.0, 10.0])
    progress = Progress("copying", 1000, told.append, done=100, monotonic=lambda: next(times))
    progress.at(150)
    progress.at(200, 3)
    assert told == ["copying: 200 of 1,000, 10 a second, about 0:01:20 still, 3 failed"]
