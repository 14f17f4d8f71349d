"""The mark of a clean stop: Orthanc ended by itself, and its index has every file that it answered Success for.

Comparing all files with the index takes minutes where there are millions, so it is done only where it may find
something. The mark lies beside the index and holds for that one alone: it names the file (inode, size, times, also the
one that no program can set) as it was when Orthanc had closed it, and the folder of the storage. Whatever can't be
shown to be the same is compared. Standard library only: `operations.keeper` is small.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from zambezi import durable

FILE = "zambezi-clean-stop"


def leave(index: Path, storage: Path) -> bool:
    """Mark that Orthanc ended with exit code 0, once what it wrote is on disk; False where there is no SQLite index."""
    if not index.exists():
        return False
    descriptor = os.open(index, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    durable.sync(index.parent)
    seen = _seen(index, storage)
    if seen is None:
        return False
    durable.replace(index.parent / FILE, json.dumps(seen).encode())
    return True


def take(index: Path, storage: Path) -> str:
    """Take the mark away, and say why files and index must be compared; "" where they need not be.

    That it is gone is on disk when this returns, so before Orthanc is started: a power cut can't bring it back.
    """
    mark = index.parent / FILE
    try:
        content = mark.read_bytes()
    except FileNotFoundError:
        return "there is no mark of a clean stop" if index.exists() else "there is no index"
    mark.unlink()
    durable.sync(index.parent)
    try:
        left = json.loads(content)
    except ValueError:
        return "the mark of a clean stop can't be read"
    if left is None or left != _seen(index, storage):
        return "the mark of a clean stop was left for another index or storage (a restored backup?)"
    return ""


def _seen(index: Path, storage: Path) -> dict[str, Any] | None:
    """The index as it lies there; None where it isn't closed or isn't there."""
    if index.with_name(f"{index.name}-wal").exists():
        return None
    try:
        found, files = index.stat(), storage.stat()
    except FileNotFoundError:
        return None
    return {
        "inode": found.st_ino, "size": found.st_size, "modified": found.st_mtime_ns, "changed": found.st_ctime_ns,
        "storage": files.st_ino,
    }  # fmt: skip
