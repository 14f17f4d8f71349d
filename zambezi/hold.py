"""The hold's files: whole objects, named by their SHA-256, on disk before anything relies on them (DESIGN rule 4).

`ZAMBEZI_HOME/hold/<first two digits>/<sha256>.dcm`. Why each lies there is a row of the central database
(zambezi.holding). Standard library only: the plugin writes here, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from zambezi import durable


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
    with durable.alone(folder):
        if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            os.utime(file)
            durable.sync(file.parent)
            return sha256
    durable.replace(file, content)
    durable.sync(folder)
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
    with durable.alone(folder):
        if not file.exists():
            return True
        if file.stat().st_mtime > untouched_since.timestamp():
            return False
        file.unlink()
    durable.sync(file.parent)
    return True


def leave_note(folder: Path, sha256: str, facts: Mapping[str, str]) -> None:
    """Say, on disk, why a file lies here, where the central database can't be asked; custody makes a row of it."""
    name = f"{sha256}.{hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]}.json"
    durable.replace(folder / "notes" / name, json.dumps({"sha256": sha256, **facts}).encode())
    durable.sync(folder)


def notes(folder: Path) -> list[Path]:
    """The notes that nobody has made a row of yet."""
    return sorted((folder / "notes").glob("*.json"))


def files(folder: Path) -> Iterator[Path]:
    """Every object's file, in the order of digests; what is just being written isn't one yet."""
    yield from sorted(folder.glob("[0-9a-f][0-9a-f]/*.dcm"))
