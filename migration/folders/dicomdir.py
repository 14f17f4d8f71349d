"""What a DICOMDIR says that lies beside it (PS3.3 F.3, PS3.10 8.6). Pure.

It is a claim: files are copied without it, named after it was written, and left out by burning software that ran out of
room. So it is compared with what is there, in both directions.
"""

from __future__ import annotations

from zambezi import elements
from zambezi.elements import Coding, NotFaithful

_RECORDS, _FILE, _IN_USE = 0x00041220, 0x00041500, 0x00041410
_INACTIVE = b"\0\0"
#: PS3.10 8.6 wants explicit VR little endian; others are met.
_CODINGS = {"1.2.840.10008.1.2": elements.IMPLICIT, "1.2.840.10008.1.2.2": Coding(False, ">")}


class Unreadable(ValueError):
    """The DICOMDIR can't be taken apart; the text says why."""


def named(content: bytes) -> list[str]:
    """The files that it refers to, relative to its own folder, with "/", as it writes them; in their order."""
    try:
        meta = elements.head(content)
        syntax = next((one.value for one in meta if one.tag == 0x00020010), b"").decode("ascii", "replace")
        coding = _CODINGS.get(syntax.rstrip("\0 "), elements.EXPLICIT)
        walked = elements.walk(content, meta[-1].end, len(content), coding)
        records = next((one for one in walked if one.tag == _RECORDS), None)
        found = elements.items(records) if records else []
    except NotFaithful as error:
        raise Unreadable(str(error)) from error
    names = []
    for item in found:
        told = {one.tag: one.value for one in item if one.tag in (_FILE, _IN_USE)}
        name = told.get(_FILE, b"").decode("latin-1").strip("\0 ")
        if name and told.get(_IN_USE) != _INACTIVE:
            names.append("/".join(part.strip() for part in name.split("\\")))
    return names


def plain(name: str) -> str:
    """A name as media vary it: case, and the version and the dot that ISO 9660 puts behind it, don't count."""
    return "/".join(part.partition(";")[0].rstrip(".") for part in name.lower().split("/"))
