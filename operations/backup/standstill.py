"""Locks between a backup and the processes: the stop of Orthanc for its index, custody's pause, one backup at a time.

All are locks of open files, which end with the process that holds them: a backup that is killed stops nobody.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from operations import leftovers
from operations.backup.repository import BackupFault, Say
from zambezi.environment import Environment

#: Orthanc finishes what it has accepted; and so long it may take until it is back, recovery included.
_STOP_S = 90.0
_BACK_S = 900.0


@contextmanager
def one_at_a_time(environment: Environment) -> Iterator[None]:
    """One backup, drill or restore of this installation at a time; BackupFault where one runs."""
    with _held(environment.backup_dir / "running", fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
        if not is_ours:
            raise BackupFault("a backup of this installation runs already; wait until it is done")
        yield


def is_running(environment: Environment) -> bool:
    """Whether a backup, drill or restore runs now."""
    file = environment.backup_dir / "running"
    if not file.exists():
        return False
    with _held(file, fcntl.LOCK_SH | fcntl.LOCK_NB) as is_free:
        return not is_free


@contextmanager
def nothing_leaves(environment: Environment) -> Iterator[None]:
    """While databases and files are copied, custody moves and deletes nothing: what the index names must be there."""
    with _held(environment.backup_dir / "copying", fcntl.LOCK_EX):
        yield


@contextmanager
def may_move(environment: Environment) -> Iterator[bool]:
    """For who moves or deletes files of the archive: False while a backup copies them."""
    with _held(environment.backup_dir / "copying", fcntl.LOCK_SH | fcntl.LOCK_NB) as is_free:
        yield is_free


def wait_for_copy(environment: Environment) -> None:
    """For the archive, before it starts Orthanc: wait while a backup copies the index."""
    with _held(environment.backup_dir / "index", fcntl.LOCK_SH):
        pass


@contextmanager
def orthanc_stopped(environment: Environment) -> Iterator[float | None]:
    """Stop Orthanc, and hold its next start up until the block is left; when it was asked to stop (monotonic).

    Whoever supervises it starts it again at once: it then waits in `wait_for_copy`. None where it didn't run.
    """
    with _held(environment.backup_dir / "index", fcntl.LOCK_EX):
        asked: float | None = None
        begun = time.monotonic()
        first = [one for one in leftovers.find(environment) if one.name == "orthanc"]
        if first:
            asked = begun
            leftovers.ask(first, environment)
        while any(leftovers.is_alive(one.pid) for one in first):
            if time.monotonic() - begun > _STOP_S:
                raise BackupFault(f"Orthanc didn't stop within {_STOP_S:.0f} s; the index was not copied")
            time.sleep(0.02)
        yield asked


def wait_until_back(environment: Environment, asked: float, say: Say) -> float | None:
    """Seconds from the stop until modalities are let in again; None if they aren't after a quarter of an hour."""
    told = False
    while time.monotonic() - asked < _BACK_S:
        try:
            socket.create_connection(("127.0.0.1", environment.ports.dicom), timeout=2).close()
        except OSError:
            if not told and time.monotonic() - asked > 60:
                say("  Orthanc is not back yet; the end of logs/orthanc.log says why")
                told = True
            time.sleep(0.05)
        else:
            return time.monotonic() - asked
    return None


def who_stores(environment: Environment) -> str:
    """The study that is coming in, as a sentence; "" where none is. The plugin's completeness clock says it."""
    try:
        with closing(sqlite3.connect(f"file:{environment.journal_file}?mode=ro", uri=True, timeout=30)) as journal:
            found = journal.execute(
                "SELECT c.last_at, (SELECT i.remote_aet FROM instances i WHERE i.study_orthanc_id = c.study_orthanc_id"
                " ORDER BY i.change_seq DESC LIMIT 1) FROM clocks c ORDER BY c.last_at DESC LIMIT 1"
            ).fetchone()
    except sqlite3.OperationalError:
        return ""  # no journal yet: nothing was ever stored
    return f"{found[1] or 'somebody'} is storing (last image at {found[0][:19]} UTC)" if found else ""


@contextmanager
def _held(file: Path, how: int) -> Iterator[bool]:
    """A lock of a file; False where it is somebody else's and `how` doesn't wait."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
