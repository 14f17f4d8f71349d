"""A digest of what a DICOM object says, whatever its encoding: two copies that went other ways can be compared.

Between two archives no file stays the same bytes: meta header, VR form, lengths and padding are written anew by every
sender (PS3.5). Equal here are two objects whose elements hold the same value bytes.

Ignored, because a faithful sender may change it:
    the meta header (group 0002), command and group-length elements (gggg,0000), Data Set Trailing Padding (FFFC,FFFC);
    implicit or explicit VR, VR UN for a VR that the other side knows, byte order, deflation;
    defined or undefined lengths of sequences and items; trailing padding of a value (PS3.5 6.2);
    where encapsulated pixel data is cut into fragments, and its Basic Offset Table (PS3.5 A.4).
Never ignored:
    any other element, private ones too; whether an element is there but empty, or absent; character set bytes;
    decimals ("1.0" is not "1.00"); the order of items; whether pixel data is native or encapsulated, and the transfer
    syntax of encapsulated pixel data: decoding it to compare would prove something else.

The digest rests on value bytes only and never decodes a value, so text that can't be decoded is no obstacle.
"""

from __future__ import annotations

import hashlib
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_sequence
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

#: Begins what is hashed; another rule of what is ignored needs another name, for certificates hold digests for years.
RULES = b"zambezi canonical digest 1\n"

_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_CHARACTER_SET = 0x00080005
_TRAILING_PADDING = 0xFFFCFFFC
_ITEM = b"\xfe\xff\x00\xe0"
_TEXT = {
    "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT",
}  # fmt: skip
#: Bytes of one number in each VR whose values have a byte order (PS3.5 7.3), by the array code that swaps them.
_SWAP = {
    **dict.fromkeys(("US", "SS", "OW", "AT"), "H"),
    **dict.fromkeys(("UL", "SL", "FL", "OL", "OF"), "I"),
    **dict.fromkeys(("FD", "OD", "SV", "UV", "OV"), "Q"),
}


class Unreadable(ValueError):
    """The bytes are not a DICOM object that can be taken apart to the end."""


@dataclass(frozen=True)
class Fingerprint:
    """The digest of one object (lower-case hex SHA-256) and, for naming differences, one of each top-level element."""

    sop_uid: str
    transfer_syntax: str
    digest: str
    elements: dict[str, str]


