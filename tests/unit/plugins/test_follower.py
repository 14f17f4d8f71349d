"""Following /changes: what is stored is recorded exactly once, whatever happens to the index."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from plugins import follower
from plugins.arrivals import Arrivals
from plugins.completeness import Completeness, Signs
from plugins.follower import Follower
from plugins.journal import Journal
from plugins.noted import Noted
from plugins.pushed import Announced
from plugins.recorder import Recorder
from plugins.refusals import Refusals
from plugins.rules import Rules
from plugins.spool import Spool
from tests.unit.plugins.fake_orthanc import FakeOrthanc
from zambezi.causes import Because
from zambezi.chain import first_broken
from zambezi.config import Configuration, Zambezi

START = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


class FixedRules(Rules):
    def __init__(self, section: dict[str, Any]) -> None:
        self.now = Configuration({}, Zambezi.model_validate(section), "c0ffee")


@dataclass
class Bench:
    """A follower on an Orthanc in memory; `restart` is what a crash or a stop leaves."""

    folder: Path
    section: dict[str, Any] = field(default_factory=dict)
    orthanc: FakeOrthanc = field(default_factory=FakeOrthanc)
    announced: Announced = field(default_factory=Announced)
    signs: Signs = field(default_factory=dict)
    index_id: str = "index-1"
    now: datetime = START

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, recovering: bool = False) -> None:
        self.journal = Journal(self.folder / "journal.db")
        spools = Spool(self.folder / "queries.log"), Spool(self.folder / "incidents.log")
        rules = FixedRules(self.section)
        self.recorder = Recorder(self.journal, rules)
        self.arrivals = Arrivals(self.journal, self.folder / "hold", lambda: self.announced, recovering)
        self.completeness = Completeness(self.journal, rules, lambda: self.signs, lambda: self.announced)
        self.follower = Follower(
            self.orthanc, self.journal, self.recorder, self.completeness,
            Noted(self.journal, *spools, Refusals()), self.arrivals, self.index_id,
            lambda: self.announced, lambda: None, recovering,
        )  # fmt: skip

    def follow(self, seconds: float = 0) -> None:
        self.now += timedelta(seconds=seconds)
        for _ in range(3):
            while self.follower.round(self.now):
                pass

    def entries(self) -> list[dict[str, Any]]:
        sealed = self.journal.entries_after(0, "", 100000)
        assert first_broken(sealed) is None
        return [one.facts for one in sealed]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.entries() if one["event"] == event]

    def stored(self) -> Counter[str]:
        return Counter(one["orthanc_id"] for one in self.told("stored"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_store_is_one_entry_and_a_study_begins_once(bench: Bench) -> None:
    for n in range(5):
        bench.orthanc.store(f"i{n}")
    bench.follow()
    bench.restart()
    bench.orthanc.store("i9")
    bench.follow()
    assert bench.stored() == Counter({f"i{n}": 1 for n in (0, 1, 2, 3, 4, 9)})
    assert len(bench.told("study-began")) == 1


def test_more_than_a_piece_is_read_to_the_end(bench: Bench) -> None:
    for n in range(2500):
        bench.orthanc.store(f"i{n}")
    bench.follow()
    assert sum(bench.stored().values()) == 2500


def test_a_study_is_complete_when_it_was_quiet_also_over_a_restart(bench: Bench) -> None:
    bench.orthanc.store("i1")
    bench.follow()
    bench.follow(20)
    assert bench.told("study-completed") == []
    bench.restart()
    bench.follow(11)
    (completed,) = bench.told("study-completed")
    assert (completed["generation"], completed["instances"], completed["added"]) == (1, 1, 1)
    bench.follow(100)
    assert len(bench.told("study-completed")) == 1


def test_each_store_starts_the_clock_anew(bench: Bench) -> None:
    for n in range(4):
        bench.orthanc.store(f"i{n}")
        bench.follow(25)
    assert bench.told("study-completed") == []
    bench.follow(31)
    assert [one["added"] for one in bench.told("study-completed")] == [4]


def test_late_images_are_routed_alone_as_the_next_generation(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"Destinations": {"B": {}}, "Routing": [{"Name": "all", "SendTo": ["B"]}]})
    bench.orthanc.store("i1")
    bench.orthanc.store("i2")
    bench.follow()
    bench.follow(31)
    bench.restart()
    bench.orthanc.store("i3")
    bench.follow()
    bench.follow(31)
    assert [(r["generation"], [i[0] for i in r["instances"]]) for r in bench.told("routed")] == [
        (1, ["i1", "i2"]),
        (2, ["i3"]),
    ]


def test_a_lost_tail_that_comes_again_is_stored_again_not_stored(bench: Bench) -> None:
    for n in range(6):
        bench.orthanc.store(f"i{n}")
        bench.follow()
    lost = bench.orthanc.lose_behind(2)
    bench.restart(recovering=True)
    bench.follow()
    for one in reversed(lost):  # the same numbers, for others
        bench.orthanc.store(one)
        bench.follow()
    bench.orthanc.store("unrecorded")
    bench.follow()
    bench.restart()
    bench.follow()
    assert bench.stored() == Counter({**{f"i{n}": 1 for n in range(6)}, "unrecorded": 1})
    assert sorted(one["orthanc_id"] for one in bench.told("stored-again")) == sorted(lost)
    assert bench.told("incident") == []
    assert bench.told("deleted") == []


def test_a_lost_tail_that_stays_lost_is_an_incident(bench: Bench) -> None:
    for n in range(4):
        bench.orthanc.store(f"i{n}")
        bench.follow()
    bench.orthanc.lose_behind(2)
    bench.restart()
    bench.follow()
    (incident,) = bench.told("incident")
    assert incident["count"] == 2
    assert [i[0] for i in bench.told("deleted")[0]["instances"]] == ["i2", "i3"]


def test_a_deletion_that_was_seen_is_recorded_without_an_incident(bench: Bench) -> None:
    bench.orthanc.store("i1", "S1")
    bench.orthanc.store("i2", "S2")
    bench.follow()
    bench.orthanc.delete("i2")
    bench.follower.check_deleted("S2")
    bench.follow()
    (deleted,) = bench.told("deleted")
    assert (deleted["study_uid"], [i[0] for i in deleted["instances"]]) == ("3.2", ["i2"])
    bench.restart()
    bench.follow()
    assert bench.told("incident") == []
    assert bench.told("stored-again") == []


def test_a_deletion_told_after_the_instance_came_again_is_no_deletion_of_the_new_one(bench: Bench) -> None:
    bench.orthanc.store("i1")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.orthanc.store("i1")
    bench.follow()
    bench.follower.check_deleted("i1")
    bench.follow()
    # Nothing was left of the study meanwhile: who it is about is told again.
    began = ["study-began", "stored"]
    assert [one["event"] for one in bench.entries()] == [*began, "deleted", *began]


@pytest.mark.parametrize("told", [True, False])
def test_who_a_study_is_about_that_came_again_at_once_is_read_anew(bench: Bench, told: bool) -> None:
    bench.orthanc.names["S1"] = "Before"
    bench.orthanc.store("i1", "S1")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.orthanc.names["S1"] = "After"
    bench.orthanc.store("i1", "S1")
    if told:
        bench.follower.check_deleted("S1")
    bench.follow()
    assert [one["patient_name"] for one in bench.told("study-began")] == ["Before", "After"]


def test_a_study_that_came_again_at_once_has_its_own_issuer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"Site": {"Issuer": "HCM"}})
    bench.orthanc.issuers["i1"] = "BEIRA"
    for _ in range(2):
        bench.orthanc.store("i1", "S1")
        bench.follow()
        bench.orthanc.delete("i1")
        bench.orthanc.store("i1", "S1")
        bench.follow()
    assert {one["issuer"] for one in bench.told("study-began")} == {"BEIRA"}


def test_a_late_image_is_recorded_however_many_studies_came_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_PARENTS", 20)
    number = itertools.count(1)
    for others in range(1, 15):  # the series is forgotten, about to be, or the first to be
        bench.orthanc.store(f"i{next(number)}", f"S{others}00")
        for _ in range(others):
            one = next(number)
            bench.orthanc.store(f"i{one}", f"S{one}")
            bench.follow()
        for _ in range(3):  # in the same round
            one = next(number)
            bench.orthanc.store(f"i{one}", f"S{one}")
        bench.orthanc.store(f"i{next(number)}", f"S{others}00")
        bench.follow()
        assert bench.stored() == Counter(dict.fromkeys(bench.orthanc.held, 1))
    assert bench.told("deleted") == []


def test_what_changes_does_not_tell_any_more_is_recorded_at_a_start_however_much_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "_PARENTS", 20)
    monkeypatch.setattr(follower, "PIECE", 16)
    for n in range(60):
        bench.orthanc.store(f"i{n}", f"S{n}")
    bench.orthanc.rows.clear()
    bench.follow()
    assert bench.stored() == Counter(dict.fromkeys(bench.orthanc.held, 1))


def test_an_instance_that_came_again_at_once_is_recorded_though_its_deletion_is_told_of_too(bench: Bench) -> None:
    bench.orthanc.store("i1", "S1")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.orthanc.store("i1", "S1")
    for gone in ("i1", "S1"):
        bench.follower.check_deleted(gone)
    bench.follow()
    began = ["study-began", "stored"]
    assert [one["event"] for one in bench.entries()] == [*began, "deleted", *began]


def test_a_deletion_is_recorded_though_the_round_that_was_told_of_it_failed(bench: Bench) -> None:
    bench.orthanc.store("i1", "S1")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.follower.check_deleted("S1")
    bench.recorder.record_deleted, works = None, bench.recorder.record_deleted  # a fault within the transaction
    with pytest.raises(TypeError):
        bench.follow()
    bench.recorder.record_deleted = works
    bench.follow()
    assert len(bench.told("deleted")) == 1


def test_deleting_the_newest_is_not_a_power_cut(bench: Bench) -> None:
    for n in range(4):
        bench.orthanc.store(f"i{n}", f"S{n}")
        bench.follow()
    bench.orthanc.delete("i3")
    bench.restart()
    bench.follow()
    assert bench.told("stored-again") == []
    assert [one["study_uid"] for one in bench.told("deleted")] == ["3.3"]
    bench.orthanc.store("i4", "S4")
    bench.follow()
    assert bench.stored()["i4"] == 1


def test_an_older_deletion_that_nobody_saw_is_found_at_the_start(bench: Bench) -> None:
    for n in range(4):
        bench.orthanc.store(f"i{n}", f"S{n}")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.restart()
    bench.follow()
    assert [one["study_uid"] for one in bench.told("deleted")] == ["3.1"]
    assert len(bench.told("incident")) == 1


def test_an_instance_without_a_row_in_changes_is_found_at_the_start(bench: Bench) -> None:
    bench.orthanc.store("i1")
    bench.orthanc.store("i2", "S2")
    bench.orthanc.rows = [row for row in bench.orthanc.rows if row[2] != "i2"]
    bench.follow()
    assert bench.stored() == Counter({"i1": 1, "i2": 1})
    bench.restart()
    bench.follow()
    assert bench.stored() == Counter({"i1": 1, "i2": 1})


def test_another_index_is_read_from_its_beginning(bench: Bench) -> None:
    for n in range(3):
        bench.orthanc.store(f"i{n}")
    bench.follow()
    bench.orthanc = FakeOrthanc(minute=9)
    bench.index_id = "index-2"
    for n in (2, 0, 1, 7):
        bench.orthanc.store(f"i{n}")
    bench.restart()
    bench.follow()
    assert bench.stored() == Counter({f"i{n}": 1 for n in (0, 1, 2, 7)})
    assert len(bench.told("stored-again")) == 3


def test_an_instance_gone_before_its_facts_were_read_is_told(bench: Bench) -> None:
    bench.orthanc.store("i1")
    rows = list(bench.orthanc.rows)
    bench.orthanc.delete("i1")
    bench.orthanc.rows = rows
    bench.follow()
    assert [one["noticed"] for one in bench.told("deleted")] == ["unread"]


def test_what_came_and_went_in_one_round_is_told_as_both(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is deleted when its facts have been read, and before it is recorded."""
    bench.orthanc.store("i1")
    read = bench.follower._instances

    def and_then_it_goes(orthanc_ids: list[str]) -> dict[str, Any]:
        found = read(orthanc_ids)
        if "i1" in found:
            bench.orthanc.delete("i1")
            for resource in ("i1", *{one.study_orthanc_id for one in found.values()}):
                bench.follower.check_deleted(resource)
        return found

    monkeypatch.setattr(bench.follower, "_instances", and_then_it_goes)
    bench.follow()
    assert [one["event"] for one in bench.entries()] == ["study-began", "stored", "deleted"]
    assert bench.told("deleted")[0]["noticed"] == "seen"
    bench.restart()
    bench.follow()
    assert bench.told("incident") == []


