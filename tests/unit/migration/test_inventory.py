"""Inventories of sources that cut their answers off, hide studies along one axis, or hold what is undated."""

from __future__ import annotations

import fnmatch
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration import inventory, oddities, transfer, worker
from migration.slices import Days, Slice, all_days
from migration.source import RUNGS, Checked, Compared, CutOff, Named, trouble_of
from zambezi.config.settings import MigrationSource

TODAY = date(2026, 11, 21)


class AnsweringSource:
    """A source that holds studies (uid, patient, date, time) and answers at most `limit` of them at once."""

    def __init__(self, studies, limit=10**6, says_so=True, hides=lambda matching, study: False):
        self.held, self.limit, self.says_so, self.hides, self.queries = studies, limit, says_so, hides, 0

    def studies(self, **matching):
        self.queries += 1
        found = [study for study in self.held if fits(study, matching) and not self.hides(matching, study)]
        if len(found) > self.limit and self.says_so:
            raise CutOff("DIMSE status 0xFE00")
        keys = ("StudyInstanceUID", "PatientID", "StudyDate", "StudyTime")
        return [dict(zip(keys, study, strict=True)) for study in found[: self.limit]]


def fits(study, matching) -> bool:
    _, patient, day, time = study
    if "StudyDate" in matching:
        first, last = matching["StudyDate"].split("-")
        if not day or not first <= day <= last:
            return False
    if "StudyTime" in matching:
        first, last = matching["StudyTime"].split("-")
        if not first <= time <= last:
            return False
    if "ModalitiesInStudy" in matching or "AccessionNumber" in matching:
        return False  # this source has neither
    return fnmatch.fnmatchcase(patient, matching.get("PatientID", "*"))


def studies(count: int, on: str = "") -> list[tuple[str, str, str, str]]:
    first = date(2001, 1, 1)
    return [
        (f"1.2.{n}", f"P{n % 7}{n}", on or f"{first + timedelta(days=n * 3):%Y%m%d}", f"{n % 24:02}1500")
        for n in range(count)
    ]


def test_undated_studies_are_found_and_counted():
    held = [*studies(20), ("1.9", "Q1", "", ""), ("1.8", "", "", "")]
    found, coverage = inventory.find_studies(AnsweringSource(held), TODAY)
    assert found.uids == {study[0] for study in held}
    assert (coverage.undated, coverage.doubts) == (2, [])


@pytest.mark.parametrize("says_so", [True, False])
def test_no_limit_of_the_source_loses_a_study(says_so):
    held = studies(400)
    found, coverage = inventory.find_studies(AnsweringSource(held, limit=50, says_so=says_so), TODAY)
    assert found.uids == {study[0] for study in held}
    assert coverage.doubts  # the universal query could not be believed, and the certificate will say so
    assert any(remark for _, _, remark in coverage.slices)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_day_that_is_cut_off_is_asked_for_by_time_and_a_minute_by_patient(says_so):
    held = [*studies(80, on="20200505"), *[(f"1.3.{n}", f"AB{n:03}", "20200505", "120003.5") for n in range(25)]]
    found, coverage = inventory.find_studies(AnsweringSource(held, limit=20, says_so=says_so), TODAY)
    assert found.uids == {study[0] for study in held}
    assert coverage.limit == (None if says_so else 20)


@pytest.mark.parametrize("limit", [3, 7, 40])
def test_a_limit_that_shows_in_one_slice_alone_is_found_out_by_asking_that_in_parts(limit):
    """All studies are of one spring: the universal query and the year are cut off at the same number."""
    held = [(f"1.2.{n}", f"P{n}", f"2020{n % 3 + 3:02}{n % 28 + 1:02}", f"{n % 24:02}{n % 60:02}00") for n in range(60)]
    found, coverage = inventory.find_studies(AnsweringSource(held, limit=limit, says_so=False), TODAY)
    assert found.uids == {study[0] for study in held}
    assert coverage.limit == limit
    assert f"the source gives no more than {limit} answers, and doesn't say so" in coverage.doubts


