"""Jobs that are woken every few seconds, by a clock that may be put right: ahead by years, or back by hours.

Machines with a flat battery start in 2000, or in 2031, until NTP has found them. APScheduler reckons by the clock on
the wall. Its own interval makes up for every wake-up of a jump ahead, one by one (five seconds, 26 years: more than
fits into memory), and after a step back nothing is woken until the clock is where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from zambezi import clock

log = logging.getLogger(__name__)

#: How often it is looked whether the clock was put back.
LOOK_S = 1.0
#: Clocks are slewed by less from one look to the next.
_LEAST = timedelta(seconds=1)


class Every:
    """An interval as a trigger of APScheduler, that makes up for nothing.

    A process registers it as one (`BaseTrigger.register`): this package imports no APScheduler.
    """

    def __init__(self, wait: timedelta) -> None:
        self._wait = wait

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """At once where it was never woken."""
        return now + self._wait if previous_fire_time else now


def steady(scheduler: Any) -> None:
    """Have each job with an interval woken by `Every`; its first time stays. Before the scheduler starts."""
    for job in scheduler.get_jobs():
        if (wait := getattr(job.trigger, "interval", None)) is not None:
            job.modify(trigger=Every(wait))


class Watch:
    """Sees that the clock was put back, by the one that counts seconds (time.monotonic)."""

    def __init__(self, now: datetime, monotonic: float) -> None:
        self._began = now - timedelta(seconds=monotonic)

    def put_back(self, now: datetime, monotonic: float) -> timedelta:
        """By how much since the last look; nought where it wasn't."""
        began = now - timedelta(seconds=monotonic)
        by, self._began = self._began - began, began
        return by if by >= _LEAST else timedelta()


def wake(scheduler: Any) -> None:
    """Each job waits anew from this moment: what it waits for may be years ahead."""
    for job in scheduler.get_jobs():
        job.reschedule(job.trigger)


def until(ended: threading.Event, scheduler: Any, told: Callable[[timedelta], None] = lambda by: None) -> None:
    """Wait for the end; `told` hears by how much the clock was put back, if it was, before the jobs are woken."""
    watch = Watch(clock.now(), time.monotonic())
    while not ended.wait(LOOK_S):
        if by := watch.put_back(clock.now(), time.monotonic()):
            by = timedelta(seconds=round(by.total_seconds()))
            log.warning("the clock was put back by %s; all jobs are woken", by)
            told(by)
            wake(scheduler)
