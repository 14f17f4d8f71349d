"""Leases among real processes, on both engines: many at once, and killed in between."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select

from tests.leasing import TestBase, Work
from zambezi import clock
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.environment import REPOSITORY

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "test")
    TestBase.metadata.create_all(engine)
    yield sessions(engine, "test")
    engine.dispose()


def put(made, rows: int) -> None:
    with made.begin() as session:
        session.execute(insert(Work), [{"next_at": clock.text(NOW)} for _ in range(rows)])


def all_of(made) -> list[Work]:
    with made.begin() as session:
        return list(session.scalars(select(Work).order_by(Work.id)))


def start(url: str, owner: str, lease_s: float, work_s: float) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.leasing", url, owner, str(lease_s), str(work_s)]
    return subprocess.Popen(words, cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"})


def test_a_thousand_rows_are_carried_out_exactly_once_by_eight_processes(made, tables_url):
    put(made, 1000)
    workers = [start(tables_url, f"w{n}", 60, 0) for n in range(8)]
    assert [worker.wait(170) for worker in workers] == [0] * 8
    rows = all_of(made)
    assert Counter((row.state, row.finished, row.attempts, row.fence) for row in rows) == {("done", 1, 1, 1): 1000}
    assert len({row.by for row in rows}) == 8


def test_workers_that_are_killed_in_between_cost_no_row_and_none_is_finished_twice(made, tables_url):
    put(made, 60)
    chance = random.Random(7)
    workers = {n: start(tables_url, f"w{n}", 1, 0.05) for n in range(4)}
    for round_ in range(6):
        time.sleep(0.7)
        victim = chance.randrange(4)
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = start(tables_url, f"w{victim}-{round_}", 1, 0.05)
    assert [worker.wait(120) for worker in workers.values()] == [0] * 4
    rows = all_of(made)
    assert Counter((row.state, row.finished) for row in rows) == {("done", 1): 60}
    assert sum(row.fence for row in rows) >= 60
