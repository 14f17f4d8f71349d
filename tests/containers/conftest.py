"""Containers need an engine. Where none answers these tests are skipped; with ZAMBEZI_CONTAINERS=required they fail."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.containers import installation
from tests.containers.installation import Installation


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker Engine with the images of this checkout."""
    lacking = installation.missing()
    if lacking and os.environ.get("ZAMBEZI_CONTAINERS") == "required":
        pytest.fail(lacking, pytrace=False)
    if lacking:
        pytest.skip(lacking)
    installation.images()


@pytest.fixture(scope="session")
def empty(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """What `up` gives, with the coercing port besides."""
    with installation.an_installation(tmp_path_factory.mktemp("compose"), "empty") as running:
        running.wait_until_healthy(240)
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """One line for all that were skipped, not one for each: pytest folds those of one place."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report