def test_a_source_that_does_not_heed_the_time_is_asked_by_patient():
    class Timeless(AnsweringSource):
        def studies(self, **matching):
            return super().studies(**{key: value for key, value in matching.items() if key != "StudyTime"})

    held = studies(90, on="20200505")
    source = Timeless(held, limit=20)
    found, _ = inventory.find_studies(source, TODAY)
    assert found.uids == {study[0] for study in held}
    assert source.queries < 2000


def test_the_inventory_of_a_source_without_limits_costs_few_questions_and_leaves_no_doubt():
    source = AnsweringSource(studies(2999))
    found, coverage = inventory.find_studies(source, TODAY)
    assert len(found.uids) == 2999
    assert (coverage.doubts, coverage.limit, coverage.repeats) == ([], None, 1)
    assert source.queries < 150


days_of_studies = st.sampled_from(["20200101", "20200102", "20211231", "19991231", ""])
times_of_studies = st.sampled_from(["101500", "1016", "235959.999999", "000000", ""])
patients_of_studies = st.builds("HCM{}{:02}".format, st.sampled_from("0AZ"), st.integers(0, 40))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(patients_of_studies, days_of_studies, times_of_studies), min_size=30, max_size=130),
    st.integers(50, 70), st.booleans(),
)  # fmt: skip
def test_whatever_a_source_has_and_wherever_it_cuts_off_nothing_is_lost_without_a_word(rows, limit, says_so):
    """No patient has more studies than the limit, so that asking patient by patient always ends."""
    held = [(f"1.2.{number}", *row) for number, row in enumerate(rows)]
    found, coverage = inventory.find_studies(AnsweringSource(held, limit=limit, says_so=says_so), TODAY)
    assert found.uids == {study[0] for study in held}
    if len(held) > limit:
        assert coverage.doubts
    else:
        assert coverage.doubts == []


def test_what_comes_while_it_is_asked_is_asked_for_until_nothing_new_comes():
    held = studies(10)

    class Growing(AnsweringSource):
        def studies(self, **matching):
            if not matching and len(self.held) < 12:
                self.held.append((f"1.5.{len(self.held)}", "Z1", "", ""))
            return super().studies(**matching)

    found, coverage = inventory.find_studies(Growing(held), TODAY)
    assert len(found.uids) == 12
    assert coverage.repeats == 2


def test_what_one_axis_hides_is_a_doubt_in_words():
    held = studies(20)
    hidden = AnsweringSource(held, hides=lambda matching, study: "PatientID" in matching and study[0] == "1.2.7")
    _, coverage = inventory.find_studies(hidden, TODAY)
    assert coverage.doubts == ["1 studies are not named when asked for by patient identifier"]


def test_a_study_uid_under_two_patients_is_kept_and_listed():
    found, coverage = inventory.find_studies(
        AnsweringSource([("1.2", "A1", "20200101", ""), ("1.2", "B1", "20200101", "")]), TODAY
    )
    assert found.uids == {"1.2"}
    assert coverage.duplicates == {"1.2": ["A1", "B1"]}


@given(st.integers(0, 86399), st.sampled_from(["", ".5", ".999999"]))
def test_every_time_of_a_day_is_in_one_of_its_parts_however_far_it_is_divided(second, fraction):
    """As text, as many sources compare it, and with fractions of a second between two parts."""
    written = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}{fraction}"
    slice_ = Slice(days=Days(TODAY, TODAY))
    while slice_.axis(heeds_time=True) == "time":
        fitting = []
        for part in slice_.along("time"):
            first, last = part.matching["StudyTime"].split("-")
            if first <= written <= last:
                fitting.append(part)
        assert fitting
        slice_ = fitting[0]
    assert slice_.seconds is not None
    assert slice_.seconds[1] - slice_.seconds[0] <= 60


