from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from zambezi.database.engine import Sessions, connect, sessions


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    """A factory of sessions on an empty database, of one engine and then of the other."""
    engine = connect(tables_url, "gateway")
    yield sessions(engine, "gateway")
    engine.dispose()


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
