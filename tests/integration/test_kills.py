"""Two random kill rounds on the running installation (`make soak` does ten)."""

import random
from collections.abc import Callable

import pytest

from demo.hospital import Hospital
from tests import killing

pytestmark = pytest.mark.timeout(1500)

#: Deaths of each process in one round: what a quiet machine comes to. On a busy one nothing may come up between two.
DEATHS = 15


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_doubled_when_processes_are_killed_in_turn(
    hospital: Hospital, seed: int, say: Callable[[str], None]
):
    say(killing.one_round(hospital, instances=2000, orders=20, reports=6, chance=random.Random(seed), most=DEATHS))
