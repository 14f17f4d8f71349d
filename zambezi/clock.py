"""UTC in data: the one way in which moments are written and read. Decisions take `now` as a parameter."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """This moment, UTC; for shells only."""
    return datetime.now(UTC)


def text(moment: datetime) -> str:
    """`2026-03-01T08:30:00.000000Z`, of fixed width, so that text order is time order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(written: str) -> datetime:
    """Read what `text` wrote; ValueError where it is something else."""
    return datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
