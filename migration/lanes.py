"""Two lanes of one ledger: what a source has at hand, and what it must fetch from tape or a jukebox first.

A study that the source calls near-line or off-line (InstanceAvailability, PS3.3 C.4.23.1.1) may take hours to come, and
that is no failure. It has slots, limits and waits of its own, and so holds up nothing else. Its lane is part of its
priority, far below all others: the index that says whose turn it is has each lane in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_

from zambezi.config.settings import MigrationSource
from zambezi.database.tables import MigrationStudy

#: The priority of a near-line study is its rank plus this; ranks go from 0 to migration.ledger.URGENT.
_BELOW = -1000


@dataclass(frozen=True)
class Lane:
    """Which studies are claimed together, by where their priorities begin; whether they are near-line."""

    name: str
    bases: tuple[int, ...]
    is_near_line: bool

    @property
    def where(self) -> ColumnElement[bool]:
        """The same as a condition."""
        return or_(*(self.between(base, 0, -_BELOW - 1) for base in self.bases))

    def between(self, base: int, lowest: int, highest: int) -> ColumnElement[bool]:
        """Ranks of this part of the lane as a range of priorities, which an index has in order."""
        return MigrationStudy.priority.between(base + lowest, base + highest)


AT_HAND = Lane("online", (0,), is_near_line=False)
NEAR_LINE = Lane("near-line", (_BELOW,), is_near_line=True)
#: Of a source that is near-line as a whole: whatever it says of a study.
ALL_NEAR_LINE = Lane("all near-line", (0, _BELOW), is_near_line=True)


def of_source(settings: MigrationSource) -> tuple[Lane, ...]:
    """The lanes in which its studies go."""
    return (ALL_NEAR_LINE,) if settings.near_line else (AT_HAND, NEAR_LINE)


def priority(rank: int, facts: Mapping[str, str]) -> int:
    """A study's priority from its rank and from what the source says of it."""
    return rank if facts.get("InstanceAvailability", "ONLINE") in ("", "ONLINE") else rank + _BELOW


def is_near_line(found: int) -> bool:
    """Whether a study of this priority goes in the lane of what is near-line."""
    return found < 0


def rank(found: int) -> int:
    """A study's rank within its lane."""
    return found - _BELOW if is_near_line(found) else found


def ranked(rank: int, found: int) -> int:
    """The priority of a study that has this one now, with another rank in the same lane."""
    return rank + _BELOW if is_near_line(found) else rank
