"""The beginning of a DICOM file: who it says it is, read in microseconds, without pydicom.

Only what identifies an instance (PS3.3 C.12.1, C.7): SOP, Study and Series Instance UID, Patient ID. Elements
stand in the order of their tags (PS3.5 7.1), so that reading ends behind group 0020 of an ordinary file. Of
the encodings (PS3.5 A): implicit and explicit VR, little and big endian, deflated; with or without the
preamble of PS3.10.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from zambezi import orthanc_ids

_IMPLICIT = b"1.2.840.10008.1.2"
_BIG_ENDIAN = b"1.2.840.10008.1.2.2"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
#: GE's private syntax: pixel data alone is big endian, everything else as in implicit VR little endian.
_GE = b"1.2.840.113619.5.2"

_SYNTAX, _SENDER = 0x00020010, 0x00020016
_CHARACTER_SET, _SOP, _PATIENT, _STUDY, _SERIES = 0x00080005, 0x00080018, 0x00100020, 0x0020000D, 0x0020000E
_NEEDED = frozenset({_SOP, _PATIENT, _STUDY, _SERIES})
_CLASS = 0x00080016
_WANTED = _NEEDED | {_CHARACTER_SET, _CLASS}

#: VRs with a length of four bytes behind two reserved ones (PS3.5 7.1.2).
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
#: VRs with a length of two bytes; one that nobody knows has two, too.
_SHORT = frozenset({b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH",
                    b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"})  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: So much of a deflated data set is unpacked for its header; what is longer is no header.
_INFLATED = 4_000_000
#: Sequences within sequences deeper than this are nonsense, or an attack on the stack.
_DEPTH = 64

#: No tag: where the value representation of the patient ID is kept.
_VR_OF_PATIENT = -1
#: Printable ASCII with the one byte of padding that PS3.5 6.2 asks for; what has more may be read in two ways.
_PLAIN = re.compile(rb"([!-~]([ -~]*[!-~])?)?[ \0]?")

#: Defined terms of (0008,0005) (PS3.3 C.12.1.1.2) as Python's codecs know them; ASCII needs none.
_CODECS = {
    b"": "latin-1", b"ISO_IR 6": "latin-1", b"ISO_IR 100": "latin-1", b"ISO_IR 101": "iso8859-2",
    b"ISO_IR 109": "iso8859-3", b"ISO_IR 110": "iso8859-4", b"ISO_IR 144": "iso8859-5", b"ISO_IR 127": "iso8859-6",
    b"ISO_IR 126": "iso8859-7", b"ISO_IR 138": "iso8859-8", b"ISO_IR 148": "iso8859-9", b"ISO_IR 192": "utf-8",
    b"GB18030": "gb18030", b"GBK": "gbk", b"ISO_IR 13": "shift_jis", b"ISO_IR 166": "cp874",
}  # fmt: skip


class HeaderFault(ValueError):
    """The bytes can't be read as DICOM; the text says where."""


@dataclass(frozen=True, slots=True)
class Header:
    """Identifying attributes, without padding; empty where they are missing."""

    sop_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    sender: str  # Source Application Entity Title (0002,0016), where the file names one
    #: Whether Orthanc is certain to read these as we do: plain ASCII, no longer than they may be.
    is_certain: bool
    sop_class: str = ""
    #: The bytes of what else was asked for, as far as it is there.
    also: Mapping[int, bytes] = field(default_factory=dict, compare=False)

    @property
    def orthanc_id(self) -> str:
        """The id that Orthanc gives this identity: five times eight digits of a SHA-1."""
        return orthanc_ids.instance(self.patient_id, self.study_uid, self.series_uid, self.sop_uid)


def read(content: bytes, also: frozenset[int] = frozenset()) -> Header:
    """Who the file says it is, and the values of `also`; HeaderFault where that can't be read."""
    try:
        return _read(content, also)
    except (struct.error, zlib.error, IndexError) as error:
        raise HeaderFault(f"the bytes end, or go wrong, within an element: {error}") from error


