from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from zambezi.database.engine import Sessions, connect, sessions


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    """A factory of sessions on an empty database."""
    engine = connect(tables_url, "ris")
    yield sessions(engine, "ris")
    engine.dispose()


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
