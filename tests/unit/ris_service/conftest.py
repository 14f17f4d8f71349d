"""The seeded hospital, once a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ris_service import seeding


@pytest.fixture
def hospital(tmp_path: Path) -> seeding.Hospital:
    return seeding.seeded(tmp_path / "home")
