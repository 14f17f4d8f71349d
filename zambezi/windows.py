"""Opening hours: when a source may be asked. Pure decisions; the clock on the site's wall decides.

A window opens on each of its weekdays at `From` and closes at `To`, which is exclusive; `To` at or before
`From` closes it on the next day. Where the wall clock is put forward over an opening, the window opens
with the jump; where it is put back, what was open at that wall time is open again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from zambezi.config.settings import Window

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Two weeks hold every weekday twice: an opening that falls into a jump of the clock isn't the last one looked at.
_HORIZON = timedelta(days=15)
_DAY = timedelta(days=1)


def is_open(windows: Iterable[Window], at: datetime, zone: tzinfo) -> bool:
    """Whether one of the windows is open at this moment (an aware datetime)."""
    wall = at.astimezone(zone).replace(tzinfo=None)
    return any(_holds(window, wall) for window in windows)


def next_opening(windows: Sequence[Window], at: datetime, zone: tzinfo) -> datetime | None:
    """The first moment from `at` on at which a window is open, UTC; None where none ever opens."""
    if is_open(windows, at, zone):
        return at.astimezone(UTC)
    moments = (*_openings(windows, at, zone), *_jumps(at, zone))
    return min((m for m in moments if m >= at and is_open(windows, m, zone)), default=None)


def _holds(window: Window, wall: datetime) -> bool:
    # Yesterday's window may reach over midnight into today.
    for day in (wall.date(), wall.date() - _DAY):
        if _WEEKDAYS[day.weekday()] in window.days:
            opens = datetime.combine(day, window.from_)
            closes = datetime.combine(day if window.to > window.from_ else day + _DAY, window.to)
            if opens <= wall < closes:
                return True
    return False


def _openings(windows: Iterable[Window], at: datetime, zone: tzinfo) -> Iterator[datetime]:
    today = at.astimezone(zone).date()
    for window in windows:
        for ahead in range(_HORIZON.days):
            for fold in (0, 1):  # a wall time that comes twice is two moments
                wall = datetime.combine(today + ahead * _DAY, window.from_, zone).replace(fold=fold)
                yield wall.astimezone(UTC)


def _jumps(at: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Moments at which the zone's offset changes within the horizon, to the second."""
    start = at.astimezone(UTC).replace(microsecond=0)
    for day in range(_HORIZON.days):
        before, after = start + day * _DAY, start + (day + 1) * _DAY
        if before.astimezone(zone).utcoffset() == after.astimezone(zone).utcoffset():
            continue
        while after - before > timedelta(seconds=1):
            middle = (before + (after - before) / 2).replace(microsecond=0)
            if middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset():
                before = middle
            else:
                after = middle
        yield after
