"""Everything on PostgreSQL: processes and PostgreSQL itself die, it is away for an hour, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests import killing
from tests.running import OnPostgresql, a_hospital_on_postgresql


@pytest.fixture(scope="module")
def on_postgresql() -> Iterator[OnPostgresql]:
    with a_hospital_on_postgresql() as running:
        yield running


def test_nothing_is_lost_or_doubled_when_postgresql_dies_too(
    on_postgresql: OnPostgresql, say: Callable[[str], None]
):
    chance = random.Random(3)
    others = {"postgresql": on_postgresql.kill}
    say(killing.one_round(on_postgresql.hospital, instances=800, orders=15, reports=4, chance=chance, others=others))
