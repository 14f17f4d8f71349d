"""Ten kill rounds with seeds of their own: `make soak`."""

import random
import time

import pytest

from demo.hospital import Hospital
from tests import killing


@pytest.mark.parametrize("number", range(1, 11))
def test_ten_kill_rounds(hospital: Hospital, number: int):
    seed = time.time_ns()
    seen = killing.one_round(hospital, instances=2000, orders=20, chance=random.Random(seed))
    print(f"round {number} (seed {seed}): {seen}")  # noqa: T201 - the figures are what a soak is for
