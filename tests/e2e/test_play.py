"""The play of `make demo`, step by step, on the installation of this test run."""

from __future__ import annotations

import pytest

from demo import play
from demo.hospital import Hospital, Run


@pytest.mark.parametrize(("number", "step"), [(number, step) for number, _, step in play.STEPS])
def test_step(hospital: Hospital, run: Run, number: str, step):
    before = [earlier for earlier, _, _ in play.STEPS if earlier < number]
    assert all(earlier in run.done for earlier in before), "an earlier step failed"
    run.done[number] = step(hospital, run)


def test_what_the_play_left_is_verified_and_nothing_is_played_again(hospital: Hospital, run: Run):
    assert play.verify(hospital, run)