def _read(content: bytes, also: frozenset[int]) -> Header:
    meta: dict[int, bytes] = {}
    syntax, at = b"", 0
    if content[128:132] == b"DICM":
        at = _elements(content, 132, "<", True, meta, frozenset({_SYNTAX, _SENDER}), meta_only=True)
        syntax = meta.get(_SYNTAX, b"").rstrip(b"\0 ")
    order = ">" if syntax == _BIG_ENDIAN else "<"
    if syntax == _DEFLATED:
        content, at = zlib.decompressobj(-15).decompress(content[at:], _INFLATED), 0
    vr = content[at + 4 : at + 6]
    if not syntax and content[at : at + 1] < content[at + 1 : at + 2]:
        order = ">"  # a group number that is small in one byte order is large in the other
    # Some files name an explicit syntax, and are implicit.
    explicit = syntax not in (_IMPLICIT, _GE) and vr.isalpha() and vr.isupper()
    found: dict[int, bytes] = {}
    _elements(content, at, order, explicit, found, _WANTED | also, max(_SERIES, *also) if also else _SERIES)
    character_set = found.get(_CHARACTER_SET, b"").rstrip(b"\0 ")
    patient = found.get(_PATIENT, b"")
    vr_of_patient = found.get(_VR_OF_PATIENT, b"")
    if vr_of_patient != b"UN":  # Orthanc leaves what it doesn't know for text as it is
        patient = patient.strip(b"\0 ")
    is_certain = vr_of_patient != b"UN" and all(
        len(found.get(tag, b"")) <= 66 and _PLAIN.fullmatch(found.get(tag, b"")) for tag in _NEEDED
    )
    codec = "ascii" if is_certain else _CODECS.get(character_set.split(b"\\")[0], "latin-1")
    return Header(
        sop_uid=_text(found, _SOP), study_uid=_text(found, _STUDY), series_uid=_text(found, _SERIES),
        patient_id=patient.decode(codec, "replace"), sender=_text(meta, _SENDER), is_certain=is_certain,
        sop_class=_text(found, _CLASS),
        also={tag: found[tag] for tag in also if tag in found},
    )  # fmt: skip


def _text(found: dict[int, bytes], tag: int) -> str:
    return found.get(tag, b"").strip(b"\0 ").decode("latin-1")


def _elements(
    content: bytes, at: int, order: str, explicit: bool, found: dict[int, bytes], wanted: frozenset[int],
    last: int = _SERIES, meta_only: bool = False,
) -> int:  # fmt: skip
    """Take the wanted values into `found`; where reading ended: behind the meta header, or behind what is wanted.

    What is missing where it should stand may stand later, in a file whose order is wrong: it is read to its end.
    """
    head = struct.Struct(order + ("HH2sH" if explicit else "HHI")).unpack_from
    long_of = struct.Struct(order + "I").unpack_from
    end, vr = len(content), b""
    while at + 8 <= end:
        if explicit:
            group, element, vr, length = head(content, at)
        else:
            group, element, length = head(content, at)
        tag = group << 16 | element
        if meta_only:
            if group != 0x0002:
                return at
        elif tag > last and found.keys() >= _NEEDED:
            return at
        begin = at + 8
        if explicit and vr not in _SHORT:
            if vr in _LONG:
                (length,) = long_of(content, begin)
                begin = at + 12
            elif not (vr.isalpha() and vr.isupper()):
                raise HeaderFault(f"({group:04x},{element:04x}) at byte {at} has no value representation")
        if length == _UNDEFINED:
            # PS3.5 6.2.2: what is UN and has no length is implicit VR little endian inside.
            inside = (explicit, order) if vr != b"UN" else (False, "<")
            at = _behind_sequence(content, begin, *inside, 0)
            continue
        if begin + length > end:
            if tag in wanted or tag < _SERIES:
                raise HeaderFault(f"({group:04x},{element:04x}) at byte {at} is longer than the file")
            return end  # the file ends within what nobody needs here
        if tag in wanted and tag not in found:
            found[tag] = content[begin : begin + length]
            if tag == _PATIENT:
                found[_VR_OF_PATIENT] = vr
        at = begin + length
    return at


def _behind_sequence(content: bytes, at: int, explicit: bool, order: str, depth: int) -> int:
    """Where a sequence (or encapsulated pixel data) of undefined length ends."""
    if depth > _DEPTH:
        raise HeaderFault(f"sequences within sequences at byte {at}, deeper than {_DEPTH}")
    while True:
        group, element, length = struct.unpack_from(order + "HHI", content, at)
        tag = group << 16 | element
        at += 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise HeaderFault(f"({group:04x},{element:04x}) at byte {at - 8} stands where an item must")
        at = _behind_item(content, at, explicit, order, depth) if length == _UNDEFINED else at + length


def _behind_item(content: bytes, at: int, explicit: bool, order: str, depth: int) -> int:
    """Where an item of undefined length ends."""
    while True:
        group, element = struct.unpack_from(order + "HH", content, at)
        if group << 16 | element == _ITEM_END:
            return at + 8
        vr = content[at + 4 : at + 6] if explicit else b""
        if not explicit:
            (length,) = struct.unpack_from(order + "I", content, at + 4)
            at += 8
        elif vr in _LONG:
            (length,) = struct.unpack_from(order + "I", content, at + 8)
            at += 12
        else:
            (length,) = struct.unpack_from(order + "H", content, at + 6)
            at += 8
        if length == _UNDEFINED:
            inside = (explicit, order) if vr != b"UN" else (False, "<")
            at = _behind_sequence(content, at, *inside, depth + 1)
        else:
            at += length
