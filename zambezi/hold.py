"""The hold's files: whole objects, named by their SHA-256, on disk before anything relies on them (DESIGN rule 4).

`ZAMBEZI_HOME/hold/<first two digits>/<sha256>.dcm`. Why each lies there is a row of the central database
(zambezi.holding). Standard library only: the plugin writes here, too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


class NotHeld(Exception):
    """The file is not there, or is not what it was; the text says which."""


def path(folder: Path, sha256: str) -> Path:
    """Where the object with this digest lies, or would lie."""
    return folder / sha256[:2] / f"{sha256}.dcm"


def put(folder: Path, content: bytes) -> str:
    """Keep these bytes; they are on disk, under their SHA-256 (which is returned), when this returns. Raises OSError.

    Keeping the same bytes twice keeps them once.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    file = path(folder, sha256)
    if file.exists() and file.stat().st_size == len(content):
        return sha256
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
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


def remove(folder: Path, sha256: str) -> None:
    """Take the file away; only zambezi.holding says when that may be."""
    path(folder, sha256).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
