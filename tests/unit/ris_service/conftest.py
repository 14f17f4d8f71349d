"""The seeded hospital: made once on each engine, copied (or brought back) for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.postgres import Cluster
from tests.unit.ris_service import seeding

#: Their pages are what the database gives: lists, sums and locks. They are looked at on both engines.
ON_BOTH = ("test_pages", "test_worklist", "test_reports", "test_exceptions", "test_deliveries_page",
           "test_audit_pages")  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "hospital" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_BOTH:
        metafunc.parametrize("hospital", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> seeding.Hospital:
    return seeding.seeded(tmp_path_factory.mktemp("original") / "home")


@pytest.fixture(scope="session")
def original_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster
) -> Iterator[seeding.Hospital]:
    with postgres_cluster.a_database() as url:
        made = seeding.seeded(tmp_path_factory.mktemp("original") / "home", url=url)
        postgres.keep(url)
        yield made
        made.sessions.kw["bind"].dispose()


@pytest.fixture
def hospital(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[seeding.Hospital]:
    if getattr(request, "param", "sqlite") == "sqlite":
        yield seeding.copied(tmp_path / "home", request.getfixturevalue("original"))
        return
    original: seeding.Hospital = request.getfixturevalue("original_on_postgresql")
    url = original.environment.database_url
    postgres.bring_back(url)
    made = seeding.copied(tmp_path / "home", original, url)
    yield made
    made.sessions.kw["bind"].dispose()
