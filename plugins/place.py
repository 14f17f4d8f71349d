"""Where following /changes goes on: finding the cursor's row again. Pure, but for the reader it is given.

A change number alone proves nothing: an index that lost its tail in a power cut hands the same numbers
out again, and a deletion takes rows away. So the cursor is a row, and it must be there as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from plugins.facts import Change

#: Reads /changes: (since, limit) -> rows.
Reader = Callable[[int, int], list[Change]]


def beginning(index_id: str) -> Change:
    """Where following begins: nothing of this index was followed yet."""
    return Change(index_id, 0, "", "")


def holds(place: Change, read: Reader) -> bool:
    """Whether the row is in /changes as it was."""
    return place.seq == 0 or read(place.seq - 1, 1) == [place]


def find(places: Iterable[Change], index_id: str, read: Reader) -> Change:
    """The newest of the places (newest first) that still holds; the beginning where none does."""
    for place in places:
        if place.index_id == index_id and holds(place, read):
            return place
    return beginning(index_id)
