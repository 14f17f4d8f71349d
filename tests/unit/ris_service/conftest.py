"""The seeded hospital: made once, copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ris_service import seeding


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> seeding.Hospital:
    return seeding.seeded(tmp_path_factory.mktemp("original") / "home")


@pytest.fixture
def hospital(tmp_path: Path, original: seeding.Hospital) -> seeding.Hospital:
    return seeding.copied(tmp_path / "home", original)
