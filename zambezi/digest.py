"""The canonical digest: of what a DICOM object says, whatever its encoding, so that two copies can be compared.

Between two archives no file stays the same bytes: meta header, VR form, lengths and padding are written anew by every
sender (PS3.5). Equal here are two objects whose elements hold the same value bytes. What is ignored, what never, and
why: docs/decisions/0009-the-canonical-digest.md.

The digest rests on value bytes only and never decodes a value, so text that can't be decoded is no obstacle. What a
value is taken for depends on its tag and on its bytes, not on its VR: a VR may be lost on the way. The reader is our
own, so that no release of another program's reader or dictionary changes digests that certificates hold for years;
it hashes while it reads, in memory that doesn't grow with the object.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

#: Begins what is hashed; another rule of what is ignored needs another name, for certificates hold digests for years.
RULES = b"zambezi canonical digest 2\n"

_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_GE_PRIVATE = "1.2.840.113619.5.2"  # implicit VR
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")

_UNDEFINED = 0xFFFFFFFF
_SOP_UID = 0x00080018
_PIXEL_DATA = 0x7FE00010
_EXTENDED_OFFSETS = (0x7FE00001, 0x7FE00002)
_TRAILING_PADDING = 0xFFFCFFFC
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
#: A VR of these has two bytes for its length, any other four behind two reserved ones (PS3.5 7.1.2).
_SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_TEXT = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())
#: Bytes of one number in each VR whose values have a byte order (PS3.5 7.3), by the array code that swaps them.
_SWAP = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), "H"),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), "I"),
    **dict.fromkeys((b"FD", b"OD", b"SV", b"UV", b"OV"), "Q"),
}
_CHUNK = 1 << 20
_DEEPEST = 64  # sequences in sequences; more is an attack or a fault
_LONGEST_UID = 1024  # 64 by PS3.5 6.2; who is wrong is named with what he says
_MOST_INFLATED = 1 << 32


class Unreadable(ValueError):
    """The bytes are not a DICOM object that can be taken apart to the end."""


class CutOff(Unreadable):
    """The bytes end before the object does: it was not written, or not sent, to its end."""


@dataclass(frozen=True)
class Fingerprint:
    """The digest of one object (lower-case hex SHA-256) and, for naming differences, one of each top-level element."""

    sop_uid: str
    transfer_syntax: str
    digest: str
    elements: dict[str, str]


def fingerprint(source: bytes | Path) -> Fingerprint:
    """Take the fingerprint of a DICOM file, or of its bytes; raises Unreadable, and OSError where the disk fails."""
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        return _fingerprint(stream)


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """The top-level tags whose content differs, as (gggg,eeee); no values."""
    tags = sorted(one.elements.keys() | other.elements.keys())
    return [tag for tag in tags if one.elements.get(tag) != other.elements.get(tag)]


def _fingerprint(stream: IO[bytes]) -> Fingerprint:
    form, syntax, begin = _meta(stream)
    if syntax in _DEFLATED:
        with tempfile.SpooledTemporaryFile(max_size=8 * _CHUNK) as inflated:
            _inflate(stream, begin, inflated)
            return _of_data_set(inflated, 0, form, syntax)
    return _of_data_set(stream, begin, form, syntax)


def _of_data_set(stream: IO[bytes], begin: int, form: _Form, syntax: str) -> Fingerprint:
    reader = _Reader(stream, syntax)
    elements = {_name(tag): part.hex() for tag, part in reader.data_set(begin, reader.size, form)}
    if reader.sop_uid is None:
        raise Unreadable("not a DICOM object: it has no SOP Instance UID")
    whole = hashlib.sha256(RULES)
    for name, part in elements.items():
        whole.update(f"{name}={part}\n".encode())
    return Fingerprint(reader.sop_uid, syntax, whole.hexdigest(), elements)


class _Form(NamedTuple):
    """How elements are written."""

    implicit: bool
    little: bool = True

    def number(self, found: bytes) -> int:
        return int.from_bytes(found, "little" if self.little else "big")

    def tag(self, found: bytes) -> int:
        return self.number(found[:2]) << 16 | self.number(found[2:4])


class _Head(NamedTuple):
    """What stands before a value: the VR is b"" where it isn't written; `at` is where the value begins."""

    tag: int
    vr: bytes
    length: int
    at: int


