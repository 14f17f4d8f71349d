"""What a correction may change in an instance, and which values each attribute takes (PS3.5 6.2, PS3.6). Pure.

Never among it: SOP Class and SOP Instance UID, pixels and what describes them. Study and Series Instance UID change
only where images move to another study or series (kind `move`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Level = Literal["patient", "study", "series", "instance"]


@dataclass(frozen=True)
class Attribute:
    """An attribute that may be corrected; `many`: whether it may hold several values."""

    tag: str  # eight hex digits, as in requests
    keyword: str
    vr: str
    level: Level
    many: bool = False


def _table(*rows: tuple[str, str, str, Level, bool]) -> dict[str, Attribute]:
    return {tag: Attribute(tag, keyword, vr, level, many) for tag, keyword, vr, level, many in rows}


#: Every attribute that may be corrected, by tag.
ATTRIBUTES = _table(
    ("00080005", "SpecificCharacterSet", "CS", "instance", True),
    ("00080020", "StudyDate", "DA", "study", False),
    ("00080021", "SeriesDate", "DA", "series", False),
    ("00080022", "AcquisitionDate", "DA", "instance", False),
    ("00080023", "ContentDate", "DA", "instance", False),
    ("0008002A", "AcquisitionDateTime", "DT", "instance", False),
    ("00080030", "StudyTime", "TM", "study", False),
    ("00080031", "SeriesTime", "TM", "series", False),
    ("00080032", "AcquisitionTime", "TM", "instance", False),
    ("00080033", "ContentTime", "TM", "instance", False),
    ("00080050", "AccessionNumber", "SH", "study", False),
    ("00080080", "InstitutionName", "LO", "series", False),
    ("00080090", "ReferringPhysicianName", "PN", "study", False),
    ("00081030", "StudyDescription", "LO", "study", False),
    ("0008103E", "SeriesDescription", "LO", "series", False),
    ("00081040", "InstitutionalDepartmentName", "LO", "series", False),
    ("00081048", "PhysiciansOfRecord", "PN", "study", True),
    ("00081050", "PerformingPhysicianName", "PN", "series", True),
    ("00081060", "NameOfPhysiciansReadingStudy", "PN", "study", True),
    ("00081070", "OperatorsName", "PN", "series", True),
    ("00100010", "PatientName", "PN", "patient", False),
    ("00100020", "PatientID", "LO", "patient", False),
    ("00100021", "IssuerOfPatientID", "LO", "patient", False),
    ("00100030", "PatientBirthDate", "DA", "patient", False),
    ("00100032", "PatientBirthTime", "TM", "patient", False),
    ("00100040", "PatientSex", "CS", "patient", False),
    ("00101000", "OtherPatientIDs", "LO", "patient", True),
    ("00101010", "PatientAge", "AS", "study", False),
    ("00180015", "BodyPartExamined", "CS", "series", False),
    ("00181030", "ProtocolName", "LO", "series", False),
    ("0020000D", "StudyInstanceUID", "UI", "study", False),
    ("0020000E", "SeriesInstanceUID", "UI", "series", False),
    ("00200010", "StudyID", "SH", "study", False),
    ("00200011", "SeriesNumber", "IS", "series", False),
    ("00321060", "RequestedProcedureDescription", "LO", "study", False),
    ("00400244", "PerformedProcedureStepStartDate", "DA", "series", False),
    ("00400245", "PerformedProcedureStepStartTime", "TM", "series", False),
    ("00400253", "PerformedProcedureStepID", "SH", "series", False),
    ("00400254", "PerformedProcedureStepDescription", "LO", "series", False),
)

STUDY_UID, SERIES_UID, CHARACTER_SET = "0020000D", "0020000E", "00080005"
PATIENT_ID, ISSUER, PATIENT_NAME = "00100020", "00100021", "00100010"
ACCESSION_NUMBER = "00080050"
#: Change only where images move.
MOVING = (STUDY_UID, SERIES_UID)
#: Without these an instance has no place: they are changed, never removed.
_NEEDED = (STUDY_UID, SERIES_UID, PATIENT_ID)

_LONGEST = {
    "LO": 64, "SH": 16, "CS": 16, "IS": 12, "AS": 4, "UI": 64, "DA": 8, "TM": 14, "DT": 26,
    "AE": 16, "DS": 16, "ST": 1024, "LT": 10240, "UC": 10240, "UR": 10240, "UT": 10240,
}  # fmt: skip
_BY_KEYWORD = {one.keyword.lower(): one.tag for one in ATTRIBUTES.values()}
_SEXES = ("M", "F", "O")
_SHAPES = {
    "CS": (re.compile(r"[A-Z0-9 _]*"), "capital letters, digits, space and underscore"),
    "IS": (re.compile(r"[+-]?[0-9]{1,12}"), "a whole number"),
    "DS": (re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?"), "a number such as 12.5"),
    "AS": (re.compile(r"[0-9]{3}[DWMY]"), "an age as 034Y, 010M, 002W or 005D"),
    "UI": (re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+"), "numbers joined by dots, none with a leading zero"),
    "TM": (
        re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?"),
        "a time as HHMMSS, such as 134500",
    ),
    "DT": (
        re.compile(r"[0-9]{4}([0-9]{2}([0-9]{2}([0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?)?)?)?([+-][0-9]{4})?"),
        "a moment as YYYYMMDDHHMMSS",
    ),
}
_CHARACTER_SETS = re.compile(r"ISO_IR (6|100|101|109|110|144|127|126|138|148|203|13|166|192)|GB18030|GBK")


class ValueRefused(ValueError):
    """An attribute can't be given this value, or not at all; the text says what was found and what is allowed."""


