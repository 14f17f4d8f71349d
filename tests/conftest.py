"""One installation for the whole run: each test brings patients of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.hospital import Hospital
from tests.running import a_hospital


@pytest.fixture(scope="session")
def hospital() -> Iterator[Hospital]:
    """The demo hospital, every process of it, on free ports."""
    with a_hospital() as running:
        yield running
