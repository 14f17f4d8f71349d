"""Text of DICOM values and its bytes, by what Specific Character Set (0008,0005) says (PS3.3 C.12.1.1.2, PS3.5 6.1).

`terms` are that attribute's values, such as ["ISO_IR 100"] or ["", "ISO 2022 IR 87"]; [] is plain ASCII. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from pydicom import charset

TAG = 0x00080005
#: VRs whose values are in the file's character set; all others are ASCII (PS3.5 6.2).
TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def character_set(texts: Iterable[str]) -> str:
    """(0008,0005) for these texts: ISO_IR 100 if they fit, else ISO_IR 192."""
    try:
        for text in texts:
            text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def terms(value: bytes | None) -> list[str]:
    """The terms that the attribute's bytes hold."""
    written = (value or b"").decode("latin-1").rstrip("\0 ")
    return [one.strip() for one in written.split("\\")] if written else []


def said(terms: Sequence[str]) -> str:
    """For a person."""
    return "\\".join(terms) or "ISO_IR 6 (plain ASCII)"


def is_plain(value: bytes) -> bool:
    """Whether the bytes mean the same in every character set."""
    return value.isascii() and b"\x1b" not in value


def decoded(value: bytes, vr: str, terms: Sequence[str]) -> str:
    """The text without padding; what can't be read is taken for Latin-1, as Orthanc does (DefaultEncoding)."""
    value = value.rstrip(b"\0 ")
    codecs = _codecs(terms) if terms else None
    if is_plain(value) or codecs is None:
        return value.decode("latin-1").strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if vr == "PN":
            groups = [charset.decode_bytes(group, codecs, {0x5E}) for group in value.split(b"=")]
            return "=".join(groups).strip()
        return charset.decode_bytes(value, codecs, {0x5C}).strip()


def encoded(value: str, vr: str, terms: Sequence[str]) -> bytes | None:
    """The bytes without padding; None where the character set can't hold the text."""
    if value.isascii():
        return value.encode()
    codecs = _codecs(terms)
    if not [term for term in terms if term not in ("", "ISO_IR 6", "ISO 2022 IR 6")] or codecs is None:
        return None
    if vr not in TEXT:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if len(terms) == 1:
                return value.encode(codecs[0])
            written = charset.encode_string(value, codecs)
            return written if charset.decode_bytes(written, codecs, {0x5C, 0x5E}) == value else None
        except (UnicodeError, LookupError):
            return None


def can_be_read(value: bytes, term: str) -> bool:
    """Whether the bytes are text in a character set of one term, to the last byte."""
    codecs = _codecs([term])
    if codecs is None:
        return False
    try:
        value.decode(codecs[0])
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _codecs(terms: Sequence[str]) -> list[str] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown term is no reason to guess: None says so
        try:
            return charset.convert_encodings(list(terms))
        except LookupError:
            return None
