"""ZIP archives as they lie among images: looked into without believing what they say of themselves.

A bomb unpacks to more than any disk holds, claims members by the million, or packs archives into each other without
end. So all is bounded before it is read: the directory, each member, all of them together, and the nesting. What is
beyond is named as not looked into, and a person unpacks it beside.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO
from zipfile import ZipFile, ZipInfo

from migration.folders.places import Place

#: Bytes of the directory of an archive: room for some 150,000 members.
LARGEST_DIRECTORY = 16 << 20
LARGEST_MEMBER = 2 << 30
#: An archive in an archive is unpacked to a file for a while.
LARGEST_INNER = 1 << 30
#: Deflate packs 1032 to 1 at best; who claims more has members that lie in each other.
_BEST_PACKING = 1100
_PLAUSIBLE = 1 << 30
_TAIL = 65557 + 76
#: Of these a ZIP is a document or a program, and no archive of images.
_DOCUMENTS = {"[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF"}
_IN_MEMORY = 32 << 20
#: What zipfile says of a damaged, locked or unknown archive.
FAULTS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError, ValueError)


class Refused(Exception):
    """It is not looked into; the text says why."""


@contextmanager
def opened(file: IO[bytes]) -> Iterator[ZipFile]:
    """An archive whose bounds are looked at; Refused."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    directory = _directory_size(file.read())
    if directory > LARGEST_DIRECTORY:
        raise Refused(f"its directory has {directory} bytes, {LARGEST_DIRECTORY} are looked at: unpack it beside")
    file.seek(0)
    try:
        archive = ZipFile(file)
    except FAULTS as error:
        raise Refused(f"the archive can't be opened: {error}") from error
    with archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > max(_PLAUSIBLE, _BEST_PACKING * size):
            raise Refused(f"it claims to hold {claimed} bytes in {size}, which no packing does: a bomb")
        yield archive


def is_document(archive: ZipFile) -> bool:
    """Whether it is an office document or a program rather than an archive."""
    return any(member.filename in _DOCUMENTS for member in archive.infolist()[:50])


def members(archive: ZipFile) -> Iterator[tuple[str, ZipInfo]]:
    """Its files by name; a second one of the same name gets its number behind a NUL, which no name has."""
    seen: dict[str, int] = {}
    for member in archive.infolist():
        if member.is_dir():
            continue
        times = seen[member.filename] = seen.get(member.filename, 0) + 1
        yield member.filename if times == 1 else f"{member.filename}\0{times}", member


@contextmanager
def streamed(archive: ZipFile, member: ZipInfo) -> Iterator[IO[bytes]]:
    """One member's bytes; Refused where it may not be, or can't be, read to its end."""
    if member.file_size > LARGEST_MEMBER:
        raise Refused(f"it has {member.file_size} bytes, {LARGEST_MEMBER} are read from an archive: unpack it beside")
    if member.flag_bits & 1:
        raise Refused("it is encrypted: unpack it beside")
    try:
        with archive.open(member) as stream:
            yield stream
    except FAULTS as error:
        raise Refused(f"the archive is damaged there: {error}") from error


@contextmanager
def inner(archive: ZipFile, member: ZipInfo) -> Iterator[ZipFile]:
    """An archive that lies in an archive; Refused."""
    if member.file_size > LARGEST_INNER:
        raise Refused(
            f"the archive in it has {member.file_size} bytes, {LARGEST_INNER} are looked at: unpack it beside"
        )
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as unpacked:
        with streamed(archive, member) as stream:
            while chunk := stream.read(1 << 20):
                unpacked.write(chunk)
        with opened(unpacked) as found:
            yield found


def _directory_size(tail: bytes) -> int:
    """Bytes of the central directory, as the end of the archive says (APPNOTE.TXT 4.3.14 and 4.3.16)."""
    wide, plain = tail.rfind(b"PK\x06\x06"), tail.rfind(b"PK\x05\x06")
    if wide >= 0 and len(tail) >= wide + 56:
        return int.from_bytes(tail[wide + 40 : wide + 48], "little")
    return int.from_bytes(tail[plain + 12 : plain + 16], "little") if plain >= 0 else 0


class Shelf:
    """Members by their place, from one archive at a time that stays open: its directory is read once. Any thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._one = threading.Lock()
        self._place: Place = ()
        self._members: dict[str, ZipInfo] = {}
        self._archive: ZipFile | None = None
        self._open_ones = ExitStack()

    def read(self, place: Place) -> bytes:
        """All bytes of a member; Refused, OSError."""
        with self._one:
            if place[:-1] != self._place:
                self.close()
                self._open(place[:-1])
            assert self._archive is not None
            member = self._members.get(place[-1])
            if member is None:
                raise Refused("the archive has no such member any more")
            with streamed(self._archive, member) as stream:
                return stream.read()

    def close(self) -> None:
        """Let go of the archive."""
        self._open_ones.close()
        self._place, self._archive = (), None

    def _open(self, place: Place) -> None:
        enter = self._open_ones.enter_context
        archive = enter(opened(enter((self._root / place[0]).open("rb"))))
        for name in place[1:]:
            member = dict(members(archive)).get(name)
            if member is None:
                raise Refused("the archive has no such archive in it any more")
            archive = enter(inner(archive, member))
        self._archive, self._members, self._place = archive, dict(members(archive)), place
