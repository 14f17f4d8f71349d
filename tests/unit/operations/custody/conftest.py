from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.operations.custody.archive import Room


@pytest.fixture
def room(tmp_path: Path, tables_url: str) -> Iterator[Room]:
    made = Room(tmp_path / "home", tables_url)
    yield made
    made.sessions.kw["bind"].dispose()
