"""One installation for the whole run: each test brings patients of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from demo.hospital import Hospital
from tests.running import a_hospital


@pytest.fixture(scope="session")
def hospital() -> Iterator[Hospital]:
    """The demo hospital, every process of it, on free ports."""
    with a_hospital() as running:
        yield running


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that is seen although pytest captures output: the figures of a round are worth a line."""

    def line(words: str) -> None:
        with capsys.disabled():
            print(f"\n  {words}", flush=True)  # noqa: T201

    return line
