from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.integration.archive_fixture import image
from tests.misbehaving import Receiver
from tests.schema import upgraded
from tests.unit.gateway.delivering import Bench
from zambezi.config.settings import Destination
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


@pytest.fixture(scope="module")
def one_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """One database for all deliveries of a module: each has a destination of its own."""
    engine = upgraded(f"sqlite:///{tmp_path_factory.mktemp('faults')}/z.db", "gateway")
    yield sessions(engine, "gateway")
    engine.dispose()


@pytest.fixture
def bench(one_base: Sessions, now: datetime, tmp_path: Path) -> Callable[..., Bench]:
    """Makes a delivery of a new study to a receiver; `how`: settings of the destination."""

    def build(
        receiver: Receiver, count: int = 4, images: list[Dataset] | None = None, silence_s: float = 20.0,
        made: Sessions = one_base, **how: Any
    ) -> Bench:  # fmt: skip
        study = image().StudyInstanceUID
        destination = Destination(aet="ZAMBEZI_OUT", **{"proof": "found", "attempts": 6, "retry_seconds": 30, **how})
        return Bench(
            made, now, receiver, destination, images or [image(study) for _ in range(count)], tmp_path, silence_s
        )

    return build