def test_a_deletion_is_asked_about_until_a_round_has_recorded_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.orthanc.store("i1")
    bench.follow()
    bench.orthanc.delete("i1")
    bench.follower.check_deleted("i1")
    with monkeypatch.context() as patch:
        patch.setattr(bench.recorder, "record_deleted", Mock(side_effect=OSError("the disk is full")))
        with pytest.raises(OSError, match="full"):
            bench.follow()
    bench.follow()
    assert len(bench.told("deleted")) == 1


def test_announced_studies_have_their_cause_and_set_off_nothing_else(tmp_path: Path) -> None:
    section = {"Destinations": {"B": {}}, "Routing": [{"Name": "all", "SendTo": ["B"]}]}
    bench = Bench(tmp_path, section, announced=Announced({"3.1": Because("migration", "legacy")}))
    bench.orthanc.store("i1", "S1")
    bench.follow()
    bench.follow(31)
    assert [one["cause"] for one in bench.told("study-completed")] == ["migration"]
    assert bench.told("routed") == []


def test_the_same_uid_in_another_study_is_a_conflict_told_by_the_later_one(bench: Bench) -> None:
    bench.orthanc.same_sop = True
    bench.orthanc.store("i1", "S1")
    bench.follow()
    bench.orthanc.store("i2", "S2")
    bench.orthanc.store("i3", "S3")
    bench.follow()
    told = [(one["orthanc_id"], one["other_orthanc_id"], one["other_study_uid"]) for one in bench.told("conflict")]
    assert told == [("i2", "i1", "3.1"), ("i3", "i1", "3.1"), ("i3", "i2", "3.2")]
    bench.orthanc.delete("i1")
    bench.follower.check_deleted("i1")
    bench.follow()
    bench.orthanc.store("i4", "S4")
    bench.follow()
    assert [one["other_orthanc_id"] for one in bench.told("conflict")[3:]] == ["i2", "i3"]


def test_what_is_recorded_is_not_asked_for_again(bench: Bench) -> None:
    for n in range(50):
        bench.orthanc.store(f"i{n}")
    bench.follow()
    before = bench.orthanc.asked_contents
    for _ in range(5):
        bench.follow(1)
    assert bench.orthanc.asked_contents == before


def test_queries_become_entries_once(bench: Bench) -> None:
    line = (
        '{"kind": "find", "aet": "CT1", "ip": "10.0.0.1", "called_aet": "ZAMBEZI", "query": {"0008,0052": "STUDY"}}\n'
    )
    (bench.folder / "queries.log").write_text(line + "broken\n" + line)
    bench.follow()
    bench.restart()
    bench.follow()
    assert [(one["level"], one["aet"]) for one in bench.told("queried")] == [("STUDY", "CT1")] * 2
    assert "1 lines of queries" in bench.told("incident")[0]["reason"]
    assert [file.name for file in bench.folder.iterdir() if file.name.startswith("queries")] == []
