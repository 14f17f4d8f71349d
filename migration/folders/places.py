"""Where a file of a source lies, as text that any database takes and any terminal shows, and back again.

A place is one part for each wrapping: the path below the source's folder, then the name inside a ZIP archive, and
inside one that lies in it. Names on old media are bytes in an encoding that nobody remembers: what isn't plain is
written as \\xHH.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

Place = tuple[str, ...]

_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


def written(place: Sequence[str]) -> str:
    """`cd1/export.zip|IM0001`; parts as Python has them (os.fsdecode)."""
    return "|".join(_plain(part) for part in place)


def read(text: str) -> Place:
    """What `written` wrote."""
    return tuple(
        os.fsdecode(_BYTE.sub(lambda found: bytes([int(found[1], 16)]), part.encode())) for part in text.split("|")
    )


def key(text: str) -> str:
    """A name of fixed length for a place as `written`: SHA-256, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def extension(place: Sequence[str]) -> str:
    """What its name ends in, in lower case without the dot; "" for none, or for one that is too long to be one."""
    ending = PurePosixPath(place[-1]).suffix[1:].lower()
    return ending if ending.isascii() and ending.isalnum() and len(ending) <= 8 else ""


def _plain(part: str) -> str:
    return "".join(
        one if one.isprintable() and one not in "\\|" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(one))
        for one in part
    )


def folder(text: str) -> str:
    """Where a place as `written` lies: the folder, or the archive ("" for the source's own folder)."""
    return text[: max(text.rfind("/"), text.rfind("|"), 0)]
