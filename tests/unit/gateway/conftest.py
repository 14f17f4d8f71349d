from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base


@pytest.fixture
def made(database_url: str) -> Iterator[Sessions]:
    """A factory of sessions on an empty database, of one engine and then of the other."""
    engine = connect(database_url, "gateway")
    Base.metadata.create_all(engine)
    yield sessions(engine, "gateway")
    engine.dispose()


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
