from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zambezi import holidays
from zambezi.bandwidth import BURST_S, Bucket, refilled, take
from zambezi.config.settings import Site, Window
from zambezi.windows import cap_at, closes_at, is_open, next_opening

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ZONES = ("Europe/Lisbon", "America/New_York", "Africa/Maputo", "Africa/Harare", "Australia/Lord_Howe")
MAPUTO = ZoneInfo("Africa/Maputo")
MINUTE = timedelta(minutes=1)


def at(text: str, zone: ZoneInfo = MAPUTO) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


# --- holidays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "day", "expected"),
    [
        ("2026-04-03", "2026-04-03", True),
        ("2026-04-03", "2027-04-03", False),
        ("2026-12-24..2026-12-26", "2026-12-24", True),
        ("2026-12-24..2026-12-26", "2026-12-26", True),
        ("2026-12-24..2026-12-26", "2026-12-27", False),
        ("2026-12-24..2027-01-02", "2027-01-01", True),
        ("06-25", "2026-06-25", True),  # independence of Mozambique
        ("06-25", "2031-06-25", True),
        ("06-25", "2031-06-24", False),
        ("12-24..01-02", "2026-12-31", True),
        ("12-24..01-02", "2027-01-02", True),
        ("12-24..01-02", "2027-01-03", False),
        ("12-24..01-02", "2026-07-01", False),
        ("02-29", "2028-02-29", True),
        ("02-29", "2027-03-01", False),
    ],
)
def test_both_ends_of_a_holiday_belong_to_it(written, day, expected):
    assert holidays.parse(written).includes(date.fromisoformat(day)) is expected


@pytest.mark.parametrize(
    "written", ["", "Easter", "2026-02-30", "13-01", "2026-12-26..2026-12-24", "2026-12-24..01-02", "2026-1-1", "25-12"]
)
def test_what_is_no_day_is_refused_with_what_was_found(written):
    with pytest.raises(ValidationError, match=written or "found"):
        Site.model_validate({"Holidays": [written]})


NIGHTS = Window(days=WEEKDAYS[:5], from_=time(20), to=time(6))
HOLIDAY = (holidays.parse("2026-06-25"),)  # a Thursday


def nights(what: str) -> list[Window]:
    return [NIGHTS.model_copy(update={"holidays": what})]


@pytest.mark.parametrize(
    ("what", "moment", "expected"),
    [
        ("as usual", "2026-06-25T21:00", True),
        ("as usual", "2026-06-25T12:00", False),
        ("closed", "2026-06-25T21:00", False),
        ("closed", "2026-06-26T03:00", False),  # would be the holiday's night
        ("closed", "2026-06-25T03:00", True),  # Wednesday's night
        ("closed", "2026-06-26T21:00", True),
        ("open all day", "2026-06-25T00:00", True),
        ("open all day", "2026-06-25T12:00", True),
        ("open all day", "2026-06-26T03:00", True),  # its usual night, besides
        ("open all day", "2026-06-26T07:00", False),
    ],
)
def test_what_a_window_does_on_a_holiday(what, moment, expected):
    assert is_open(nights(what), at(moment), MAPUTO, HOLIDAY) is expected


def test_open_all_day_opens_on_a_holiday_whatever_the_weekday():
    weekend = [Window(days=("Sat", "Sun"), holidays="open all day")]
    assert is_open(weekend, at("2026-06-25T12:00"), MAPUTO, HOLIDAY)
    assert not is_open(weekend, at("2026-06-26T00:00"), MAPUTO, HOLIDAY)


def test_a_week_of_holidays_is_slept_through():
    closed = [Window(days=WEEKDAYS, holidays="closed", from_=time(8), to=time(9))]
    week = (holidays.parse("12-20..01-10"),)
    assert next_opening(closed, at("2026-12-20T08:30"), MAPUTO, week) == at("2027-01-11T08:00")


