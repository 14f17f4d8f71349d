"""Declared changes: what the plan changes in a study on its way in (MigrationStudy.changes), and nothing else.

The archive's own coercion carries them out, and keeps the values of before in the Original Attributes Sequence (PS3.3
C.12.1.1.9). They are the only difference from the source that the comparison lets pass, and they are listed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from migration.source import Compared

_CHARACTER_SET = "SpecificCharacterSet"


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
