"""Whose lease need not be waited for: a dead worker's of this very machine, and nobody else's."""

from __future__ import annotations

import pytest

from migration import predecessors

OWN, LIVING, DEAD = 7, 40, 41


@pytest.mark.parametrize(
    ("held_by", "is_dead"),
    [
        (predecessors.owner("pacs", DEAD, 1), True),
        (predecessors.owner("pacs", LIVING, 1), False),
        # A container starts again under the same name, and gives the same number.
        (predecessors.owner("pacs", OWN, 1), True),
        (predecessors.owner("other", DEAD, 1), False),
        (predecessors.owner("pacs:2", DEAD, 1), False),
        ("somebody", False),
        ("pacs:x:1", False),
        ("", False),
    ],
)
def test_only_who_died_on_this_machine_is_dead(held_by: str, is_dead: bool) -> None:
    assert predecessors.is_dead(held_by, "pacs", OWN, lambda pid: pid == LIVING) is is_dead
