"""Holidays of a site: days and ranges of days, of one year or of every year. Pure; who reads them says what they do.

2026-04-03                 one day
2026-12-24..2027-01-02     both ends belong to it
12-25                      every year
12-24..01-02               every year, over New Year
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

_DAY = r"(?:(\d{4})-)?(\d{2})-(\d{2})"
_WRITTEN = re.compile(rf"{_DAY}(?:\.\.{_DAY})?")
#: A year that has every day there is.
_LEAP = 2000


@dataclass(frozen=True)
class Holiday:
    """From `first` to `last`, both included; (month, day) pairs where it comes every year."""

    first: date | tuple[int, int]
    last: date | tuple[int, int]

    def includes(self, day: date) -> bool:
        if isinstance(self.first, date) and isinstance(self.last, date):
            return self.first <= day <= self.last
        here, first, last = (day.month, day.day), _yearly(self.first), _yearly(self.last)
        return first <= here <= last if first <= last else here >= first or here <= last


def parse(written: str) -> Holiday:
    """Read one; ValueError in words where it is something else, no day of the calendar, or ends before it begins."""
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise ValueError(f'found "{written}"; write 2026-04-03, 2026-12-24..2026-12-26, 12-25 or 12-24..01-02')
    first = _day(written, *found.group(1, 2, 3))
    last = _day(written, *found.group(4, 5, 6)) if found.group(5) else first
    if isinstance(first, date) != isinstance(last, date):
        raise ValueError(f'found "{written}": either both ends have a year, or none has')
    if isinstance(first, date) and isinstance(last, date) and last < first:
        raise ValueError(f'found "{written}": it ends before it begins')
    return Holiday(first, last)


def includes(holidays: Iterable[Holiday], day: date) -> bool:
    """Whether this day of the site's calendar is a holiday."""
    return any(holiday.includes(day) for holiday in holidays)


def _day(written: str, year: str | None, month: str, day: str) -> date | tuple[int, int]:
    try:
        found = date(int(year) if year else _LEAP, int(month), int(day))
    except ValueError as error:
        raise ValueError(f'found "{written}": {error}') from error
    return found if year else (found.month, found.day)


def _yearly(day: date | tuple[int, int]) -> tuple[int, int]:
    return (day.month, day.day) if isinstance(day, date) else day
