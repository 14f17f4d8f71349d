"""Both sides of a conflict, tag by tag: what differs first. Pure; values are cut, sequences summed up."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description
from pydicom.tag import BaseTag, Tag

from zambezi.digest import Unreadable, differences, fingerprint

#: A longer value is cut.
LONGEST = 90
#: So many tags are shown; a page is not a dump.
MOST = 400
#: What a person looks at first to tell whose image it is, of what and when (keywords).
FIRST = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime",
    "Modality", "StudyDescription", "SeriesDescription", "InstanceNumber", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID",
)  # fmt: skip
_READING = (ValueError, TypeError, KeyError, EOFError, OSError, AttributeError, NotImplementedError, LookupError)


@dataclass(frozen=True)
class Row:
    """One tag on both sides; None where a side doesn't have it."""

    tag: str
    name: str
    held: str | None
    archived: str | None
    differs: bool


@dataclass(frozen=True)
class Sides:
    """All rows, those that differ and those that tell whose it is first; `more` were left out."""

    differing: list[Row]
    first: list[Row]
    other: list[Row]
    more: int = 0
    held_syntax: str = ""
    archived_syntax: str = ""


def compare(held: bytes, archived: bytes | None) -> Sides:
    """Both sides (or the one there is); what can't be read has no tags."""
    left, right = _read(held), _read(archived) if archived is not None else None
    differing_tags = _differing(held, archived) if archived is not None else set()
    rows = []
    tags = {tag for side in (left, right) if side is not None for tag in list(side.keys()) if tag.element}
    for tag in sorted(tags):
        name = f"({tag.group:04x},{tag.element:04x})"
        rows.append(
            Row(name, _name(tag, left, right), _value(left, tag), _value(right, tag), name in differing_tags)
        )  # fmt: skip
    leading = {f"({tag.group:04x},{tag.element:04x})": place for place, tag in enumerate(map(Tag, FIRST))}
    differing = [row for row in rows if row.differs]
    first = sorted((row for row in rows if not row.differs and row.tag in leading), key=lambda row: leading[row.tag])
    other_rows = [row for row in rows if not row.differs and row.tag not in leading]
    room = max(0, MOST - len(differing[:MOST]) - len(first))
    shown = len(differing[:MOST]) + len(first) + len(other_rows[:room])
    return Sides(differing[:MOST], first, other_rows[:room], len(rows) - shown, _syntax(left), _syntax(right))


def _differing(one: bytes, other: bytes) -> set[str]:
    """Tags whose content differs by the canonical digest's rules; by what is shown where it can't be taken."""
    try:
        return set(differences(fingerprint(one), fingerprint(other)))
    except Unreadable:
        a, b = _read(one), _read(other)
        different = (tag for tag in a.keys() | b.keys() if _value(a, tag) != _value(b, tag))
        return {f"({tag.group:04x},{tag.element:04x})" for tag in different}


def _read(content: bytes) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are shown as they are
            return dcmread(BytesIO(content), force=True)
    except _READING:
        return Dataset()


def _syntax(side: Dataset | None) -> str:
    meta = getattr(side, "file_meta", None)
    found = meta.get("TransferSyntaxUID") if meta else None
    return str(getattr(found, "name", found) or "")


def _name(tag: BaseTag, left: Dataset, right: Dataset | None) -> str:
    if tag.is_private:
        for side in (left, right):
            if side is not None and tag in side:
                creator = _creator(side, tag)
                return f"private, of {creator}" if creator else "private"
        return "private"
    try:
        return dictionary_description(tag)
    except KeyError:
        return "unknown"


def _creator(side: Dataset, tag: BaseTag) -> str:
    if tag.is_private_creator:
        return ""
    try:
        return str(side[tag.group, tag.element >> 8].value)[:30]
    except _READING:
        return ""


def _value(side: Dataset | None, tag: BaseTag) -> str | None:
    if side is None or tag not in side:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are shown as they are
            element = side[tag]
            if element.VR == "SQ":
                return f"[{len(element.value)}]"
            value = element.value
    except _READING:
        return "?"
    if isinstance(value, bytes | bytearray):
        content = bytes(value).rstrip(b" \0")
        if len(content) <= LONGEST and content.isascii() and content.decode("ascii").isprintable():
            return content.decode("ascii")
        return f"{len(value):,} B"
    if value is None:
        return ""
    many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    text = "\\".join(str(one) for one in many[:50])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
