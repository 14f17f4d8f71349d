"""Files that survive the mains: replaced whole or not at all, on disk once the call returns. Standard library only."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(file: Path, content: bytes) -> None:
    """The file has the old content or the new one, whatever happens, and the new one once this returns.

    It is its owner's alone (mode 0600); its folder is made where there is none. Raises OSError.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two writers of one file, as of the same bytes in the hold, don't write into each other's.
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    sync(file.parent)


def sync(folder: Path) -> None:
    """What was added to, or taken from, a folder (or written to a file) is on disk once this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """One process and thread at a time in this folder; the folder is made where there is none.

    The lock's descriptor: who hands it on to a child keeps others out until that child has ended, too.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
