"""How many studies at once a source is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from migration import pace
from migration.pace import Pace
from zambezi.config.settings import MigrationSource, Site
from zambezi.config.settings.migration_hours import CeilingHours

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def rounds(found: Pace, times: int, ceiling: int, each=lambda slots: 0.4) -> list[Pace]:
    """So many whole rounds of studies of ten images, all slots in use; the pace after each round."""
    after = []
    for _ in range(times):
        slots = found.allowed(ceiling)
        for _ in range(slots):
            found = pace.went_well(found, slots, 10, 10 * each(slots), ceiling, NOW)
        after.append(found)
    return after


def test_it_doubles_until_the_first_trouble_and_never_beyond_the_ceiling():
    assert [one.slots for one in rounds(Pace(), 4, 6)] == [2, 4, 6, 6]


def test_after_trouble_half_of_it_and_one_more_at_a_time():
    cut = pace.went_wrong(Pace(slots=8), "timed out", NOW, 8, NOW)
    assert (cut.slots, cut.because) == (4, "timed out")
    assert [one.slots for one in rounds(cut, 3, 8)] == [5, 6, 7]


def test_one_outage_halves_once_however_many_studies_it_meets():
    cut = pace.went_wrong(Pace(slots=8), "timed out", NOW, 8, NOW + timedelta(seconds=30))
    again = pace.went_wrong(cut, "timed out", NOW + timedelta(seconds=5), 8, NOW + timedelta(seconds=31))
    assert again == cut
    assert pace.went_wrong(cut, "x", NOW + timedelta(seconds=40), 8, NOW + timedelta(seconds=50)).slots == 2


def test_what_goes_well_while_slots_stand_empty_raises_nothing():
    found = Pace(slots=4)
    for _ in range(20):
        found = pace.went_well(found, 2, 10, 1, 8, NOW)
    assert found.slots == 4


def test_more_at_once_is_given_up_where_no_more_comes_through():
    """Each image takes as long as there are studies at once: the source serves one after the other."""
    found = rounds(Pace(), 3, 8, lambda slots: 0.4 * slots)[-1]
    assert found.slots == 2
    assert "times as long" in found.because


def test_slower_images_are_no_trouble_while_more_comes_through():
    assert rounds(Pace(), 4, 8, lambda slots: 0.4 * slots**0.5)[-1].slots == 8


def test_of_small_studies_a_round_takes_more_before_anything_is_concluded():
    found = Pace()
    for n in range(10):
        assert found.slots == 1, f"after {n} studies of a tenth of a second"
        found = pace.went_well(found, 1, 1, 0.1, 8, NOW)
    assert found.slots == 2


def test_a_study_that_was_there_already_says_nothing_of_the_source():
    assert pace.went_well(Pace(), 1, 0, 0, 8, NOW).slots == 1


def test_in_working_hours_another_ceiling():
    working = CeilingHours(from_=time(7), to=time(19), days=("Mon", "Tue", "Wed", "Thu", "Fri"), ceiling=1)
    source, site = MigrationSource(peer="L", ceiling=8, ceilings=(working,)), Site(time_zone="UTC")
    hours = [datetime(2026, 3, day, hour, tzinfo=UTC) for day, hour in ((2, 6), (2, 12), (1, 12))]
    assert [pace.ceiling(source, site, at) for at in hours] == [8, 1, 8]
    with pytest.raises(ValueError, match="belongs to Windows"):
        CeilingHours(ceiling=1, kilobits_per_second=100)
