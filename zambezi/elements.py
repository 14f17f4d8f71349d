"""A DICOM data set as the pieces of bytes that it consists of: what isn't replaced stays as it was, byte by byte.

PS3.5 chapter 7 (explicit and implicit VR, defined and undefined lengths) and PS3.10 7.1 (preamble and meta header).
pydicom would write lengths, orders and odd VRs anew; a correction and a coercion must not. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from pydicom.datadict import dictionary_VR

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
#: Reading a tag, two bytes and four bytes, by byte order; VRs as text, made once.
_NUMBERS = {o: tuple(struct.Struct(o + form).unpack_from for form in ("HH", "H", "I")) for o in "<>"}
_SHORT = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_VRS = {vr.encode(): vr for vr in (*_LONG, *_SHORT.split())}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DEEPEST = 60
#: A deflated data set that gets larger is an attack on the memory.
_LARGEST = 1 << 30


class NotFaithful(ValueError):
    """The bytes can't be taken apart so that they could be put together again; the text says where and why."""


@dataclass(frozen=True)
class Coding:
    """How elements are written: implicit or explicit VR, and the byte order as `struct` writes it."""

    implicit: bool
    order: str = "<"


IMPLICIT = Coding(True)
EXPLICIT = Coding(False)
#: Transfer syntaxes that aren't explicit VR little endian.
_CODINGS = {"1.2.840.10008.1.2": IMPLICIT, "1.2.840.10008.1.2.2": Coding(False, ">")}


@dataclass(frozen=True)
class Element:
    """One element: `data[start:end]` with its header, `data[value_start:value_end]` without; VR "" if implicit."""

    data: bytes
    tag: int
    vr: str
    start: int
    value_start: int
    value_end: int
    end: int
    coding: Coding

    @property
    def whole(self) -> bytes:
        return self.data[self.start : self.end]

    @property
    def value(self) -> bytes:
        return self.data[self.value_start : self.value_end]

    @cached_property
    def known_vr(self) -> str:
        """The VR: as it is written, else as the dictionary has it, else UN."""
        if self.vr and self.vr != "UN":
            return self.vr
        if (self.tag >> 16) & 1:
            return "LO" if 0x10 <= (self.tag & 0xFFFF) <= 0xFF else "UN"
        try:
            return dictionary_VR(self.tag)
        except KeyError:
            return "UN"

    @property
    def inner_coding(self) -> Coding:
        """How the items of a sequence are written: those of one with VR UN are implicit (PS3.5 6.2.2)."""
        return IMPLICIT if self.vr == "UN" else self.coding


@dataclass(frozen=True)
class File:
    """A Part 10 file: `head` is preamble and meta header, `elements` the data set (what `scan` passed over in runs)."""

    head: bytes
    transfer_syntax: str
    coding: Coding
    elements: tuple[Element, ...]
    scanned: bytes = b""  # the file of which not every element was taken apart

    def get(self, tag: int) -> Element | None:
        return next((one for one in self.elements if one.tag == tag), None)

    def whole(self) -> File:
        """The same with every element taken apart."""
        return read(self.scanned) if self.scanned else self


def read(content: bytes) -> File:
    """Take a file apart; NotFaithful where that isn't possible to the last byte."""
    meta = head(content)
    syntax = next((one.value for one in meta if one.tag == 0x00020010), b"").decode("ascii", "replace").rstrip("\0 ")
    if not syntax:
        raise NotFaithful("its meta header names no transfer syntax (PS3.10 7.1)")
    at, coding = meta[-1].end, _CODINGS.get(syntax, EXPLICIT)
    body = _inflated(content[at:]) if syntax == _DEFLATED else content[at:]
    elements = tuple(walk(body, 0, len(body), coding))
    tags = [one.tag for one in elements]
    if len(set(tags)) != len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise NotFaithful(f"{name(twice)} stands in it twice")
    if tags and tags[0] >> 16 < 8:
        raise NotFaithful(f"it begins with {name(tags[0])}, which is no element of a data set")
    return File(content[:at], syntax, coding, elements)


