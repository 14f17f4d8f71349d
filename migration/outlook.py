"""When a migration will be done, as far as that can be told: from how it went lately and when the source is open.

Images are counted, not studies, for studies differ by a thousand times in size. The mean of the last stretches of ten
minutes gives the likely end; the hours among them of which nine in ten were faster, and one in ten, give the two
moments between which it lies. What is left is laid out over the hours in which the windows will be open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from zambezi import clock, windows
from zambezi.config.settings import Site, Window

#: Stretches of ten minutes: a moment's text (zambezi.clock) up to here names one, such as 2026-03-01T08:4.
STRETCH = 15
_MINUTES = 10
_AN_HOUR = 6
#: However slow the slowest hours were, no end is told from less than this part of the mean.
_SLOWEST = 10
#: Fewer stretches tell nothing of a spread.
_LEAST = 3
#: Windows are laid out one by one for so long; an end further off than `_FURTHEST` is none.
_LOOKED_AT = timedelta(weeks=4)
_FURTHEST = timedelta(days=5 * 366)


@dataclass(frozen=True)
class Estimate:
    """Images an hour of an open window, and when all will be done: likely, and between which moments (UTC)."""

    per_hour: float
    likely: datetime | None
    earliest: datetime | None
    latest: datetime | None  # None: not within five years
    stretches: int


def of(
    left: int, stretches: Mapping[str, int], opening: Sequence[Window], site: Site, now: datetime
) -> Estimate | None:  # fmt: skip
    """The estimate for so many images that are left; None where too little has happened to tell one.

    `stretches`: images verified, by stretch of ten minutes.
    """
    counts = _in_a_row(stretches, opening, site, now)
    if sum(map(bool, counts)) < _LEAST or not left:
        return None
    hours = [counts[n : n + _AN_HOUR] for n in range(max(1, len(counts) - _AN_HOUR + 1))]
    rates = sorted(sum(some) * 60 / (_MINUTES * len(some)) for some in hours)
    mean = sum(counts) * 60 / (_MINUTES * len(counts))
    slow = max(_share(rates, 0.1), mean / _SLOWEST)
    ends = [_laid_out(left / rate, opening, site, now) for rate in (mean, max(mean, _share(rates, 0.9)), slow)]
    return Estimate(mean, ends[0], ends[1], ends[2], len(counts))


def _in_a_row(stretches: Mapping[str, int], opening: Sequence[Window], site: Site, now: datetime) -> list[int]:
    """What each stretch brought from the first on in which anything was verified, closed hours and pauses left out.

    Nothing in an open stretch counts as slow; nothing for more than an hour was a pause, or nobody was at work. The
    running stretch isn't over.
    """
    worked = [name for name, count in stretches.items() if count]
    if not worked:
        return []
    at, counts, idle = clock.parse(min(worked) + "0:00.000000Z"), list[int](), 0
    while clock.text(at)[:STRETCH] < clock.text(now)[:STRETCH]:
        count = stretches.get(clock.text(at)[:STRETCH], 0)
        if count:
            counts += [0] * (idle if idle <= _AN_HOUR else 0)
            counts.append(count)
            idle = 0
        elif windows.is_open(opening, at, site.zone, site.holidays):
            idle += 1
        at += timedelta(minutes=_MINUTES)
    return counts


def _share(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies, between its two neighbours."""
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _laid_out(hours: float, opening: Sequence[Window], site: Site, now: datetime) -> datetime | None:
    """The moment at which so many open hours will have passed; beyond four weeks as those four weeks were."""
    left, at, opened = timedelta(hours=min(hours, 24 * 366 * 10)), now, timedelta()
    while at < now + _LOOKED_AT:
        opens = windows.next_opening(opening, at, site.zone, site.holidays)
        if opens is None:
            return None
        closes = _closes(opening, site, opens)
        if closes is None or closes - opens >= left:
            return opens + left if opens + left < now + _FURTHEST else None
        left, opened, at = left - (closes - opens), opened + (closes - opens), closes
    further = left / (opened / (at - now)) if opened else _FURTHEST
    return at + further if further < _FURTHEST else None


def _closes(opening: Sequence[Window], site: Site, at: datetime) -> datetime | None:
    if any(is_always_open(window) for window in opening):
        return None
    return windows.closes_at(opening, at, site.zone, site.holidays)


def is_always_open(window: Window) -> bool:
    """Whether it never closes; looking for its end would take ten years' worth of days."""
    whole_day = window.from_ == window.to and len(set(window.days)) == 7
    return whole_day and not window.valid_from and not window.valid_until and window.holidays != "closed"
