"""The self-check's judgement: what each answer means."""

from __future__ import annotations

import pytest

from operations import self_check


@pytest.mark.parametrize("tried", self_check.WANTED)
def test_a_door_that_answers_something_else_is_a_fault_in_words(tried: str):
    [open_door] = self_check.judge({tried: 200})
    assert not open_door.is_well and "200" in open_door.fault
    for answered in self_check.WANTED[tried][0] | {0}:
        [shut] = self_check.judge({tried: answered})
        assert shut.is_well, answered
