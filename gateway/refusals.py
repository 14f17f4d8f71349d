"""Refusals at our own doors, recorded at a bounded rate: a port scanner must not fill the audit trail."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from pynetdicom import evt

#: A-ASSOCIATE-RJ (PS3.8 9.3.4): permanent, by the service user, calling AE title not recognised; called one not.
CALLER_UNKNOWN, CALLED_UNKNOWN = (0x01, 0x01, 0x03), (0x01, 0x01, 0x07)

#: One entry a minute for each kind; those in between are counted into the next one.
EVERY = timedelta(minutes=1)
#: Kinds remembered; beyond that the oldest is forgotten.
KINDS = 1000


def reject(event: evt.Event, reason: tuple[int, int, int]) -> None:
    """Refuse an association, in words that its requestor gets to read."""
    event.assoc.acse.send_reject(*reason)
    event.assoc.kill()  # else the connection may be closed before the answer has gone


class Refusals:
    """Counts; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, datetime] = {}
        self._unsaid: dict[str, int] = {}

    def due(self, kind: str, now: datetime) -> int:
        """How many refusals of this kind an entry should tell of now; 0: none, it was told a moment ago."""
        with self._lock:
            count = self._unsaid.pop(kind, 0) + 1
            last = self._last.get(kind)
            if last is not None and now - last < EVERY:
                self._unsaid[kind] = count
                return 0
            if len(self._last) >= KINDS:
                oldest = next(iter(self._last))
                del self._last[oldest]
                self._unsaid.pop(oldest, None)
            self._last.pop(kind, None)
            self._last[kind] = now
            return count
