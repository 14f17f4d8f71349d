"""One installation for the whole run: each test brings patients of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.hospital import Hospital
from tests import postgres
from tests.running import a_hospital


@pytest.fixture(scope="session")
def hospital() -> Iterator[Hospital]:
    """The demo hospital, every process of it, on free ports."""
    with a_hospital() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL of this run's own."""
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed; tools/install --tests brings it")
    with postgres.a_cluster(found) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database; a test that asks for it runs on both engines."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/z.db"
        return
    cluster: postgres.Cluster = request.getfixturevalue("postgres_cluster")
    with cluster.a_database() as url:
        yield url


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that is seen although pytest captures output: the figures of a round are worth a line."""

    def line(words: str) -> None:
        with capsys.disabled():
            print(f"\n  {words}", flush=True)  # noqa: T201

    return line