def scan(content: bytes, wanted: Collection[int]) -> File:
    """Take out these elements (and group lengths) alone, and leave all between and behind them as it lies.

    Many times quicker than `read`, which takes over where elements don't stand in the order of their tags (PS3.5 7.1)
    or are deflated. What lies behind the last of `wanted` isn't looked at: it may be cut off.
    """
    meta = head(content)
    syntax = next((one.value for one in meta if one.tag == 0x00020010), b"").decode("ascii", "replace").rstrip("\0 ")
    if not syntax or syntax == _DEFLATED:
        return read(content)
    coding, at, end = _CODINGS.get(syntax, EXPLICIT), meta[-1].end, len(content)
    tag_at = _NUMBERS[coding.order][0]
    sought = sorted(wanted)
    n, last, begin, first = 0, 0x0007FFFF, at, 0  # what nobody seeks lies in runs: one begins at `begin`, with `first`
    found: list[Element] = []
    while n < len(sought) and at + 8 <= end:
        group, number = tag_at(content, at)
        tag = group << 16 | number
        if tag <= last:
            return read(content)
        last = tag
        first = tag if at == begin else first
        is_sought = tag == sought[n] or not number
        if begin < at and (is_sought or sought[n] < tag):  # what is sought stands here, or would
            found.append(Element(content, first, "", begin, begin, at, at, coding))
            begin, first = at, tag
        while n < len(sought) and sought[n] < tag:
            n += 1
        if n == len(sought):
            break
        tag, vr, value, stop, after = _place(content, at, end, coding, 0)
        if tag == sought[n] or not number:
            found.append(Element(content, tag, vr, at, value, stop, after, coding))
            begin = after
        at = after
    if begin < end:
        if begin == at:
            first = _UNDEFINED if at + 4 > end else tag_at(content, at)[0] << 16 | tag_at(content, at)[1]
        found.append(Element(content, first, "", begin, begin, end, end, coding))
    return File(content[: meta[-1].end], syntax, coding, tuple(found), content)


def head(content: bytes) -> tuple[Element, ...]:
    """The elements of the meta header; NotFaithful where there is none."""
    if content[128:132] != b"DICM":
        raise NotFaithful("it is no DICOM file with a meta header (PS3.10 7.1)")
    at, found = 132, []
    while at + 8 <= len(content) and content[at : at + 2] == b"\x02\x00":
        found.append(_element(content, at, len(content), EXPLICIT, 0))
        at = found[-1].end
    if not found:
        raise NotFaithful("it is no DICOM file with a meta header (PS3.10 7.1)")
    return tuple(found)


def joined(file: File, replaced: dict[int, bytes | None]) -> bytes:
    """The file with some elements replaced by others (whole, in bytes), added, or taken away (None).

    Everything else stays as it is and where it is; only the retired group length of a changed group goes (PS3.5 7.2).
    """
    groups = {tag >> 16 for tag in replaced}
    left = dict(sorted(replaced.items()))
    parts: list[bytes | memoryview] = [] if file.transfer_syntax == _DEFLATED else [file.head]
    for one in file.elements:
        for tag in [tag for tag in left if tag < one.tag]:
            parts.append(left.pop(tag) or b"")
        if one.tag in left:
            parts.append(left.pop(one.tag) or b"")
        elif one.tag & 0xFFFF or one.tag >> 16 not in groups:
            parts.append(memoryview(one.data)[one.start : one.end])  # pixels are copied once
    parts += [new or b"" for new in left.values()]
    joined = b"".join(parts)
    return file.head + _deflated(joined) if file.transfer_syntax == _DEFLATED else joined


def walk(data: bytes, at: int, end: int, coding: Coding, depth: int = 0) -> Iterator[Element]:
    """The elements between two places, one after the other; NotFaithful where they don't fill it."""
    while at < end:
        one = _element(data, at, end, coding, depth)
        yield one
        at = one.end


def items(sequence: Element) -> list[tuple[Element, ...]]:
    """The items of a sequence, each as its elements; NotFaithful where it can't be taken apart."""
    coding, at = sequence.inner_coding, sequence.value_start
    found: list[tuple[Element, ...]] = []
    while at < sequence.value_end:
        tag, length = _item_header(sequence.data, at, sequence.value_end, coding)
        if tag != _ITEM:
            raise NotFaithful(f"{name(sequence.tag)} holds {name(tag)} instead of an item")
        if length == _UNDEFINED:
            inside, at = _until_item_end(sequence.data, at + 8, sequence.value_end, coding, 1)
        else:
            if at + 8 + length > sequence.value_end:
                raise NotFaithful(f"an item of {name(sequence.tag)} is longer than the sequence")
            inside, at = tuple(walk(sequence.data, at + 8, at + 8 + length, coding, 1)), at + 8 + length
        found.append(inside)
    return found


