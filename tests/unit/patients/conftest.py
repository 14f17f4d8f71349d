from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Sessions]:
    """A factory of sessions on an empty database."""
    engine = connect(f"sqlite:///{tmp_path}/z.db", "ris")
    Base.metadata.create_all(engine)
    yield sessions(engine, "ris")
    engine.dispose()


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
