"""Who calls at the gateway's DICOM port, and what was its last sign of each kind: for the page of devices.

The signs are those of the plugin (plugins.callers): associated, echo, worklist, mpps, commitment, refused. They are
kept in the gateway's sign of life and taken over from there after a restart. Associations are counted besides, for an
entry in the audit trail every ten minutes: the first at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from zambezi import clock

#: Callers and signs that are remembered; beyond, the one that was seen longest ago is forgotten.
KEPT = 500
EVERY = timedelta(minutes=10)

Caller = tuple[str, str, str]


class Callers:
    """Noted by the associations' threads, told by the gateway's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[Caller, dict[str, Any]] = {}
        self._counts: dict[Caller, int] = {}
        self._told_at: dict[Caller, datetime] = {}

    def note(self, aet: str, ip: str, sign: str, at: str, *, called_aet: str = "", reason: str = "") -> None:
        """A sign; `at` as in entries (UTC)."""
        # What a stranger calls itself is shown on terminals and pages.
        aet, called_aet = ("".join(one if one.isprintable() else "?" for one in text) for text in (aet, called_aet))
        key = aet[:64], ip[:64], sign
        with self._lock:
            count = self._last.pop(key, {"count": 0})["count"] + 1  # the latest stand at the end
            self._last[key] = {
                "aet": key[0], "ip": key[1], "sign": sign, "at": at, "called_aet": called_aet[:64], "reason": reason,
                "count": count,
            }  # fmt: skip
            while len(self._last) > KEPT:
                del self._last[next(iter(self._last))]
            if sign == "associated":
                caller = key[0], key[1], called_aet[:64]
                self._counts[caller] = self._counts.get(caller, 0) + 1

    @property
    def told(self) -> list[dict[str, Any]]:
        """Every sign, the latest first."""
        with self._lock:
            return list(reversed(self._last.values()))

    def remember(self, told: Iterable[Mapping[str, Any]]) -> None:
        """What was told before a restart, as far as nothing newer came."""
        with self._lock:
            came, self._last = self._last, {}
            for one in reversed(list(told)):
                self._last[one["aet"], one["ip"], one["sign"]] = dict(one)
            self._last |= came

    def due(self, now: datetime, all_of_it: bool = False) -> dict[Caller, int]:
        """Associations that an entry is to tell of now: (AE title, address, called AE title) and how many."""
        with self._lock:
            return {
                caller: count
                for caller, count in self._counts.items()
                if all_of_it or caller not in self._told_at or now - self._told_at[caller] >= EVERY
            }

    def entered(self, due: Mapping[Caller, int], now: datetime) -> None:
        """These stand in the audit trail."""
        with self._lock:
            for caller, count in due.items():
                self._told_at[caller] = now
                self._counts[caller] -= count
                if not self._counts[caller]:
                    del self._counts[caller]
            self._told_at = {caller: at for caller, at in self._told_at.items() if now - at < EVERY}

    @staticmethod
    def facts(caller: Caller, count: int, now: datetime) -> dict[str, Any]:
        """Facts of an `associated` entry."""
        aet, ip, called_aet = caller
        return {
            "aet": aet,
            "ip": ip,
            "called_aet": called_aet,
            "door": "mpps",
            "count": count,
            "last_at": clock.text(now),
        }
