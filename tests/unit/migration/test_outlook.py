"""When a migration may be done: never a moment without the two between which it lies."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from migration import outlook
from zambezi import clock
from zambezi.config.settings import Site, Window

NOW = datetime(2026, 3, 2, 8, 5, tzinfo=UTC)  # a Monday
ALWAYS = (Window(),)
SITE = Site(time_zone="UTC")


def stretches(*counts: int) -> dict[str, int]:
    return {clock.text(NOW - timedelta(minutes=10 * (n + 1)))[:15]: count for n, count in enumerate(counts)}


def test_even_rates_give_one_moment():
    told = outlook.of(600, stretches(100, 100, 100, 100), ALWAYS, SITE, NOW)
    assert (told.per_hour, told.earliest, told.likely, told.latest) == (600, *[NOW + timedelta(hours=1)] * 3)


def test_the_wider_the_spread_the_further_apart():
    slow_then_quick = [*[50] * 6, *[100] * 6, *[150] * 6]
    told = outlook.of(6000, stretches(*slow_then_quick), ALWAYS, SITE, NOW)
    assert told.earliest < told.likely == NOW + timedelta(hours=10) < told.latest
    assert told.latest - told.earliest > timedelta(hours=8)


def test_stretches_in_which_nothing_came_count_as_slow_but_a_pause_does_not():
    one = outlook.of(6000, stretches(100, 0, 100, 0, 100), ALWAYS, SITE, NOW)
    assert one.per_hour == 360
    paused = outlook.of(6000, stretches(100, *[0] * 12, 100, 100), ALWAYS, SITE, NOW)
    assert paused.per_hour == 600


def test_only_open_hours_count():
    nights = (Window(from_=time(20), to=time(6)),)
    told = outlook.of(600 * 15, stretches(100, 100, 100), nights, SITE, NOW)
    assert told.likely == datetime(2026, 3, 4, 1, tzinfo=UTC)  # ten hours of the first night, five of the second


def test_beyond_four_weeks_it_goes_on_as_in_those():
    nights = (Window(from_=time(20), to=time(6)),)
    told = outlook.of(600 * 10 * 100, stretches(100, 100, 100), nights, SITE, NOW)  # a hundred nights
    assert abs(told.likely - (NOW + timedelta(days=100))) < timedelta(days=4)


@pytest.mark.parametrize("counts", [(), (100,), (100, 100), (0, 0, 0)])
def test_too_little_tells_nothing(counts):
    assert outlook.of(600, stretches(*counts), ALWAYS, SITE, NOW) is None


def test_what_takes_longer_than_five_years_has_no_end():
    told = outlook.of(10**9, stretches(1, 1, 1), ALWAYS, SITE, NOW)
    assert told.latest is None