def tag_of(named: str) -> str:
    """The tag of an attribute that a person names: keyword, gggg,eeee or ggggeeee; ValueRefused for others."""
    bare = re.sub(r"[\s(),]", "", named)
    tag = _BY_KEYWORD.get(bare.lower()) or bare.upper()
    if tag not in ATTRIBUTES:
        allowed = ", ".join(sorted(one.keyword for one in ATTRIBUTES.values() if one.tag not in MOVING))
        raise ValueRefused(f"{named}: this attribute can't be corrected; those that can are {allowed}")
    return tag


def checked(changes: Mapping[str, Any], moving: bool) -> dict[str, str | None]:
    """The changes with their tags as ggggeeee; ValueRefused with every fault, a line each. None removes."""
    faults: list[str] = []
    good: dict[str, str | None] = {}
    for named, value in changes.items():
        try:
            tag = tag_of(str(named))
            if tag in MOVING and not moving:
                raise ValueRefused(
                    f"{ATTRIBUTES[tag].keyword}: changes only where images move to another study (kind move)"
                )
            good[tag] = checked_value(ATTRIBUTES[tag], value)
        except ValueRefused as refused:
            faults.append(str(refused))
    if faults:
        raise ValueRefused("\n".join(faults))
    return dict(sorted(good.items()))


def checked_value(attribute: Attribute, value: Any) -> str | None:
    """The value without blanks around it, None where it is to be removed; ValueRefused, which repeats the value."""
    if value is None:
        if attribute.tag in _NEEDED:
            raise ValueRefused(f"{attribute.keyword}: it can be changed, but not removed")
        return None
    if not isinstance(value, str):
        raise ValueRefused(f"{attribute.keyword}: found {type(value).__name__}, allowed is a text or null")
    text = value.strip(" ")
    if not text and attribute.tag in (*MOVING, PATIENT_ID):
        raise ValueRefused(f"{attribute.keyword}: it can't be empty")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueRefused(f"{attribute.keyword}: control characters are not allowed in {text!r}")
    parts = text.split("\\")
    if len(parts) > 1 and not attribute.many:
        raise ValueRefused(f"{attribute.keyword}: one value only, so no backslash; found {text!r}")
    for part in parts:
        if part:
            _check_part(attribute, part)
    return text


def _check_part(attribute: Attribute, part: str) -> None:
    if attribute.tag == CHARACTER_SET:
        if not _CHARACTER_SETS.fullmatch(part):
            raise ValueRefused(
                f"SpecificCharacterSet: found {part!r}, allowed are the single-byte sets of PS3.3 C.12.1.1.2 such as "
                "ISO_IR 100, and ISO_IR 192, GB18030, GBK"
            )
        return
    if attribute.vr == "PN":
        groups = part.split("=")
        if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
            raise ValueRefused(
                f"{attribute.keyword}: found {part!r}, allowed is Family^Given^Middle^Prefix^Suffix of at most 64 "
                "characters, in up to three groups joined by ="
            )
        return
    longest = _LONGEST[attribute.vr]
    if len(part) > longest:
        raise ValueRefused(f"{attribute.keyword}: found {len(part)} characters, allowed are {longest}")
    if attribute.vr == "DA":
        _check_date(attribute, part)
    elif attribute.tag == "00100040" and part not in _SEXES:
        raise ValueRefused(f"PatientSex: found {part!r}, allowed are M, F, O and nothing")
    elif attribute.vr in _SHAPES:
        shape, allowed = _SHAPES[attribute.vr]
        if not shape.fullmatch(part):
            raise ValueRefused(f"{attribute.keyword}: found {part!r}, allowed is {allowed}")


def _check_date(attribute: Attribute, part: str) -> None:
    try:
        if not re.fullmatch(r"[0-9]{8}", part):
            raise ValueError
        date(int(part[:4]), int(part[4:6]), int(part[6:]))
    except ValueError:
        raise ValueRefused(
            f"{attribute.keyword}: found {part!r}, allowed is a day as YYYYMMDD, such as 20260131"
        ) from None
