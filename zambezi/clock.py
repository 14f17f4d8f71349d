"""UTC in data: the one way in which moments are written and read. Decisions take `now` as a parameter."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path


def now() -> datetime:
    """This moment, UTC; for shells only.

    ZAMBEZI_CLOCK may name a file with the seconds by which every process of an installation is to be ahead: a test
    lets hours pass in seconds by it. Nothing is ahead where the variable isn't set, or the file isn't there.
    """
    file = os.environ.get("ZAMBEZI_CLOCK")
    return datetime.now(UTC) + _ahead(Path(file)) if file else datetime.now(UTC)


def text(moment: datetime) -> str:
    """`2026-03-01T08:30:00.000000Z`, of fixed width, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse(written: str) -> datetime:
    """Read what `text` wrote; ValueError where it is something else."""
    return datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def _ahead(file: Path) -> timedelta:
    try:
        return timedelta(seconds=float(file.read_text()))
    except FileNotFoundError:
        return timedelta()
