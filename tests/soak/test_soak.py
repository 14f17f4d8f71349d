"""Ten kill rounds with seeds of their own: `make soak`."""

import random
import time
from collections.abc import Callable

import pytest

from demo.hospital import Hospital
from tests import killing

pytestmark = pytest.mark.timeout(10800)


@pytest.mark.parametrize("number", range(1, 11))
def test_ten_kill_rounds(
    hospital: Hospital, deaths_of_databases: dict[str, Callable[[], bool]], number: int, say: Callable[[str], None]
):
    seed = time.time_ns()
    say(f"round {number}: seed {seed}")
    seen = killing.one_round(
        hospital, instances=2000, orders=20, reports=6, chance=random.Random(seed), others=deaths_of_databases
    )
    say(f"round {number}: {seen}")
