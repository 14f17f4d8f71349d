"""A token bucket: how long to wait so that a line isn't used faster than its cap. Time is a parameter.

What goes over the line is known to be whole objects, so the bucket may go into debt: an image larger than a
second's worth is sent at once and paid for by the wait after it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

#: As much as fits into so many seconds may be sent at once after a pause.
BURST_S = 1.0


@dataclass(frozen=True)
class Bucket:
    """`level` bytes were there at the moment `at` (below nought: a debt)."""

    level: float
    at: datetime

    @classmethod
    def full(cls, kilobits_per_second: int, now: datetime) -> Bucket:
        """A bucket as it is after a pause."""
        return cls(_rate(kilobits_per_second) * BURST_S, now)


def refilled(bucket: Bucket, kilobits_per_second: int, now: datetime) -> Bucket:
    """The bucket as it is now, at this rate since then. A clock that was put back fills nothing."""
    rate = _rate(kilobits_per_second)
    seconds = max(0.0, (now - bucket.at).total_seconds())
    return Bucket(min(bucket.level + rate * seconds, rate * BURST_S), now)


def take(bucket: Bucket, size: int, kilobits_per_second: int, now: datetime) -> tuple[Bucket, timedelta]:
    """The bucket after `size` bytes, and how long to wait before the next."""
    filled = refilled(bucket, kilobits_per_second, now)
    left = replace(filled, level=filled.level - size)
    return left, timedelta(seconds=max(0.0, -left.level / _rate(kilobits_per_second)))


class Line:
    """A line that several threads use, and its one bucket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bucket: Bucket | None = None

    def used(self, size: int, kilobits_per_second: int | None, now: datetime) -> float:
        """So many bytes went over it; the seconds to wait before the next (0 where there is no cap)."""
        with self._lock:
            if kilobits_per_second is None:
                self._bucket = None  # what was owed before the cap ended is forgiven
                return 0.0
            bucket = self._bucket or Bucket.full(kilobits_per_second, now)
            self._bucket, wait = take(bucket, size, kilobits_per_second, now)
            return wait.total_seconds()


def _rate(kilobits_per_second: int) -> float:
    return kilobits_per_second * 1000 / 8