def test_odd_dates_are_told_apart():
    said = {"1": "20200230", "2": "2020.01.05", "3": "20200101-20200131", "4": "18991231", "5": "20991231", "6": ""}
    facts = {uid: {"StudyDate": day} if day else {} for uid, day in said.items()} | {"7": {"StudyDate": "20200101"}}
    found = oddities.of(facts, {uid: {"P"} for uid in facts}, TODAY)
    told = {sort: entry["examples"] for sort, entry in found.items() if sort.startswith("date") or sort == "undated"}
    assert told == {
        "undated": ["6"], "date-form": ["2", "3"], "date-impossible": ["1"], "date-old": ["4"], "date-future": ["5"],
    }  # fmt: skip


def test_where_it_is_tomorrow_already_an_exam_of_that_day_is_nothing_odd():
    assert [oddities.date_sort(f"{TODAY + timedelta(days=days):%Y%m%d}", TODAY) for days in (1, 2)] == ["", "future"]


def test_the_slices_leave_no_day_out():
    parts = all_days(TODAY)
    assert parts[0].matching == "00010101-19691231"
    assert parts[-1].last == date(9999, 12, 31)
    assert len(parts) == 14
    assert all(one.last + timedelta(days=1) == other.first for one, other in pairwise(parts))


@given(st.dates(date(1990, 1, 1)), st.integers(0, 4000))
def test_halves_of_a_slice_are_the_slice(first, length):
    days = Days(first, min(date.max - first, timedelta(days=length)) + first)
    halves = days.halves()
    if halves is None:
        assert days.first == days.last
    else:
        assert (halves[0].first, halves[1].last) == (days.first, days.last)
        assert halves[0].last + timedelta(days=1) == halves[1].first


uids = st.sets(st.integers(1, 60).map(lambda n: f"1.{n}"), min_size=1)


@settings(deadline=None)
@given(uids, st.data(), st.sampled_from(RUNGS))
def test_what_is_asked_for_covers_what_is_missing(expected_uids, data, rung):
    expected = {uid: Named(f"2.{hash(uid) % 3}") for uid in expected_uids}
    missing = data.draw(st.sets(st.sampled_from(sorted(expected)), min_size=1))
    covered = set()
    for request in transfer.plan("9", expected, missing, rung):
        if request.level == "Study":
            covered |= set(expected)
        elif request.level == "Series":
            covered |= {uid for uid, named in expected.items() if named.series_uid == request.keys[1]}
        else:
            covered.add(request.keys[2])
    assert missing <= covered
    if rung == "Instance":
        assert covered == missing
    assert transfer.plan("9", expected, set(), "Instance") == []


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ('C-MOVE SCU to AET "L" has failed with DIMSE status 0xA801', "configuration"),
        ('C-MOVE SCU to AET "L" has failed with DIMSE status 0xA702', "object"),
        ('C-MOVE SCU to AET "L" has failed with DIMSE status 0xC000', "object"),
        ('C-MOVE SCU to AET "L" has failed with DIMSE status 0xA701', "transient"),
        ('connecting to AET "L": TCP Initialization Error: Connection refused', "transient"),
        ("No modality with symbolic name: nobody", "configuration"),
        ("", "object"),
    ],
)
def test_errors_are_told_apart_by_what_helps(details, kind):
    assert trouble_of(details).kind == kind


def compared(verdict: str, *tags: str) -> Compared:
    return Compared(verdict, "a", "a" if verdict == "equal" else "b", "", tags)


def decided(attempts: int, missing: set[str], checked: Checked, vanished: set[str]) -> worker.Outcome:
    return worker.decide(attempts, missing, checked, [], vanished, MigrationSource(peer="L").policy, 0.0)


def test_a_study_is_verified_by_comparison_only():
    assert decided(1, set(), Checked({"1": compared("equal")}), set()).state == "verified"
    assert decided(1, {"2"}, Checked({"1": compared("equal")}), set()).state == "retrying"
    assert decided(3, {"2"}, Checked({"1": compared("equal")}), set()).state == "parked"
    assert decided(1, set(), Checked(not_sent={"1"}), set()).state == "retrying"
    assert decided(1, set(), Checked({"1": compared("different", "(0010,0010)")}), set()).state == "divergent"
    assert decided(1, set(), Checked({"1": compared("equal")}), {"3"}).state == "vanished"
