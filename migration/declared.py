"""Declared changes: what the plan changes in a study on its way in (MigrationStudy.changes), and nothing else.

The archive's own coercion carries them out, and keeps the values of before in the Original Attributes Sequence (PS3.3
C.12.1.1.9). They are the only difference from the source that the comparison lets pass, and they are listed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydicom.datadict import tag_for_keyword

from migration.source import Compared

#: What changes with any of them: the character set that the new text needs, the old values (PS3.3 C.12.1).
_FOLLOWS = frozenset({"(0008,0005)", "(0400,0561)"})
#: Sequences that hold an Accession Number of their own (Request Attributes, Referenced Request).
_REQUESTS = frozenset({"(0040,0275)", "(0040,a370)"})
_CHARACTER_SET = "SpecificCharacterSet"


def tags(changes: Mapping[str, str]) -> frozenset[str]:
    """The tags, as (gggg,eeee), that may differ where these changes (keyword and value) were declared."""
    if not changes:
        return frozenset()
    found = {tag for tag in map(tag_for_keyword, changes) if tag is not None}
    requests = _REQUESTS if "AccessionNumber" in changes else frozenset()
    return _FOLLOWS | requests | {f"({tag >> 16:04x},{tag & 0xFFFF:04x})" for tag in found}


def tolerated(found: Compared, declared: frozenset[str]) -> tuple[Compared, tuple[str, ...]]:
    """The comparison as it counts, and the tags that differ because that was declared."""
    if found.verdict == "equal" or not found.differs_in or not declared.issuperset(found.differs_in):
        return found, ()
    return replace(found, verdict="equal", differs_in=()), found.differs_in


def lacking(stored: Mapping[str, object], changes: Mapping[str, str]) -> list[str]:
    """Keywords whose declared value an instance doesn't have; `stored`: its values by keyword.

    Not the character set: that is what the source's text was written in; the new text may need another.
    """
    wanted = {keyword: value for keyword, value in changes.items() if keyword != _CHARACTER_SET}
    return sorted(keyword for keyword, value in wanted.items() if _plain(stored.get(keyword)) != _plain(value))


def _plain(value: object) -> str:
    """Without what DICOM's padding and names' empty components add (PS3.5 6.2)."""
    return str(value or "").strip(" \0").rstrip("^=")