def test_dates_of_a_window_are_inclusive_and_belong_to_the_day_on_which_it_opens():
    july = [Window(valid_from=date(2026, 7, 1), valid_until=date(2026, 7, 31), from_=time(20), to=time(6))]
    assert not is_open(july, at("2026-07-01T03:00"), MAPUTO)
    assert is_open(july, at("2026-07-01T20:00"), MAPUTO)
    assert is_open(july, at("2026-08-01T05:59"), MAPUTO)
    assert not is_open(july, at("2026-08-01T20:00"), MAPUTO)
    assert next_opening(july, at("2020-01-01T00:00"), MAPUTO) == at("2026-07-01T20:00")
    assert next_opening(july, at("2026-08-01T06:00"), MAPUTO) is None


def test_a_window_that_never_opens_is_refused():
    with pytest.raises(ValidationError, match="ValidUntil is before ValidFrom"):
        Window(valid_from=date(2026, 7, 2), valid_until=date(2026, 7, 1))


def test_what_is_always_open_never_closes():
    assert closes_at([Window()], at("2026-03-01T08:00"), MAPUTO) is None
    assert closes_at([], at("2026-03-01T08:00"), MAPUTO) == at("2026-03-01T08:00")


def test_in_an_hour_that_comes_twice_a_window_opens_and_closes_twice():
    lisbon = ZoneInfo("Europe/Lisbon")  # 25 October 2026, 01:00 UTC: 02:00 becomes 01:00
    quarter = [Window(from_=time(1, 15), to=time(1, 30))]
    edges = [datetime(2026, 10, 25, hour, minute, tzinfo=UTC) for hour in (0, 1) for minute in (15, 30)]
    assert next_opening(quarter, datetime(2026, 10, 25, tzinfo=UTC), lisbon) == edges[0]
    assert closes_at(quarter, edges[0], lisbon) == edges[1]
    assert next_opening(quarter, edges[1], lisbon) == edges[2]
    assert closes_at(quarter, edges[2], lisbon) == edges[3]


def test_an_end_that_the_clock_jumps_over_comes_with_the_jump():
    new_york = ZoneInfo("America/New_York")  # 8 March 2026, 07:00 UTC: 02:00 becomes 03:00
    night = [Window(days=("Sun",), from_=time(1), to=time(2, 30))]
    assert closes_at(night, datetime(2026, 3, 8, 6, 30, tzinfo=UTC), new_york) == datetime(2026, 3, 8, 7, tzinfo=UTC)


# --- against an oracle: every minute of four days, asked one by one on the wall ---------------------------


