from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zambezi.config.settings import Window
from zambezi.windows import is_open, next_opening

MAPUTO = ZoneInfo("Africa/Maputo")
BERLIN = ZoneInfo("Europe/Berlin")  # its clock is changed in spring and autumn
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ZONES = ("Africa/Maputo", "Africa/Harare", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "Asia/Kathmandu")


def window(days: str, opens: str, closes: str) -> Window:
    return Window(days=tuple(days.split()), from_=time.fromisoformat(opens), to=time.fromisoformat(closes))


def maputo(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=MAPUTO)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-02T08:00", True),  # Monday, on the dot
        ("2026-03-06T16:59:59", True),  # Friday is one of Monday to Friday
        ("2026-03-06T17:00", False),  # the end is exclusive
        ("2026-03-07T12:00", False),  # Saturday
        ("2026-03-02T07:59:59", False),
    ],
)
def test_a_window_opens_on_every_one_of_its_weekdays_and_closes_at_its_end(at, expected):
    assert is_open([window("Mon Tue Wed Thu Fri", "08:00", "17:00")], maputo(at), MAPUTO) is expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-08T22:00", True),  # Sunday evening
        ("2026-03-09T05:59", True),  # Monday morning still belongs to Sunday's window
        ("2026-03-09T06:00", False),
        ("2026-03-08T05:00", False),  # Sunday morning would be Saturday's
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_began(at, expected):
    assert is_open([window("Sun", "22:00", "06:00")], maputo(at), MAPUTO) is expected


def test_equal_times_mean_the_whole_day():
    whole = [window("Sat", "00:00", "00:00")]
    assert is_open(whole, maputo("2026-03-07T00:00"), MAPUTO)
    assert is_open(whole, maputo("2026-03-07T23:59:59"), MAPUTO)
    assert not is_open(whole, maputo("2026-03-08T00:00"), MAPUTO)


def test_the_sites_time_zone_decides():
    assert is_open([window("Mon", "00:00", "01:00")], datetime(2026, 3, 1, 22, 30, tzinfo=UTC), MAPUTO)


def test_no_window_never_opens():
    assert not is_open([], maputo("2026-03-02T08:00"), MAPUTO)
    assert next_opening([], maputo("2026-03-02T08:00"), MAPUTO) is None


def test_the_next_opening_is_said_in_utc():
    nights = [window("Mon", "20:00", "06:00")]
    assert next_opening(nights, maputo("2026-03-03T07:00"), MAPUTO) == datetime(2026, 3, 9, 18, 0, tzinfo=UTC)


def test_an_opening_that_the_clock_jumps_over_comes_with_the_jump():
    spring = [window("Sun", "02:30", "04:00")]  # 29 March 2026: 02:00 becomes 03:00
    before = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    assert next_opening(spring, before, BERLIN) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_an_hour_that_comes_twice_is_open_twice():
    autumn = [window("Sun", "02:00", "02:30")]  # 25 October 2026: 03:00 becomes 02:00
    assert is_open(autumn, datetime(2026, 10, 25, 0, 15, tzinfo=UTC), BERLIN)
    assert not is_open(autumn, datetime(2026, 10, 25, 0, 45, tzinfo=UTC), BERLIN)
    assert next_opening(autumn, datetime(2026, 10, 25, 0, 45, tzinfo=UTC), BERLIN) == datetime(
        2026, 10, 25, 1, 0, tzinfo=UTC
    )


minutes = st.integers(0, 24 * 60 - 1).map(lambda n: time(n // 60, n % 60))
some_windows = st.lists(
    st.builds(
        lambda days, opens, closes: Window(days=tuple(days), from_=opens, to=closes),
        st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True),
        minutes,
        minutes,
    ),
    min_size=1,
    max_size=3,
)
# Around the clock changes of 2026, and any other time of that year.
moments = st.one_of(
    st.datetimes(datetime.fromisoformat("2026-03-27"), datetime.fromisoformat("2026-03-30")),
    st.datetimes(datetime.fromisoformat("2026-10-23"), datetime.fromisoformat("2026-10-26")),
    st.datetimes(datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2026-12-31")),
).map(lambda moment: moment.replace(tzinfo=UTC))
zones = st.sampled_from(ZONES).map(ZoneInfo)


@given(some_windows, moments, zones)
def test_at_the_next_opening_it_is_open_and_not_a_second_before(windows, at, zone):
    opening = next_opening(windows, at, zone)
    if opening is None:  # only windows that lie wholly in an hour the clock leaves out
        return
    assert opening >= at
    assert is_open(windows, opening, zone)
    if opening > at:
        assert not is_open(windows, max(at, opening - timedelta(seconds=1)), zone)


@given(some_windows, moments, zones, st.integers(0, 14 * 24 * 4))
def test_nothing_is_open_before_the_next_opening(windows, at, zone, quarters):
    opening = next_opening(windows, at, zone)
    sample = at + timedelta(minutes=15 * quarters)
    if opening is not None and sample < opening:
        assert not is_open(windows, sample, zone)


@given(st.sampled_from(WEEKDAYS), minutes, minutes, st.dates(date(2026, 1, 1), date(2026, 12, 31)), minutes)
def test_a_window_and_its_complement_share_no_moment_and_leave_none_out(day, opens, closes, on, clock):
    if opens == closes:
        return
    at = datetime.combine(on, clock, MAPUTO)
    all_days = Window(from_=opens, to=closes)
    others = Window(from_=closes, to=opens)
    assert is_open([all_days], at, MAPUTO) != is_open([others], at, MAPUTO)
