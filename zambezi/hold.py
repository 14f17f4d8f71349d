"""The hold's files: whole objects, named by their SHA-256, on disk before anything relies on them (DESIGN rule 4).

`ZAMBEZI_HOME/hold/<first two digits>/<sha256>.dcm`. Why each lies there is a row of the central database
(zambezi.holding). Standard library only: the plugin writes here, too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path


class NotHeld(Exception):
    """The file is not there, or is not what it was; the text says which."""


def path(folder: Path, sha256: str) -> Path:
    """Where the object with this digest lies, or would lie."""
    return folder / sha256[:2] / f"{sha256}.dcm"


def put(folder: Path, content: bytes) -> str:
    """Keep these bytes; they are on disk, under their SHA-256 (which is returned), when this returns. Raises OSError.

    Keeping the same bytes twice keeps them once; the file's time then says when they were put last.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    file = path(folder, sha256)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            os.utime(file)
            _sync(file.parent)
            return sha256
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
    for changed in (file.parent, folder):
        _sync(changed)
    return sha256


def get(folder: Path, sha256: str) -> bytes:
    """The bytes, whose digest was looked at; NotHeld where they are not there or not the same any more."""
    try:
        content = path(folder, sha256).read_bytes()
    except FileNotFoundError as error:
        raise NotHeld(f"{sha256} is not in the hold") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NotHeld(f"{sha256} is in the hold, but its bytes have changed")
    return content


def remove(folder: Path, sha256: str, untouched_since: datetime) -> bool:
    """Take the file away, unless it was put (again) after that moment; whether it is gone.

    Only zambezi.holding says when that may be. Who puts bytes that are there already makes the file young again: a
    row of theirs, which is still to come, will find it.
    """
    file = path(folder, sha256)
    with _alone(folder):
        if not file.exists():
            return True
        if file.stat().st_mtime > untouched_since.timestamp():
            return False
        file.unlink()
    _sync(file.parent)
    return True


def files(folder: Path) -> Iterator[Path]:
    """Every object's file, in the order of digests; what is just being written isn't one yet."""
    yield from sorted(folder.glob("[0-9a-f][0-9a-f]/*.dcm"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody looks whether a file is there while somebody takes it away."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