def oracle(windows: list[Window], moment: datetime, zone: ZoneInfo, days: list[date]) -> bool:
    """Written from the manual's sentences alone: go through the minutes of a window from where it opens."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    for window in windows:
        for back in (0, 1):
            day = wall.date() - timedelta(days=back)
            if (window.valid_from and day < window.valid_from) or (window.valid_until and day > window.valid_until):
                continue
            minute = (wall - datetime.combine(day, time())) // MINUTE
            opens = window.from_.hour * 60 + window.from_.minute
            closes = window.to.hour * 60 + window.to.minute
            closes += 1440 if closes <= opens else 0
            usual = WEEKDAYS[day.weekday()] in window.days and opens <= minute < closes
            if day in days and window.holidays == "closed":
                continue
            if usual or (day in days and window.holidays == "open all day" and minute < 1440):
                return True
    return False


times = st.integers(0, 95).map(lambda n: time(n // 4, n % 4 * 15))
dates = st.dates(date(2026, 3, 1), date(2026, 11, 30))
some_windows = st.lists(
    st.builds(
        lambda days, opens, closes, first, length, what: Window(
            days=tuple(days), from_=opens, to=closes, holidays=what, valid_from=first,
            valid_until=first + timedelta(days=length) if first else None,
        ),
        st.lists(st.sampled_from(WEEKDAYS), unique=True),
        times,
        times,
        st.one_of(st.none(), dates),
        st.integers(0, 60),
        st.sampled_from(["closed", "open all day", "as usual"]),
    ),
    max_size=3,
)  # fmt: skip
#: The clock's changes of 2026: Lisbon 29 March and 25 October, New York 8 March and 1 November, Lord Howe 5 April and
#: 4 October (by half an hour); and any day.
starts = st.one_of(
    st.sampled_from(["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-10-03"]).map(
        date.fromisoformat
    ),
    dates,
)


@settings(max_examples=60, deadline=None)
@given(some_windows, starts, st.sampled_from(ZONES).map(ZoneInfo), st.lists(st.integers(-1, 5), max_size=3))
def test_every_minute_is_as_the_oracle_says_and_so_are_the_next_opening_and_the_end(windows, start, zone, offsets):
    days = [start + timedelta(days=n) for n in offsets]
    known = tuple(holidays.parse(day.isoformat()) for day in days)
    begin = datetime.combine(start, time(12), UTC)
    minutes = [begin + n * MINUTE for n in range(0, 2 * 1440)]
    truth = [oracle(windows, minute, zone, days) for minute in minutes]
    assert [is_open(windows, minute, zone, known) for minute in minutes] == truth
    for n in range(0, len(minutes), 97):
        opening = next((m for m, said in zip(minutes[n:], truth[n:], strict=True) if said), None)
        found = next_opening(windows, minutes[n], zone, known)
        assert found == opening if opening else found is None or found > minutes[-1]
        closing = next((m for m, said in zip(minutes[n:], truth[n:], strict=True) if not said), None)
        found = closes_at(windows, minutes[n], zone, known)
        assert found == closing if closing else found is None or found > minutes[-1]


# --- caps -------------------------------------------------------------------------------------------


def test_the_tightest_of_the_open_windows_counts():
    always = Window(kilobits_per_second=8000)
    office = Window(days=WEEKDAYS[:5], from_=time(8), to=time(17), kilobits_per_second=512)
    assert cap_at([always, office], at("2026-03-02T09:00"), MAPUTO) == 512
    assert cap_at([always, office], at("2026-03-02T17:00"), MAPUTO) == 8000
    assert cap_at([Window(), office], at("2026-03-02T09:00"), MAPUTO) == 512
    assert cap_at([Window(), office], at("2026-03-02T18:00"), MAPUTO) is None
    assert cap_at([office], at("2026-03-02T18:00"), MAPUTO) is None


NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


@given(
    st.integers(8, 1_000_000),
    st.lists(st.tuples(st.integers(0, 50_000_000), st.floats(0, 60)), min_size=1, max_size=40),
)
def test_whoever_waits_as_told_never_sends_faster_than_the_cap(rate, sends):
    bucket, now, sent = Bucket.full(rate, NOW), NOW, 0
    for size, dawdle in sends:
        # Before each object no more has gone than the burst and what the time since gave.
        allowed = rate * 125 * ((now - NOW).total_seconds() + BURST_S)
        assert sent <= allowed + 1 + rate * 125 * 2e-6 * len(sends)
        bucket, wait = take(bucket, size, rate, now)
        sent += size
        assert wait >= timedelta()
        now += wait + timedelta(seconds=dawdle)


def test_a_pause_saves_up_no_more_than_the_burst():
    spent, _ = take(Bucket.full(800, NOW), 100_000, 800, NOW)
    assert refilled(spent, 800, NOW + timedelta(hours=9)).level == 100_000 * BURST_S


def test_one_object_that_is_larger_than_the_burst_is_paid_for_afterwards():
    _, wait = take(Bucket.full(800, NOW), 1_100_000, 800, NOW)
    assert wait == timedelta(seconds=10)


def test_a_clock_that_was_put_back_fills_nothing():
    spent, _ = take(Bucket.full(800, NOW), 100_000, 800, NOW)
    assert refilled(spent, 800, NOW - timedelta(hours=1)).level == 0
