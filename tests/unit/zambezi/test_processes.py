"""What a process says of itself, and when something last went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from zambezi import clock
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ProcessState
from zambezi.processes import heartbeat

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.fixture
def opened(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "test")
    yield sessions(engine, "test")
    engine.dispose()


def test_the_last_error_stays_with_the_time_at_which_it_was_said_last(opened: Sessions):
    seen = []
    for seconds, error in enumerate(("", "away", "away", "", "", "away", "", "slow")):
        with opened.begin() as session:
            heartbeat(session, "gateway", NOW + timedelta(seconds=seconds), "hash", last_error=error)
        with opened() as session:
            row = session.get_one(ProcessState, "gateway")
            seen.append((row.last_error, row.last_error_at and clock.parse(row.last_error_at) - NOW))
    times = [("", None)] + [("away", timedelta(seconds=at)) for at in (1, 2, 2, 2, 5, 5)]
    assert seen == [*times, ("slow", timedelta(seconds=7))]
