"""Every file below a folder, in the order of names, folder by folder; what can't be read is named, not left out.

Symbolic links aren't followed: what they lead to inside is met where it lies, and what lies outside is no part of the
source (a stick from a stranger must not lead us through this machine). So there are no loops.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from migration.folders.places import written

#: The name of a DICOMDIR (PS3.10 8.6), in lower case.
DIRECTORY = "dicomdir"


@dataclass(frozen=True)
class Entry:
    """One file as the folder shows it: its path below the root (os.fsdecode), bytes, time of change in nanoseconds.

    unread: not even that is known; `reason` says why it is not read, in words. `medium`: the nearest folder above it
    (as migration.folders.places writes it) that has a DICOMDIR.
    """

    path: str
    size: int = 0
    changed: int = 0
    kind: Literal["file", "link", "special", "unread"] = "file"
    reason: str = ""
    medium: str | None = None


def walk(root: Path) -> Iterator[Entry]:
    """Each of them; OSError where the root itself can't be read."""
    left: list[tuple[str, str | None]] = [("", None)]
    while left:
        folder, medium = left.pop()
        try:
            with os.scandir(root / folder) as listing:
                found = sorted(listing, key=lambda one: one.name)
        except OSError as error:
            if not folder:
                raise
            yield Entry(folder + "/", kind="unread", reason=f"the folder can't be read: {error.strerror}")
            continue
        if any(one.name.lower() == DIRECTORY for one in found):
            medium = written((folder,))
        below = []
        for one in found:
            path = f"{folder}/{one.name}" if folder else one.name
            if one.is_dir(follow_symlinks=False):
                below.append((path, medium))
            else:
                yield _entry(one, path, medium)
        left += reversed(below)


def _entry(one: os.DirEntry[str], path: str, medium: str | None) -> Entry:
    try:
        found = one.stat(follow_symlinks=False)
    except OSError as error:
        return Entry(path, kind="unread", reason=f"nothing can be learned of it: {error.strerror}")
    if stat.S_ISLNK(found.st_mode):
        return Entry(path, kind="link", reason="a symbolic link, which isn't followed")
    if not stat.S_ISREG(found.st_mode):
        return Entry(path, kind="special", reason="a device, pipe or socket, which isn't opened")
    return Entry(path, found.st_size, found.st_mtime_ns, medium=medium)
