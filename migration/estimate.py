"""How long a migration will take, before it starts: with its uncertainty, and inside its source's windows. Pure.

What was measured with the same source counts first; without that, what bare C-MOVE did on small machines (docs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise

from zambezi import windows
from zambezi.config.settings import Window
from zambezi.holidays import Holiday

#: Images a second that one association brought: slow, usual and quick sources.
ASSUMED = (3.0, 18.0, 110.0)
#: A second retrieve costs about as much again; each way of proof, how often the source sends.
TWICE = 2.0
#: Measured rates spread; the slowest tenth and the quickest tenth of what was seen are the bounds.
_TENTH = 0.1
#: Studies that make a rate; fewer rates than this say nothing; who stands still for longer isn't slow.
_TOGETHER, LEAST_MEASURED, _STANDSTILL_S = 10, 5, 600.0
#: No estimate goes further.
_HORIZON = timedelta(days=20 * 365)


@dataclass(frozen=True)
class Rates:
    """Images a second that a source brings, from slow to quick; `measured`: from how many studies, 0: assumed."""

    slow: float
    usual: float
    quick: float
    measured: int = 0


@dataclass(frozen=True)
class Estimate:
    """When it would end at the earliest, probably and at the latest; None: not within twenty years of its windows."""

    earliest: datetime | None
    likely: datetime | None
    latest: datetime | None
    working_hours: tuple[float, float, float]  # of the source's windows, from quick to slow
    rates: Rates


def seen(ends: Sequence[tuple[datetime, int]]) -> list[float]:
    """Images a second of a source, from when its studies were verified and how many images each had.

    Ten studies after one another make a rate; where it stood still for long in between, nothing is learnt.
    """
    ordered = sorted(ends)
    found = []
    for n in range(_TOGETHER, len(ordered), _TOGETHER):
        part = ordered[n - _TOGETHER : n + 1]
        gaps = [(b[0] - a[0]).total_seconds() for a, b in pairwise(part)]
        if max(gaps) < _STANDSTILL_S and sum(gaps) > 0:
            found.append(sum(images for _, images in part[1:]) / sum(gaps))
    return found


def rates(measured: Sequence[float], ceiling: int) -> Rates:
    """What may be expected of a source: as it did before (`seen`), else as sources do that move so many at once."""
    if len(measured) < LEAST_MEASURED:
        # Side by side they gain less and less: the archive's ingest is the limit at last.
        gain = min(ceiling, 4) ** 0.8
        slow, usual, quick = (rate * gain for rate in ASSUMED)
        return Rates(slow, usual, quick)
    ordered = sorted(measured)
    slow, usual, quick = (ordered[int(share * (len(ordered) - 1))] for share in (_TENTH, 0.5, 1 - _TENTH))
    return Rates(slow, usual, quick, len(measured) * _TOGETHER)


def of(
    images: int, again: float, speed: Rates, opens: Sequence[Window], begins: datetime, zone: tzinfo,
    holidays: Sequence[Holiday] = (),
) -> Estimate:  # fmt: skip
    """So many images, of which a share (0 to 1) is retrieved `again` for comparison, from `begins` on."""
    work = images * (1 + again * (TWICE - 1))
    hours = [work / rate / 3600 for rate in (speed.quick, speed.usual, speed.slow)]
    ends = [_end(timedelta(hours=lasting), opens, begins, zone, holidays) for lasting in hours]
    return Estimate(ends[0], ends[1], ends[2], (hours[0], hours[1], hours[2]), speed)


def _end(
    work: timedelta, opens: Sequence[Window], begins: datetime, zone: tzinfo, holidays: Sequence[Holiday]
) -> datetime | None:  # fmt: skip
    at: datetime | None = begins
    until = begins + min(_HORIZON, timedelta(days=40) + work * 200)
    while at is not None and at < until:
        opening = windows.next_opening(opens, at, zone, holidays)
        closing = windows.closes_at(opens, opening, zone, holidays) if opening else None
        if opening is None or opening > until:
            return None
        if closing is None or closing - opening >= work:
            return opening + work
        work -= closing - opening
        at = closing
    return None
