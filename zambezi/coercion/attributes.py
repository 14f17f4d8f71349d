"""The attributes that a coercion rule names: by keyword of PS3.6, or as (gggg,eeee)."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

from pydicom import datadict

from zambezi.correctable import Attribute

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
#: VRs whose values are text that may be written as it is said (PS3.5 6.2).
_TEXTS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"])
#: What an instance is known by. A Study Instance UID is taken from the worklist alone.
_IDENTITY = frozenset({0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
_CHARACTER_SET, _ORIGINALS, _PATIENT_ID = 0x00080005, 0x04000561, 0x00100020


class AttributeUnknown(ValueError):
    """A rule can't name this, or not here; the text says why and what it may name instead."""


@lru_cache(maxsize=4096)
def find(named: str) -> Attribute:
    """The attribute that is named so; AttributeUnknown, with the nearest keyword, where there is none."""
    written = _TAG.fullmatch(named.strip())
    tag = int(written[1] + written[2], 16) if written else datadict.tag_for_keyword(named)
    if tag is None:
        near = difflib.get_close_matches(named, datadict.keyword_dict, 1, 0.75)
        meant = f'did you mean "{near[0]}"?' if near else "names are keywords, such as StationName, or (gggg,eeee)"
        raise AttributeUnknown(f'no attribute "{named}" in DICOM; {meant}')
    if tag >> 16 < 0x0008 or tag >> 16 >= 0x7FE0:
        raise AttributeUnknown(f'"{named}" belongs to no image\'s header; allowed are groups 0008 to 7FDF')
    if datadict.dictionary_has_tag(tag):
        vr, many = datadict.dictionary_VR(tag), datadict.dictionary_VM(tag) != "1"
        return Attribute(f"{tag:08X}", datadict.keyword_for_tag(tag), vr, "instance", many)
    return Attribute(f"{tag:08X}", f"({tag >> 16:04x},{tag & 0xFFFF:04x})", "UN", "instance", True)


def readable(named: str) -> Attribute:
    """One whose text a rule may look at."""
    found = find(named)
    if found.vr not in _TEXTS | {"UI", "UN"}:
        raise AttributeUnknown(f'"{named}" holds no text ({found.vr}), so nothing can be asked of it')
    return found


def settable(named: str) -> Attribute:
    """One that a rule may give a value."""
    found = find(named)
    tag = int(found.tag, 16)
    if tag == _CHARACTER_SET:
        raise AttributeUnknown('"SpecificCharacterSet" is put right by CharacterSet, which looks at the text, too')
    if tag in _IDENTITY:
        raise AttributeUnknown(f'"{named}" is what the image is known by; no rule may give it a value')
    if found.vr not in _TEXTS or _is_of_pixels(tag):
        raise AttributeUnknown(f'"{named}" can\'t be given a value; allowed are texts, and nothing of the pixels')
    return found


def removable(named: str) -> Attribute:
    """One that a rule may take away; private ones and whole sequences, too."""
    found = find(named)
    tag = int(found.tag, 16)
    if tag in (*_IDENTITY, _PATIENT_ID, _CHARACTER_SET, _ORIGINALS) or _is_of_pixels(tag):
        raise AttributeUnknown(f'"{named}" is needed: it can\'t be taken away')
    return found


def _is_of_pixels(tag: int) -> bool:
    """What describes pixels, curves or overlays (PS3.3 C.7.6.3, C.9.2)."""
    group = tag >> 16
    return group == 0x0028 or group & 0xFF00 in (0x5000, 0x6000)
