"""Inventories of sources that cut their answers off, hide studies along one axis, or hold what is undated."""

from __future__ import annotations

import fnmatch
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration import inventory, transfer, worker
from migration.inventory import Days
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


def test_a_day_that_is_cut_off_is_asked_for_hour_by_hour():
    held = studies(200, on="20200505")
    found, _ = inventory.find_studies(AnsweringSource(held, limit=20), TODAY)
    assert found.uids == {study[0] for study in held}


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


def test_the_slices_leave_no_day_out():
    parts = inventory.slices(TODAY)
    assert parts[0].matching == "00010101-19691231"
    assert parts[-1].last == date(9999, 12, 31)
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
