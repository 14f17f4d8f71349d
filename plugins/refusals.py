"""Refused requests on their way to the journal: bounded, so that knocking can't fill the disk.

The first refusal of a kind (who, address, reason) is told at once; those that follow within a minute are
counted, and the count is told when the minute is over. Kinds beyond a limit are counted together.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

#: In place of a path, of an image that the configuration doesn't let in: then `who` is the sender's AE title.
ADMISSION = "Admission"

EVERY = timedelta(seconds=60)
KINDS = 200


@dataclass
class _Kind:
    told_at: datetime | None = None
    count: int = 0
    sample: dict[str, Any] = field(default_factory=dict)


class Refusals:
    """Noted by any thread, taken by the follower."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def note(self, ip: str, method: str, path: str, reason: str, who: str) -> None:
        """Remember a refusal; costs next to nothing."""
        key = (ip, reason, who)
        with self._lock:
            if key not in self._kinds and len(self._kinds) >= KINDS:
                key = ("many", "many kinds of refusals in a minute", "")
            kind = self._kinds.setdefault(key, _Kind())
            kind.count += 1
            if not kind.sample:
                kind.sample = {"ip": key[0], "method": method, "path": path[:200], "reason": key[1], "who": who or None}

    def take(self, now: datetime) -> list[dict[str, Any]]:
        """The facts of the `refused` entries that are due."""
        told = []
        with self._lock:
            for key, kind in list(self._kinds.items()):
                # Told later than now: the clock was put back, and would hold back what follows for as long.
                if kind.told_at is not None and timedelta(0) <= now - kind.told_at < EVERY:
                    continue
                if kind.count:
                    told.append({**kind.sample, "count": kind.count})
                    kind.told_at, kind.count, kind.sample = now, 0, {}
                else:
                    del self._kinds[key]
        return told