def _meta(stream: IO[bytes]) -> tuple[_Form, str, int]:
    """How the data set is written, its transfer syntax ("" where none is named) and where it begins."""
    stream.seek(0)
    first = stream.read(132)
    at = 132 if first[128:] == b"DICM" else 0
    reader = _Reader(stream, "")
    syntax, until = "", reader.size
    length_says = 0
    while at + 8 <= until and reader.read(at, 2) == b"\x02\0":
        head = reader.head(at, reader.size, _Form(implicit=False))
        at = head.at + head.length
        if head.tag == 0x00020000:
            length_says = at + int.from_bytes(reader.read(head.at, head.length), "little")
        elif head.tag == 0x00020010:
            syntax = reader.read(head.at, head.length).rstrip(b" \0").decode("ascii", "replace")
            if syntax in _DEFLATED and length_says:  # what is deflated may look like one more element of the header
                until = length_says
    return _form(syntax, reader.read(at, 6) if reader.size - at >= 6 else b""), syntax, at


def _form(syntax: str, begin: bytes) -> _Form:
    """As the transfer syntax says; where none is named, as the first element looks (PS3.10 7.1 wants it named)."""
    if syntax:
        return _Form(syntax in (_IMPLICIT, _GE_PRIVATE), syntax != _BIG_ENDIAN)
    return _Form(begin[4:6] not in _SHORT | _LONG, int.from_bytes(begin[:2], "little") < 0x0400)


def _inflate(stream: IO[bytes], begin: int, into: IO[bytes]) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # PS3.5 A.5: RFC 1951, without the header of zlib
    stream.seek(begin)
    try:
        while not inflater.eof:
            found = inflater.unconsumed_tail or stream.read(_CHUNK)
            if not found:
                raise CutOff("the deflated data set is cut off")
            into.write(inflater.decompress(found, _CHUNK))
            if into.tell() > _MOST_INFLATED:
                raise Unreadable(f"the deflated data set is larger than {_MOST_INFLATED >> 30} GiB")
    except zlib.error as error:
        raise Unreadable(f"the deflated data set can't be inflated: {error}") from error