def fingerprint(source: bytes | Path) -> Fingerprint:
    """Take the fingerprint of a DICOM file or of its bytes; raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of odd values, which aren't looked at here
            dataset = dcmread(BytesIO(source) if isinstance(source, bytes) else source, force=True)
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
            elements = {_name(tag): part.hex() for tag, part in _parts(dataset, syntax)}
    except (ValueError, TypeError, KeyError, EOFError, OSError, AttributeError, NotImplementedError) as error:
        raise Unreadable(f"not a whole DICOM object: {type(error).__name__}: {error}") from error
    if "(0008,0018)" not in elements:
        raise Unreadable("not a DICOM object: it has no SOP Instance UID")
    whole = hashlib.sha256(RULES)
    for name, part in elements.items():
        whole.update(f"{name}={part}\n".encode())
    return Fingerprint(str(dataset.get("SOPInstanceUID", "")), syntax, whole.hexdigest(), elements)


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """The top-level tags whose content differs, as (gggg,eeee); no values."""
    tags = sorted(one.elements.keys() | other.elements.keys())
    return [tag for tag in tags if one.elements.get(tag) != other.elements.get(tag)]


def _name(tag: BaseTag) -> str:
    return f"({tag.group:04x},{tag.element:04x})"


def _parts(dataset: Dataset, syntax: str) -> Iterator[tuple[BaseTag, bytes]]:
    """Tag and digest of every element that counts, in the order of tags."""
    for tag in sorted(dataset.keys()):
        if tag.group in (0x0000, 0x0002) or tag.element == 0x0000 or tag == _TRAILING_PADDING:
            continue
        yield tag, _part(dataset.get_item(tag, keep_deferred=True), syntax)


def _part(element: DataElement | RawDataElement, syntax: str) -> bytes:
    if isinstance(element, DataElement):
        if element.tag == _CHARACTER_SET:  # pydicom decodes this one on reading; its repertoire is ASCII
            return hashlib.sha256(b"value\n" + _written(element.value)).digest()
        return _sequence(element.value, syntax)
    value = element.value or b""
    if element.length not in (len(value), _UNDEFINED):
        raise Unreadable(f"{_name(element.tag)} is cut off after {len(value)} of {element.length} bytes")
    if element.tag == _PIXEL_DATA and element.length == _UNDEFINED:
        return _encapsulated(value, syntax)
    items = _items(element, value)
    if items is not None:
        return _sequence(items, syntax)
    if not element.is_little_endian:
        value = _little_endian(value, element.VR)
    return hashlib.sha256(b"value\n" + _unpadded(value, element.tag)).digest()


def _written(value: str | list[str] | None) -> bytes:
    values = [value] if isinstance(value, str) else value or []
    return "\\".join(values).encode("iso8859").rstrip(b" \0")


def _sequence(items: Sequence, syntax: str) -> bytes:
    if not items:  # an encoder that doesn't know the VR can't tell an empty sequence from an empty value
        return hashlib.sha256(b"value\n").digest()
    whole = hashlib.sha256(b"sequence\n")
    for item in items:
        whole.update(b"item\n")
        for tag, part in _parts(item, syntax):
            whole.update(f"{_name(tag)}={part.hex()}\n".encode())
    return whole.digest()


def _encapsulated(value: bytes, syntax: str) -> bytes:
    fragments = generate_fragments(value)
    next(fragments, None)  # the Basic Offset Table
    whole = hashlib.sha256(f"encapsulated {syntax}\n".encode())
    for fragment in fragments:
        whole.update(fragment)
    return whole.digest()


def _items(element: RawDataElement, value: bytes) -> Sequence | None:
    """The items of a sequence that stands in the file as plain bytes: of known length, or with an unknown VR."""
    known = element.VR or _dictionary_vr(element.tag)
    if known == "SQ":
        return _read_items(value, bool(element.is_implicit_VR), element.is_little_endian)
    if known in (None, "UN") and value.startswith(_ITEM):
        try:  # PS3.5 6.2.2: the value of UN is encoded as implicit VR little endian
            return _read_items(value, True, True)
        except (ValueError, TypeError, KeyError, EOFError, OSError, NotImplementedError):
            return None
    return None


def _read_items(value: bytes, implicit: bool, little_endian: bool) -> Sequence:
    return read_sequence(BytesIO(value), implicit, little_endian, len(value), "iso8859")


def _little_endian(value: bytes, vr: str | None) -> bytes:
    code = _SWAP.get(vr or "")
    if code is None:
        return value
    numbers = array(code)
    whole = len(value) - len(value) % numbers.itemsize
    numbers.frombytes(value[:whole])
    numbers.byteswap()
    return numbers.tobytes() + value[whole:]


def _unpadded(value: bytes, tag: BaseTag) -> bytes:
    """Without padding; what counts as padding depends on the tag alone, since the VR may be lost on the way."""
    known = _dictionary_vr(tag)
    if known in _TEXT:
        return value.rstrip(b" \0")
    if known is not None and known not in ("OB", "UN", "OB or OW"):
        return value  # numbers: a trailing zero is a part of one
    if known is None and value.endswith(b" "):
        return value.rstrip(b" ")
    return value[:-1] if value.endswith(b"\0") and len(value) % 2 == 0 else value


def _dictionary_vr(tag: BaseTag) -> str | None:
    if tag.is_private:
        return "LO" if tag.is_private_creator else None
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None
