"""No archive outlives the test, or the module, that made it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration import archive_fixture


@pytest.fixture(scope="session", autouse=True)
def archives_that_leave_end_well() -> Iterator[None]:
    """Each that was told to stop at the end of a test."""
    yield
    archive_fixture.all_have_left()


@pytest.fixture(scope="module", autouse=True)
def no_archive_outlives_its_module() -> Iterator[None]:
    """First in each module, so that it ends last: an archive may serve a whole module."""
    before = len(archive_fixture.MADE)
    yield
    archive_fixture.end_those_behind(before)


@pytest.fixture(autouse=True)
def no_archive_outlives_its_test() -> Iterator[None]:
    """Fixtures of the module have made theirs before; a test may restart them."""
    before = len(archive_fixture.MADE)
    yield
    archive_fixture.end_those_behind(before)
