"""Reading one file, or one member of an archive, to its end: what it is, whose it is, the MD5 of its bytes.

A DICOM file is read whole, once, so that its inventory shows what the medium can still give, and knows the bytes by
which the copy in the archive is proven. Of any other file the beginning alone is read, and nothing is tried again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZipFile

from migration.folders import archives, looking
from migration.folders.places import Place, written
from migration.folders.walking import DIRECTORY, Entry

_CHUNK = 1 << 20
#: Of a larger file the beginning alone is taken apart.
_TAKEN_APART = 32 << 20


@dataclass(frozen=True)
class Seen:
    """One file as it was found. `kind` and `reason`: as the table FolderFile has them."""

    place: Place
    size: int
    changed: int
    kind: str
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    syntax: str = ""
    md5: str = ""
    medium: str | None = None


class Changed(Exception):
    """The file changed while it was read, or since it was read."""


def see(root: Path, entry: Entry) -> Seen:
    """Read an entry of a walk; never raises for what one file is like."""
    place = (entry.path,)
    if entry.kind != "file":
        return Seen(place, 0, 0, entry.kind, entry.reason)
    try:
        with open_file(root / entry.path) as file:
            seen = _see(file, Seen(place, entry.size, entry.changed, "unread", medium=entry.medium))
            if _state(file) != (entry.size, entry.changed):
                return replace(
                    seen, kind="changing", reason="it changed while it was read; the next walk reads it again"
                )
            return seen
    except OSError as error:
        return Seen(place, entry.size, entry.changed, "unread", f"it can't be read: {error.strerror}")


def members(root: Path, archive: Seen) -> Iterator[Seen]:
    """What lies in a ZIP archive and in the archives in it, one after the other; at last the archive itself.

    Where it can't be looked into the archive itself says why, as unread. A document is `other`, and has no members.
    """
    try:
        with open_file(root / archive.place[0]) as file, archives.opened(file) as opened:
            if archives.is_document(opened):
                yield replace(archive, kind="other")
                return
            yield from _members(opened, archive)
            if _state(file) != (archive.size, archive.changed):
                yield replace(
                    archive, kind="changing", reason="it changed while it was read; the next walk reads it again"
                )
                return
    except archives.Refused as refused:
        yield replace(archive, kind="unread", reason=str(refused))
    except OSError as error:
        yield replace(archive, kind="unread", reason=f"it can't be read: {error.strerror}")
    else:
        yield archive


def bytes_of(root: Path, place: Place, size: int, changed: int) -> bytes:
    """All bytes of a plain file that is still as it was; Changed, OSError."""
    with open_file(root / place[0]) as file:
        if _state(file) != (size, changed):
            raise Changed("the file has changed since the inventory")
        content = file.read()
        if _state(file) != (size, changed) or len(content) != size:
            raise Changed("the file changed while it was read")
        return content


def open_file(path: Path) -> IO[bytes]:
    """Open what is still a file: no link is followed, no pipe waited for; OSError."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _state(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _members(opened: ZipFile, archive: Seen) -> Iterator[Seen]:
    found = list(archives.members(opened))
    media = {PurePosixPath(name).parent for name, _ in found if PurePosixPath(name).name.lower() == DIRECTORY}
    for name, member in found:
        place = (*archive.place, name)
        above = next((folder for folder in PurePosixPath(name).parents if folder in media), None)
        medium = None if above is None else written((*archive.place, "" if str(above) == "." else str(above)))
        seen = Seen(place, member.file_size, archive.changed, "unread", medium=medium)
        try:
            with archives.streamed(opened, member) as stream:
                seen = _see(stream, seen)
            if seen.kind == "archive" and len(archive.place) > 1:
                seen = replace(seen, kind="packed", reason="an archive in an archive in an archive: unpack it beside")
            elif seen.kind == "archive":
                with archives.inner(opened, member) as inside:
                    if archives.is_document(inside):
                        seen = replace(seen, kind="other")
                    else:
                        yield from _members(inside, seen)
        except archives.Refused as refused:
            seen = replace(seen, kind="unread", reason=str(refused))
        yield seen


def _see(stream: IO[bytes], blank: Seen) -> Seen:
    first = stream.read(looking.FIRST)
    if not looking.may_be_dicom(first):
        look = looking.look(first, len(first) >= blank.size)
        return replace(blank, kind=look.kind, reason=look.remark)
    md5 = hashlib.md5(first, usedforsecurity=False)
    begin = bytearray(first)
    while chunk := stream.read(_CHUNK):
        md5.update(chunk)
        if len(begin) < _TAKEN_APART:
            begin += chunk
    look = looking.look(bytes(begin), len(begin) >= blank.size)
    return replace(
        blank, kind=look.kind, reason=look.remark, facts=dict(look.facts), syntax=look.syntax,
        md5="" if look.kind == "other" else md5.hexdigest(),
    )  # fmt: skip
