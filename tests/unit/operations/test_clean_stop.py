"""The mark of a clean stop: when it lets the comparison of files and index be skipped, and when it must not."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from operations import clean_stop

#: Stands in for Orthanc's program where its exit is all that counts: writes its index, waits, ends as told.
PROGRAM = """#!{python}
import signal, sqlite3, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(open({folder!r} + "/code").read())))
index = sqlite3.connect({folder!r} + "/index/index")
index.execute("CREATE TABLE IF NOT EXISTS AttachedFiles (uuid TEXT)")
index.commit()
index.close()
open({folder!r} + "/up", "w").close()
time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A closed index and a storage."""
    (tmp_path / "index").mkdir()
    (tmp_path / "storage").mkdir()
    with closing(sqlite3.connect(tmp_path / "index" / "index")) as database:
        database.execute("CREATE TABLE AttachedFiles (uuid TEXT)")
    return tmp_path


def leave(place: Path) -> bool:
    return clean_stop.leave(place / "index" / "index", place / "storage")


def take(place: Path) -> str:
    return clean_stop.take(place / "index" / "index", place / "storage")


def test_a_mark_holds_once(place: Path):
    assert leave(place)
    assert take(place) == ""
    assert "no mark" in take(place), "a start that crashed has consumed it"


def test_an_index_that_was_written_since_is_compared(place: Path):
    assert leave(place)
    with closing(sqlite3.connect(place / "index" / "index")) as database:
        database.execute("INSERT INTO AttachedFiles VALUES ('x')")
        database.commit()
    assert "another index" in take(place)


def test_a_restored_copy_of_index_and_mark_is_compared(place: Path):
    assert leave(place)
    shutil.copytree(place / "index", place / "backup", copy_function=shutil.copy2)
    shutil.rmtree(place / "index")
    shutil.copytree(place / "backup", place / "index", copy_function=shutil.copy2)
    assert "another index" in take(place)
    assert not (place / "index" / clean_stop.FILE).exists()


def test_an_index_restored_in_place_with_its_old_times_is_compared(place: Path):
    index = place / "index" / "index"
    assert leave(place)
    before, content = index.stat(), index.read_bytes()
    index.write_bytes(content[:-1] + b"x")
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (index.stat().st_size, index.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert "another index" in take(place)


def test_another_storage_is_compared(place: Path):
    assert leave(place)
    (place / "storage").rename(place / "old")
    (place / "storage").mkdir()
    assert "another index or storage" in take(place)


def test_an_index_that_is_not_closed_is_neither_marked_nor_believed(place: Path):
    wal = place / "index" / "index-wal"
    wal.write_bytes(b"")
    assert not leave(place)
    wal.unlink()
    assert leave(place)
    wal.write_bytes(b"")
    assert "another index" in take(place)


def test_a_mark_that_was_cut_off_is_not_believed(place: Path):
    assert leave(place)
    (place / "index" / clean_stop.FILE).write_bytes(b"")
    assert "can't be read" in take(place)


def test_no_index_no_mark(place: Path):
    (place / "index" / "index").unlink()
    assert not leave(place)
    assert "no index" in take(place)


def test_that_the_mark_is_gone_is_on_disk_before_orthanc_is_started(place: Path, monkeypatch: pytest.MonkeyPatch):
    """A power cut brings back what was unlinked, unless its folder was synced behind it."""
    assert leave(place)
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        of = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((of.name, (place / "index" / clean_stop.FILE).exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    take(place)
    assert synced[-1] == ("index", False)
    synced.clear()
    leave(place)
    assert synced[0] == ("index", False), "the index itself before the mark exists"
    assert synced[-1] == ("index", True), "and the folder with the mark"


@pytest.mark.parametrize(
    ("how", "number", "marked"), [("ends by itself", 0, True), ("ends with a fault", 3, False), ("killed", -9, False)]
)
def test_only_an_end_by_itself_with_code_0_is_marked(place: Path, how: str, number: int, marked: bool):
    program = place / "Orthanc"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(place)))
    program.chmod(0o700)
    (place / "code").write_text(str(max(number, 0)))
    keeper = subprocess.Popen(
        [sys.executable, "-m", "operations.keeper", str(program), "x", str(place / "index" / "index"),
         str(place / "storage")]
    )  # fmt: skip
    try:
        _until_up(place)
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
        if number < 0:
            os.kill(int(children[0]), signal.SIGKILL)
        else:
            keeper.terminate()
        assert keeper.wait(20) == (128 + 9 if number < 0 else number)
    finally:
        keeper.kill()
    assert (take(place) == "") is marked


def test_orthanc_dies_with_its_keeper(place: Path):
    program = place / "Orthanc"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(place)))
    program.chmod(0o700)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "operations.keeper", str(program), "x", str(place / "index" / "index"),
         str(place / "storage")]
    )  # fmt: skip
    _until_up(place)
    (child,) = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    keeper.kill()
    keeper.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < deadline, "it goes on without anybody who sees its end"
        time.sleep(0.05)
    assert "no mark" in take(place)


def _until_up(place: Path) -> None:
    deadline = time.monotonic() + 20
    while not (place / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