class _Reader:
    """Walks a data set and hashes it. Positions are bytes from the begin of the stream."""

    def __init__(self, stream: IO[bytes], syntax: str) -> None:
        self._stream, self._syntax = stream, syntax
        self.size = stream.seek(0, os.SEEK_END)
        self.sop_uid: str | None = None
        self._depth = 0
        self._in_vain = 0

    def read(self, at: int, length: int) -> bytes:
        self._stream.seek(at)
        found = self._stream.read(length)
        if len(found) < length:
            raise CutOff(f"the object is cut off at byte {at + len(found)}")
        return found

    def head(self, at: int, end: int, form: _Form) -> _Head:
        """What stands before the value at `at`; the value, if its length is known, ends before `end`."""
        self._stream.seek(at)
        found = self._stream.read(12)
        if at + 8 > end or len(found) < 8:
            raise CutOff(f"an element is cut off at byte {at}")
        tag, vr = form.tag(found), found[4:6]
        if form.implicit or tag >> 16 == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            # Some writers fall back to implicit VR amid an explicit data set.
            head = _Head(tag, b"", form.number(found[4:8]), at + 8)
        elif vr in _SHORT:
            head = _Head(tag, vr, form.number(found[6:8]), at + 8)
        else:
            head = _Head(tag, vr, form.number(found[8:12]), at + 12)
        if head.length != _UNDEFINED and head.at + head.length > end:
            raise CutOff(f"{_name(tag)} is cut off after {end - head.at} of {head.length} bytes")
        return head

    def data_set(self, at: int, end: int, form: _Form) -> list[tuple[int, bytes]]:
        """Tag and digest of every element that counts, in the order of tags."""
        return _in_order(self._elements(at, end, form, None))

    def _elements(self, at: int, end: int, form: _Form, ends: list[int] | None) -> Iterator[tuple[int, bytes]]:
        """The elements as they lie there; `ends` is for an item of undefined length and gets where it ended."""
        while at < end:
            if ends is None and end - at < 8 and not self.read(at, end - at).strip(b"\0"):
                return  # fewer than an element, and nothing in them
            head = self.head(at, end, form)
            if head.tag == _ITEM_END and ends is not None:
                ends.append(head.at)
                return
            if head.length == _UNDEFINED:
                part, at = self._undefined(head, end, form)
            else:
                part, at = self._defined(head, form), head.at + head.length
            if head.tag == _SOP_UID and not self._depth and head.length <= _LONGEST_UID:
                self.sop_uid = self.read(head.at, head.length).strip(b" \0").decode("ascii", "replace")
            if _counts(head.tag):
                yield head.tag, part
        if ends is not None:
            raise CutOff("an item has no end")

    def _undefined(self, head: _Head, end: int, form: _Form) -> tuple[bytes, int]:
        if head.tag == _PIXEL_DATA or head.vr in (b"OB", b"OW"):
            return self._encapsulated(head.at, end, form)
        # PS3.5 6.2.2: what is in an unknown VR is implicit VR little endian.
        return self._sequence(head.at, end, _Form(implicit=True) if head.vr == b"UN" else form, is_open=True)

    def _defined(self, head: _Head, form: _Form) -> bytes:
        end = head.at + head.length
        if head.vr == b"SQ" and head.length:
            return self._sequence(head.at, end, form, is_open=False)[0]
        swap = None if form.little else _SWAP.get(head.vr)
        if head.length >= 8 and not swap and head.tag >> 16 != 0x7FE0:
            found = self.read(head.at, 14 if head.length >= 14 else 8)
            if _Form(implicit=True, little=form.little or head.vr != b"").tag(found) == _ITEM:
                items = self._unnamed_sequence(head, end, found[12:14], form)
                if items is not None:
                    return items
        return self._value(head, swap)

    def _unnamed_sequence(self, head: _Head, end: int, looks: bytes, form: _Form) -> bytes | None:
        """The value taken for items, if it can be: whoever lost the VR can't tell a sequence any more."""
        forms = [_Form(implicit=True), _Form(implicit=False)]  # the second is not what PS3.5 6.2.2 says, but it is met
        if looks in _SHORT | _LONG:
            forms.reverse()
        depth, sop_uid = self._depth, self.sop_uid
        for form_inside in forms if form.little or head.vr else [form]:
            try:
                return self._sequence(head.at, end, form_inside, is_open=False)[0]
            except Unreadable:
                self._depth, self.sop_uid = depth, sop_uid
                self._in_vain += self._stream.tell() - head.at
                if self._in_vain > 16 * self.size + _CHUNK:
                    raise
        return None

    def _sequence(self, at: int, end: int, form: _Form, is_open: bool) -> tuple[bytes, int]:
        """Digest of the items, and where they end."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unreadable(f"sequences lie in each other more than {_DEEPEST} deep")
        whole, empty = hashlib.sha256(b"sequence\n"), True
        while at < end:
            head = self.head(at, end, form)
            at = head.at
            if head.tag == _SEQUENCE_END and is_open:
                is_open = False
                break
            if head.tag != _ITEM:
                raise Unreadable(f"{_name(head.tag)} stands where an item should at byte {at}")
            empty = False
            whole.update(b"item\n")
            inside = self._form_inside(head, end, form)
            if head.length == _UNDEFINED:
                ends: list[int] = []
                parts = _in_order(self._elements(at, end, inside, ends))
                at = ends[0]
            else:
                at += head.length
                parts = _in_order(self._elements(head.at, at, inside, None))
            for tag, part in parts:
                whole.update(f"{_name(tag)}={part.hex()}\n".encode())
        if is_open:
            raise CutOff("a sequence has no end")
        self._depth -= 1
        # An encoder that doesn't know the VR can't tell an empty sequence from an empty value.
        return hashlib.sha256(b"value\n").digest() if empty else whole.digest(), at

    def _form_inside(self, item: _Head, end: int, form: _Form) -> _Form:
        if form.implicit or item.length < 6 or item.at + 6 > end:
            return form
        vr = self.read(item.at, 6)[4:6]
        return form if vr.isalpha() and vr.isupper() else _Form(True, form.little)

    def _encapsulated(self, at: int, end: int, form: _Form) -> tuple[bytes, int]:
        """PS3.5 A.4: fragments behind a Basic Offset Table; where they are cut doesn't count."""
        whole = hashlib.sha256(f"encapsulated {self._syntax}\n".encode())
        is_table = True
        while at < end:
            head = self.head(at, end, form)
            if head.tag == _SEQUENCE_END:
                return whole.digest(), head.at
            if head.tag != _ITEM or head.length == _UNDEFINED:
                raise Unreadable(f"{_name(head.tag)} stands where a fragment should at byte {at}")
            if not is_table:
                for chunk in self._chunks(head.at, head.length):
                    whole.update(chunk)
            is_table, at = False, head.at + head.length
        raise CutOff("the encapsulated pixel data has no end")

    def _value(self, head: _Head, swap: str | None) -> bytes:
        whole = hashlib.sha256(b"value\n")
        if _is_text(head.tag):
            trimmed = whole.copy()  # up to the last byte that isn't padding
            for chunk in self._chunks(head.at, head.length):
                said = chunk.rstrip(b" \0")
                if said:
                    whole.update(said)
                    trimmed = whole.copy()
                whole.update(chunk[len(said) :])
            return trimmed.digest()
        for chunk in self._chunks(head.at, head.length):
            whole.update(_swapped(chunk, swap) if swap else chunk)
        if head.length % 2:
            whole.update(b" " if head.vr in _TEXT else b"\0")  # as whoever makes it valid must (PS3.5 6.2)
        return whole.digest()

    def _chunks(self, at: int, length: int) -> Iterator[bytes]:
        while length:
            chunk = self.read(at, min(length, _CHUNK))
            at, length = at + len(chunk), length - len(chunk)
            yield chunk


