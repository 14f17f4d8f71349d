"""Telling how far long work is: now and then a line with how many, how fast, how long still, and what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

#: A line so often, in seconds.
EVERY_S = 10.0


class Progress:
    """One piece of work over `total` things, some of which may have been `done` before; `tell` gets the lines."""

    def __init__(
        self,
        what: str,
        total: int,
        tell: Callable[[str], None],
        done: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._tell, self._before = what, total, tell, done
        self._monotonic = monotonic
        self._began = self._told = monotonic()

    def at(self, done: int, failed: int = 0) -> None:
        """So many are done by now, of which so many failed: a line, if it is time for one."""
        now = self._monotonic()
        if now - self._told >= EVERY_S:
            self._told = now
            self._tell(self.line(done, failed))

    def line(self, done: int, failed: int = 0) -> str:
        """How far it is."""
        rate = (done - self._before) / max(self._monotonic() - self._began, 0.001)
        left = max(0, self._total - done)
        still = f"about {timedelta(seconds=round(left / rate))} still" if rate else "no pace yet"
        return f"{self._what}: {done:,} of {self._total:,}, {rate:,.0f} a second, {still}, {failed:,} failed"