def written(tag: int, vr: str, value: bytes, coding: Coding) -> bytes:
    """One element of defined length; `value` is padded already."""
    head = struct.pack(coding.order + "HH", tag >> 16, tag & 0xFFFF)
    if coding.implicit:
        return head + struct.pack(coding.order + "I", len(value)) + value
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(coding.order + "I", len(value)) + value
    return head + vr.encode() + struct.pack(coding.order + "H", len(value)) + value


def item(content: bytes, coding: Coding) -> bytes:
    """One item of defined length."""
    return struct.pack(coding.order + "HHI", _ITEM >> 16, _ITEM & 0xFFFF, len(content)) + content


def name(tag: int) -> str:
    """(gggg,eeee)"""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _element(data: bytes, at: int, end: int, coding: Coding, depth: int) -> Element:
    tag, vr, begin, stop, after = _place(data, at, end, coding, depth)
    return Element(data, tag, vr, at, begin, stop, after, coding)


def _place(data: bytes, at: int, end: int, coding: Coding, depth: int) -> tuple[int, str, int, int, int]:
    """Tag and VR of the element at a place; where its value begins and ends, and where the element does."""
    if at + 8 > end:
        raise NotFaithful(f"{end - at} bytes at its end are no element")
    tag_at, short_at, long_at = _NUMBERS[coding.order]
    group, element = tag_at(data, at)
    tag = group << 16 | element
    if coding.implicit:
        vr, header, (length,) = "", 8, long_at(data, at + 4)
    else:
        vr = _VRS.get(data[at + 4 : at + 6], "")
        if not vr:
            vr = data[at + 4 : at + 6].decode("latin-1")
            if not (vr.isascii() and vr.isalpha() and vr.isupper()):
                raise NotFaithful(f"{name(tag)} has no VR where its transfer syntax wants one")
        if vr in _LONG:
            if at + 12 > end:
                raise NotFaithful(f"{name(tag)} is cut off")
            header, (length,) = 12, long_at(data, at + 8)
        else:
            header, (length,) = 8, short_at(data, at + 6)
    begin = at + header
    if length == _UNDEFINED:
        stop = _sequence_end(data, begin, end, IMPLICIT if vr == "UN" else coding, depth + 1)
        return tag, vr, begin, stop, stop + 8
    if begin + length > end:
        raise NotFaithful(f"{name(tag)} is cut off: {end - begin} of {length} bytes are there")
    return tag, vr, begin, begin + length, begin + length


def _sequence_end(data: bytes, at: int, end: int, coding: Coding, depth: int) -> int:
    """Where the delimiter of a sequence of undefined length stands (or of fragments, PS3.5 A.4)."""
    if depth > _DEEPEST:
        raise NotFaithful(f"sequences lie more than {_DEEPEST} deep in each other")
    while True:
        tag, length = _item_header(data, at, end, coding)
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise NotFaithful(f"a sequence holds {name(tag)} instead of an item")
        at += 8
        if length != _UNDEFINED:
            at += length
            continue
        while _item_header(data, at, end, coding)[0] != _ITEM_END:
            at = _place(data, at, end, coding, depth)[4]
        at += 8


def _until_item_end(data: bytes, at: int, end: int, coding: Coding, depth: int) -> tuple[tuple[Element, ...], int]:
    inside: list[Element] = []
    while _item_header(data, at, end, coding)[0] != _ITEM_END:
        inside.append(_element(data, at, end, coding, depth))
        at = inside[-1].end
    return tuple(inside), at + 8


def _item_header(data: bytes, at: int, end: int, coding: Coding) -> tuple[int, int]:
    if at + 8 > end:
        raise NotFaithful("a sequence has no end")
    group, element, length = struct.unpack_from(coding.order + "HHI", data, at)
    return group << 16 | element, length


def _inflated(body: bytes) -> bytes:
    packed = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = packed.decompress(body, _LARGEST)
    except zlib.error as error:
        raise NotFaithful(f"it can't be inflated: {error}") from error
    if packed.unconsumed_tail:
        raise NotFaithful(f"it is deflated, and larger than {_LARGEST >> 20} MiB")
    return inflated


def _deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(body) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)
