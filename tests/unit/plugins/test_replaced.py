"""What another node replaced is not shown as it was."""

from __future__ import annotations

import pytest

from plugins.replaced import OWN_S, Replaced


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replaced(clock: Clock) -> Replaced:
    return Replaced(clock)


def test_what_this_node_showed_before_another_one_deleted_it_is_refused(replaced: Replaced) -> None:
    assert replaced.may_show("1.2")
    replaced.deleted("1.2", ["i1", "i2"])
    assert not replaced.may_show("1.2")
    assert not replaced.may_show("1.2"), "to be refused is not to be shown"


def test_of_what_it_never_showed_it_has_kept_nothing(replaced: Replaced) -> None:
    assert replaced.may_show("1.2")
    replaced.deleted("1.9", ["i1"])
    assert replaced.may_show("1.9")
    assert replaced.may_show("1.2")


def test_what_it_deletes_itself_it_forgets(replaced: Replaced, clock: Clock) -> None:
    assert replaced.may_show("1.2")
    replaced.deleted_here("i1")
    replaced.deleted("1.2", ["i1"])  # the journal tells of the same deletion, a little later
    assert replaced.may_show("1.2")
    replaced.deleted("1.2", ["i1", "i2"])  # of i2 another node did it
    assert not replaced.may_show("1.2")
    replaced.deleted_here("i1")
    assert not replaced.may_show("1.2")
    replaced.deleted_here("i2")
    assert replaced.may_show("1.2")
    # It came again, was shown, and much later another node deleted it.
    clock.now += OWN_S + 1
    replaced.deleted("1.2", ["i2"])
    assert not replaced.may_show("1.2")
