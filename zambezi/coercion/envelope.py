"""How the gateway's coercing port hands an image over to the archive: as a DICOM file that says who sent it.

An HTTP request tells neither sender nor address. The meta header does (PS3.10 7.1): Source and Receiving Application
Entity Title, Source Presentation Address. The Private Information (0002,0102) of ours says that no rule has seen the
image yet; the plugin takes it away before Orthanc stores anything, so that what is stored is never coerced again,
however it comes back. Standard library only: the plugin reads it for whatever comes by HTTP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CREATOR = b"2.25.196004680500245238012051130958274011128"
_MARK = b"to be coerced "
_IMPLEMENTATION = b"2.25.262654381685134563071044704972659211176"
_LONGEST = 1024  # the meta header of ours is shorter

_LENGTH, _SOURCE, _CREATOR_TAG, _PRIVATE = 0x0000, 0x0016, 0x0100, 0x0102
_LONG = (b"OB", b"UR")


class NoEnvelope(ValueError):
    """The meta header isn't one of ours."""


def wrap(
    data_set: bytes, sop_class: str, sop_uid: str, transfer_syntax: str, calling_aet: str, called_aet: str, address: str
) -> bytes:
    """The file of an image that came by C-STORE; `data_set` is what was received, byte by byte."""
    meta = b"".join(
        (
            _written(0x0001, b"OB", b"\0\1"),
            _written(0x0002, b"UI", sop_class.encode("ascii", "replace")),
            _written(0x0003, b"UI", sop_uid.encode("ascii", "replace")),
            _written(0x0010, b"UI", transfer_syntax.encode("ascii", "replace")),
            _written(0x0012, b"UI", _IMPLEMENTATION),
            _written(0x0013, b"SH", b"ZAMBEZI"),
            _written(_SOURCE, b"AE", calling_aet.encode("ascii", "replace")),
            _written(0x0018, b"AE", called_aet.encode("ascii", "replace")),
            _written(0x0026, b"UR", address.encode("ascii", "replace")),
            _written(_CREATOR_TAG, b"UI", _CREATOR),
            _written(_PRIVATE, b"OB", _MARK),
        )
    )
    return bytes(128) + b"DICM" + _written(_LENGTH, b"UL", struct.pack("<I", len(meta))) + meta + data_set


def is_wrapped(content: bytes) -> bool:
    """Whether the file carries our mark."""
    return _CREATOR in content[:_LONGEST]


def unwrap(content: bytes) -> tuple[bytes, str]:
    """The file without the mark, and the sender's AE title; NoEnvelope where the meta header isn't ours."""
    kept, sender, end = b"", "", 0
    for number, value, begin, end in _elements(content):
        if number == _SOURCE:
            sender = value.decode("ascii", "replace").strip(" \0")
        if number not in (_LENGTH, _CREATOR_TAG, _PRIVATE):
            kept += content[begin:end]
    if not sender:
        raise NoEnvelope("the meta header names no sender")
    return content[:132] + _written(_LENGTH, b"UL", struct.pack("<I", len(kept))) + kept + content[end:], sender


def _written(number: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    if vr in _LONG:
        return struct.pack("<HH2s2xI", 2, number, vr, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _elements(content: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """(element number, value, begin, end) of each element of the meta header."""
    at = 132
    try:
        while content[at : at + 2] == b"\2\0":
            (number, vr, length), value = struct.unpack_from("<H2sH", content, at + 2), at + 8
            if vr in _LONG:
                ((length,), value) = struct.unpack_from("<I", content, at + 8), at + 12
            yield number, content[value : value + length], at, value + length
            at = value + length
    except struct.error as error:
        raise NoEnvelope(f"the meta header is cut off: {error}") from error
