"""Who calls at the gateway's DICOM port, and what was its last sign of each kind: for the page of modalities.

The signs are those of the plugin (plugins.callers): associated, echo, worklist, mpps, commitment, refused. They are
kept in the gateway's sign of life and taken over from there after a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

#: Callers and signs that are remembered; beyond, the one that was seen longest ago is forgotten.
KEPT = 500


class Callers:
    """Noted by the associations' threads, told by the gateway's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str, str], dict[str, Any]] = {}

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
