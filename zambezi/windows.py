"""Opening hours: when a neighbour may be asked, and how fast. Pure decisions; the clock on the site's wall decides.

A window opens on each of its weekdays at `From` and closes at `To`, which is exclusive; `To` at or before `From`
closes it on the next day, and all of it belongs to the day on which it opened: its weekday, its dates, its holiday.
Where the wall clock is put forward over an opening, the window opens with the jump; where it is put back, what was
open at that wall time is open again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TypeVar

from zambezi import holidays as calendar
from zambezi.config.settings import Window
from zambezi.holidays import Holiday

AnyWindow = TypeVar("AnyWindow", bound=Window)

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = timedelta(days=1)
#: Openings are looked for so far ahead: a yearly holiday of 29 February comes after eight years at the latest.
_HORIZON = timedelta(days=10 * 366)
#: ... in steps of so many days, for most are found within the first.
_STEP = timedelta(days=16)


def is_open(windows: Iterable[Window], at: datetime, zone: tzinfo, holidays: Sequence[Holiday] = ()) -> bool:
    """Whether one of the windows is open at this moment (an aware datetime)."""
    return any(open_ones(windows, at, zone, holidays))


def cap_at(windows: Iterable[Window], at: datetime, zone: tzinfo, holidays: Sequence[Holiday] = ()) -> int | None:
    """Kilobits a second that may be used at this moment: the tightest of the windows that are open; None: no cap."""
    caps = [window.kilobits_per_second for window in open_ones(windows, at, zone, holidays)]
    return min((cap for cap in caps if cap is not None), default=None)


def next_opening(
    windows: Sequence[Window], at: datetime, zone: tzinfo, holidays: Sequence[Holiday] = ()
) -> datetime | None:
    """The first moment from `at` on at which a window is open, UTC; None where none opens within ten years."""
    if is_open(windows, at, zone, holidays):
        return at.astimezone(UTC)
    return next((m for m in _changes(windows, at, zone, holidays) if is_open(windows, m, zone, holidays)), None)


def closes_at(
    windows: Sequence[Window], at: datetime, zone: tzinfo, holidays: Sequence[Holiday] = ()
) -> datetime | None:
    """The first moment from `at` on at which none is open, UTC (`at` itself outside hours); None: not in ten years."""
    if not is_open(windows, at, zone, holidays):
        return at.astimezone(UTC)
    return next((m for m in _changes(windows, at, zone, holidays) if not is_open(windows, m, zone, holidays)), None)


def open_ones(
    windows: Iterable[AnyWindow], at: datetime, zone: tzinfo, holidays: Sequence[Holiday] = ()
) -> Iterator[AnyWindow]:  # fmt: skip
    """Those of the windows that are open at this moment."""
    wall = at.astimezone(zone).replace(tzinfo=None)
    for window in windows:
        # Yesterday's window may reach over midnight into today.
        spans = (span for day in (wall.date(), wall.date() - _DAY) for span in _spans(window, day, holidays))
        if any(opens <= wall < closes for opens, closes in spans):
            yield window


def _spans(window: Window, day: date, holidays: Sequence[Holiday]) -> Iterator[tuple[datetime, datetime]]:
    """From when to when, on the wall, a window is open that opens on this day."""
    if not (window.valid_from or day) <= day <= (window.valid_until or day):
        return
    is_holiday = window.holidays != "as usual" and calendar.includes(holidays, day)
    if is_holiday and window.holidays == "closed":
        return
    if is_holiday:  # open all day: whatever the weekday, and besides its usual hours
        yield datetime.combine(day, time()), datetime.combine(day + _DAY, time())
    if _WEEKDAYS[day.weekday()] in window.days:
        yield (
            datetime.combine(day, window.from_),
            datetime.combine(day if window.to > window.from_ else day + _DAY, window.to),
        )


def _changes(
    windows: Sequence[Window], at: datetime, zone: tzinfo, holidays: Sequence[Holiday]
) -> Iterator[datetime]:  # fmt: skip
    """Moments after `at` at which something may open or close, UTC, in order: edges of windows, jumps of the clock."""
    start = at.astimezone(UTC)
    while start < at + _HORIZON:
        end = start + _STEP
        moments = {*_edges(windows, start, end, zone, holidays), *_jumps(start, end, zone)}
        yield from sorted(moment for moment in moments if start < moment <= end)
        start = end


def _edges(
    windows: Sequence[Window], start: datetime, end: datetime, zone: tzinfo, holidays: Sequence[Holiday]
) -> Iterator[datetime]:
    # A window of two days before may close only now, for a span is longer than a day where the clock is put back.
    first, last = start.astimezone(zone).date() - 2 * _DAY, end.astimezone(zone).date() + _DAY
    for ahead in range((last - first).days + 1):
        for window in windows:
            for span in _spans(window, first + ahead * _DAY, holidays):
                for wall in span:
                    for fold in (0, 1):  # a wall time that comes twice is two moments
                        yield wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _jumps(start: datetime, end: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Moments at which the zone's offset changes, to the second."""
    day = start.replace(microsecond=0)
    while day < end:
        before, after = day, day + _DAY
        day = after
        if before.astimezone(zone).utcoffset() == after.astimezone(zone).utcoffset():
            continue
        while after - before > timedelta(seconds=1):
            middle = (before + (after - before) / 2).replace(microsecond=0)
            if middle.astimezone(zone).utcoffset() == before.astimezone(zone).utcoffset():
                before = middle
            else:
                after = middle
        yield after