def _in_order(elements: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """By tag (PS3.5 7.1 wants them so, each once; of two that stand there in spite of it none is lost)."""
    found: dict[int, bytes] = {}
    for tag, part in elements:
        if found.setdefault(tag, part) != part:
            found[tag] = hashlib.sha256(b"twice\n" + found[tag] + part).digest()
    return sorted(found.items())


def _counts(tag: int) -> bool:
    if tag >> 16 in (0x0000, 0x0002) or not tag & 0xFFFF:
        return False
    return tag != _TRAILING_PADDING and tag not in _EXTENDED_OFFSETS


def _swapped(value: bytes, code: str) -> bytes:
    numbers = array(code)
    whole = len(value) - len(value) % numbers.itemsize
    numbers.frombytes(value[:whole])
    numbers.byteswap()
    return numbers.tobytes() + value[whole:]


def _is_text(tag: int) -> bool:
    tags, repeating = _text_elements()
    if tag >> 16 & 1:
        return 0x0010 <= tag & 0xFFFF <= 0x00FF  # a private creator (PS3.5 7.8.1); of others nobody knows the VR
    return tag in tags or repeating.fullmatch(f"{tag:08x}") is not None


@cache
def _text_elements() -> tuple[frozenset[int], re.Pattern[str]]:
    """The standard elements that hold text, frozen with RULES."""
    tags: set[int] = set()
    repeating: list[str] = []
    for line in Path(__file__).with_name("text_elements.txt").read_text(encoding="ascii").splitlines():
        group, _, elements = line.partition(": ")
        if line.startswith("#"):
            continue
        for tag in (group + element for element in elements.split()):
            if "x" in tag:
                repeating.append(tag.replace("x", "[0-9a-f]"))
            else:
                tags.add(int(tag, 16))
    return frozenset(tags), re.compile("|".join(repeating))


def _name(tag: int) -> str:
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
