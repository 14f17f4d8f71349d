"""What the first bytes of a file say that it is, and, of a DICOM file, whose it is. Pure.

Lenient where old media are: without preamble, without meta header (PS3.10 7.1), without transfer syntax, cut off in
the middle. What the archive makes of a file, the archive says when it comes; here it gets its place among studies.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from pydicom import dcmread

from zambezi import character_sets, elements
from zambezi.elements import Coding, Element, NotFaithful

#: dicom: it names study, series and instance; no-identity: a DICOM file that doesn't; dicomdir; archive: ZIP;
#: packed: another packing, into which nobody looks; other: no DICOM.
Kind = Literal["dicom", "no-identity", "dicomdir", "archive", "packed", "other"]

#: So many bytes tell whether a file is a DICOM file at all.
FIRST = 1 << 16

_WANTED = {
    0x00080005: "SpecificCharacterSet", 0x00080016: "SOPClassUID", 0x00080018: "SOPInstanceUID",
    0x00080020: "StudyDate", 0x00080030: "StudyTime", 0x00080050: "AccessionNumber", 0x00080060: "Modality",
    0x00080080: "InstitutionName", 0x00081030: "StudyDescription", 0x00100010: "PatientName", 0x00100020: "PatientID",
    0x00100021: "IssuerOfPatientID", 0x00100030: "PatientBirthDate", 0x00100040: "PatientSex",
    0x0020000D: "StudyInstanceUID", 0x0020000E: "SeriesInstanceUID",
}  # fmt: skip
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LAST = max(_WANTED)
_LONGEST = 1024
_DIRECTORY = "1.2.840.10008.1.3.10"
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_MOST_INFLATED = 1 << 22
#: Packings by how they begin (offset, bytes).
_PACKED = {
    "gzip": (0, b"\x1f\x8b"), "bzip2": (0, b"BZh"), "xz": (0, b"\xfd7zXZ\0"), "7-Zip": (0, b"7z\xbc\xaf\x27\x1c"),
    "RAR": (0, b"Rar!\x1a\x07"), "Zstandard": (0, b"\x28\xb5\x2f\xfd"), "tar": (257, b"ustar"),
    "ISO 9660": (0x8001, b"CD001"),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What it is; of a DICOM file what it says, by DICOM keyword, its transfer syntax, and what is wrong with it."""

    kind: Kind
    facts: Mapping[str, str] = field(default_factory=dict)
    syntax: str = ""
    remark: str = ""


def may_be_dicom(first: bytes) -> bool:
    """Whether it is worth reading on; `first` are the first FIRST bytes, or all there are."""
    return first[128:132] == b"DICM" or _begins_data_set(first) is not None


def look(begin: bytes, is_whole: bool) -> Look:
    """Look at the begin of a file, or at all of it (then it is also seen whether it is cut off)."""
    if not begin:
        return Look("other", remark="it is empty")
    if not may_be_dicom(begin):
        return _other(begin)
    named, at, directory = _meta(begin)
    coding = _coding(named, begin[at:])
    body, at, is_whole = _body(begin, at, named, is_whole)
    found: dict[int, Element] = {}
    remark = ""
    try:
        for one in elements.walk(body, at, len(body), coding):
            if one.tag in _WANTED:
                found.setdefault(one.tag, one)
            if one.tag > _LAST and not is_whole:
                break
    except NotFaithful as fault:
        remark = str(fault) if is_whole or _LAST not in found else ""
    if directory:
        return Look("dicomdir", syntax=named, remark=remark)
    facts = _said(found)
    if remark and not all(uid in facts for uid in _UIDS):
        facts = _leniently(begin) | facts
    has_meta = begin[128:132] == b"DICM"
    if lacking := [uid for uid in _UIDS if uid not in facts]:
        return Look("no-identity", facts, named, f"it has no {lacking[0]}") if has_meta else _other(begin)
    if long := [uid for uid in _UIDS if len(facts[uid]) > 64]:
        return Look("no-identity", facts, named, f"its {long[0]} is longer than 64 characters (PS3.5 9.1)")
    return Look("dicom", facts, named, remark)


def _other(begin: bytes) -> Look:
    if begin[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return Look("archive")
    for name, (at, mark) in _PACKED.items():
        if begin[at : at + len(mark)] == mark:
            return Look("packed", remark=f"it is packed by {name}, which isn't looked into: unpack it beside")
    return Look("other")


def _begins_data_set(first: bytes) -> Coding | None:
    """How a file without preamble is written, if it begins as a data set or a meta header does."""
    if len(first) < 8:
        return None
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        group, element = (int.from_bytes(first[n : n + 2], order) for n in (0, 2))
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if first[4:6] in (b"UL", b"CS", b"UI", b"DA", b"OB", b"SH", b"LO", b"TM", b"ST"):
            return Coding(False, "<" if order == "little" else ">")
        if order == "little" and int.from_bytes(first[4:8], "little") <= min(256, len(first) - 8):
            return elements.IMPLICIT
    return None


def _meta(begin: bytes) -> tuple[str, int, bool]:
    """Transfer syntax ("": not named), where the data set begins, whether it is a DICOMDIR."""
    is_marked = begin[128:132] == b"DICM"
    preamble = b"" if is_marked else bytes(128) + b"DICM"
    try:
        meta = elements.head(preamble + begin[:FIRST])
    except NotFaithful:
        return "", 132 if is_marked else 0, False
    told = {one.tag: one.value.decode("ascii", "replace").rstrip("\0 ") for one in meta if one.tag != 0x00020001}
    return told.get(0x00020010, ""), meta[-1].end - len(preamble), told.get(0x00020002) == _DIRECTORY


def _coding(syntax: str, body: bytes) -> Coding:
    if syntax:
        return Coding(syntax == _IMPLICIT, ">" if syntax == _BIG_ENDIAN else "<")
    return _begins_data_set(body) or elements.IMPLICIT


def _body(begin: bytes, at: int, syntax: str, is_whole: bool) -> tuple[bytes, int, bool]:
    """Where the elements lie: in the file, or, deflated, the first of them."""
    if syntax != _DEFLATED:
        return begin, at, is_whole
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return inflater.decompress(begin[at:], _MOST_INFLATED), 0, is_whole and inflater.eof
    except zlib.error:
        return b"", 0, is_whole


def _said(found: Mapping[int, Element]) -> dict[str, str]:
    """What is said, decoded as the character set says; only what isn't empty."""
    terms = character_sets.terms(found[0x00080005].value if 0x00080005 in found else None)
    said = {
        _WANTED[tag]: character_sets.decoded(one.value[:_LONGEST], one.known_vr, terms) for tag, one in found.items()
    }
    return _clean(said)


def _leniently(begin: bytes) -> dict[str, str]:
    """The same by pydicom, which goes on where a data set contradicts itself."""
    try:
        dataset = dcmread(BytesIO(begin), force=True, stop_before_pixels=True, specific_tags=list(_WANTED.values()))
        return _clean({name: str(dataset.get(name) or "") for name in _WANTED.values()})
    except Exception:  # noqa: BLE001  pydicom raises what it likes of such a file; what it can't read stays without identity
        return {}


def _clean(said: Mapping[str, str]) -> dict[str, str]:
    plain = {name: value.replace("\0", "").strip()[:200] for name, value in said.items()}
    return {name: value for name, value in plain.items() if value}
