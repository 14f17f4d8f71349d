"""Two nodes on one index, with a gateway that the test plays: whoever records, both know the same in the end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plugins.arrivals import Arrivals
from plugins.claims import Claims
from plugins.completeness import Completeness
from plugins.follower import Follower
from plugins.journal import Journal
from plugins.noted import Noted
from plugins.pushed import Announced
from plugins.recorder import Recorder
from plugins.refusals import Refusals
from plugins.spool import Spool
from plugins.standing import Offer, Standing
from tests.unit.plugins.fake_orthanc import FakeOrthanc
from tests.unit.plugins.test_follower import FixedRules

START = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
RULES: dict[str, Any] = {"Destinations": {"B": {}}, "Routing": [{"Name": "all", "SendTo": ["B"]}]}
BROUGHT = ("study-began", "stored", "stored-again", "study-completed", "routed", "deleted")
#: What following made, and entries bring; `present` and all that is decided from it.
TABLES = (
    "SELECT orthanc_id, study_uid, sop_uid, cause, change_seq, generation, present, sha256 FROM instances ORDER BY 1",
    "SELECT study_orthanc_id, study_uid, generation FROM studies ORDER BY 1",
    "SELECT study_orthanc_id, cause FROM clocks ORDER BY 1",
    "SELECT orthanc_id, rule, destination FROM routed ORDER BY 1",
)


class Node:
    """The follower of one node; `seen` is how far the central database has its journal."""

    def __init__(self, name: str, folder: Path, orthanc: FakeOrthanc, rules: dict[str, Any]) -> None:
        self.name, self.folder, self.orthanc, self.rules = name, folder / name, orthanc, rules
        self.seen = 0
        self.fenced: list[tuple[int, int | None]] = []
        self.restart()

    def restart(self) -> None:
        self.journal = Journal(self.folder / "journal.db")
        rules = FixedRules(self.rules)
        self.told_of_deletions: list[tuple[str, list[str]]] = []

        def deleted(study_uid: str, orthanc_ids: Collection[str]) -> None:
            self.told_of_deletions.append((study_uid, list(orthanc_ids)))

        recorder = Recorder(self.journal, rules, deleted)
        spools = Spool(self.folder / "queries.log"), Spool(self.folder / "incidents.log")
        self.standing = Standing(self.journal, self.name, self.folder.parent, deleted)
        claims = Claims(self.folder.parent / "claims", lambda: START)
        self.arrivals = Arrivals(self.journal, self.folder / "hold", Announced, claims=claims)
        self.follower = Follower(
            self.orthanc, self.journal, recorder, Completeness(self.journal, rules),
            Noted(self.journal, *spools, Refusals()), self.arrivals, "index-1", Announced, lambda: None, False,
            self.standing, True,
        )  # fmt: skip

    def entries(self, *events: str) -> list[dict[str, Any]]:
        told = [one.facts for one in self.journal.entries_after(0, "", 100000)]
        return [one for one in told if one["event"] in events]

    def tables(self) -> list[Any]:
        return [self.journal.query(sql) for sql in TABLES]


@dataclass
class House:
    """Both, on one index; `bring` is what the gateway does each second."""

    folder: Path
    orthanc: FakeOrthanc = field(default_factory=FakeOrthanc)
    epoch: int = 0
    holder: str = ""
    now: datetime = START
    rules: dict[str, Any] = field(default_factory=lambda: RULES)

    def __post_init__(self) -> None:
        self.one, self.two = (Node(name, self.folder, self.orthanc, self.rules) for name in ("one", "two"))

    def grant(self, name: str) -> None:
        for node in (self.one, self.two):
            if node.name == self.holder and name != self.holder:
                node.fenced.append((node.seen + 1, None))
        self.holder, self.epoch = name, self.epoch + 1

    def bring(self, *nodes: Node, reads: bool = True) -> None:
        """The gateway reads both journals (unless it doesn't), and tells these nodes."""
        for node in (self.one, self.two):
            if not reads:
                continue
            for entry in node.entries("lease-taken"):
                if entry["seq"] > node.seen and entry["epoch"] == self.epoch:
                    node.fenced = [(a, entry["seq"] - 1 if b is None else b) for a, b in node.fenced]
            node.seen = node.journal.head[0]
        for node in nodes:
            other = self.two if node is self.one else self.one
            held = [
                one
                for one in other.entries(*BROUGHT)
                if one["seq"] <= other.seen
                and not any(a <= one["seq"] and (b is None or one["seq"] <= b) for a, b in other.fenced)
            ]
            heads = {other.journal.name: other.seen}
            node.standing.offer(Offer(self.holder, self.epoch, heads, heads, tuple(held), tuple(node.fenced), True))

    def follow(self, *nodes: Node, seconds: float = 0) -> None:
        self.now += timedelta(seconds=seconds)
        for node in nodes:
            for _ in range(3):
                while node.follower.round(self.now):
                    pass


def begun(made: House) -> House:
    made.grant("one")
    made.bring(made.one, made.two)
    made.follow(made.one, made.two)
    return made


@pytest.fixture
def house(tmp_path: Path) -> House:
    return begun(House(tmp_path))


def test_one_records_and_the_other_knows_the_same(house: House):
    house.orthanc.store("i1")
    house.follow(house.one, house.two)
    house.follow(house.one, seconds=31)
    house.bring(house.two)
    house.follow(house.two)
    assert house.two.entries("stored", "study-completed", "routed") == []
    assert house.one.tables() == house.two.tables()
    assert house.two.tables()[3] == [("i1", "all", "B")]
    assert house.one.entries("stored")[0]["sha256"] == "read i1"  # it came by nobody that saw its bytes


def test_a_rule_that_still_waits_is_carried_out_by_the_node_that_goes_on(tmp_path: Path):
    slow = {"Name": "slow", "SendTo": ["B"], "Completeness": {"QuietSeconds": 120}}
    house = begun(House(tmp_path, rules={**RULES, "Routing": [*RULES["Routing"], slow]}))
    house.orthanc.store("i1")
    house.follow(house.one, house.two)
    house.follow(house.one, seconds=31)
    house.bring(house.one, house.two)
    house.follow(house.two)
    assert house.one.tables() == house.two.tables()
    house.grant("two")
    house.bring(house.one, house.two)
    house.follow(house.two, seconds=121)
    assert [one["rule"] for one in house.two.entries("routed")] == ["slow"]
    assert house.two.entries("study-completed") == [], "that was told by the other node"
    assert house.two.journal.query("SELECT 1 FROM clocks") == []


def test_the_gateway_is_away_and_the_one_that_recorded_goes_on_after_its_restart(house: House):
    house.one.restart()
    house.two.restart()
    house.orthanc.store("i1")
    house.follow(house.one, house.two)
    assert [len(node.entries("stored")) for node in (house.one, house.two)] == [1, 0]


def test_who_was_relieved_forgets_what_it_recorded_late_and_later_goes_on_without_repeating_it(house: House):
    house.orthanc.store("i1")
    house.follow(house.one)
    house.bring(house.two)
    house.follow(house.two)
    # What the first records from here on nobody reads: its machine is gone.
    house.orthanc.store("i2")
    house.follow(house.one)
    house.follow(house.one, seconds=31)
    assert len(house.one.entries("routed")) == 1
    house.grant("two")
    house.bring(house.two, reads=False)
    house.follow(house.two)
    house.orthanc.store("i3")
    house.follow(house.two)
    assert [one["orthanc_id"] for one in house.two.entries("stored")] == ["i2", "i3"]
    house.follow(house.two, seconds=31)
    # It is back. It still holds its epoch, finds a higher one, and records nothing.
    house.one.restart()
    house.orthanc.store("i4")
    house.follow(house.one)
    house.bring(house.one, house.two)
    house.follow(house.two, house.one)
    house.bring(house.one)
    house.follow(house.one)
    assert house.one.tables() == house.two.tables()
    assert {one["orthanc_id"] for one in house.one.entries("stored")} == {"i1", "i2"}
    # And it goes on, when the other one is away: a late image goes as the next generation, alone.
    house.grant("one")
    house.bring(house.one)
    house.follow(house.one)
    house.follow(house.one, seconds=31)
    late = house.one.entries("routed")[-1]
    assert (late["generation"], [one[0] for one in late["instances"]]) == (2, ["i4"])
    house.bring(house.two)
    house.follow(house.two)
    assert house.one.tables() == house.two.tables()
    assert house.two.standing.records is False


def test_what_a_second_gateway_says_too_late_relieves_nobody(house: House):
    for name in ("two", "one"):
        house.grant(name)
        house.bring(house.one, house.two)
        house.follow(house.one, house.two)
    late = Offer("one", house.epoch, fenced=tuple(house.two.fenced))
    assert late.fenced[-1][1] is None, "whatever the second records since then doesn't hold"
    house.grant("two")
    house.bring(house.two)
    house.follow(house.two)
    house.orthanc.store("i1")
    house.follow(house.two)
    house.two.standing.offer(late)
    house.follow(house.two)
    assert house.two.standing.records
    assert [one["orthanc_id"] for one in house.two.entries("stored")] == ["i1"]


def test_what_no_other_node_told_of_is_recorded_anew_by_who_was_relieved(house: House):
    house.orthanc.store("i1")
    house.follow(house.one)
    house.bring(house.two)
    house.orthanc.store("i2")
    house.follow(house.one)
    house.follow(house.one, seconds=31)
    # The other one is granted it and dies at once, before anybody has read the first one's last entries.
    house.grant("two")
    house.bring(house.one, reads=False)
    house.orthanc.store("i3")
    house.follow(house.one)  # nobody records: the mark is still its own
    assert [one["orthanc_id"] for one in house.one.entries("stored")] == ["i1", "i2"]
    house.grant("one")
    house.bring(house.one)
    house.follow(house.one)
    house.follow(house.one, seconds=31)
    house.bring(house.two)
    house.follow(house.two)
    holding = [one for one in house.one.entries(*BROUGHT) if one["seq"] > house.one.fenced[0][1]]  # type: ignore[operator]  # closed by now
    assert [one["orthanc_id"] for one in holding if one["event"] == "stored"] == ["i2", "i3"]
    routed = [one["instances"] for one in holding if one["event"] == "routed"]
    assert [one[0] for one in routed[0]] == ["i1", "i2", "i3"]
    assert house.one.tables() == house.two.tables()


def test_what_was_deleted_through_the_other_node_is_told_by_that_one_once(house: House):
    house.orthanc.store("i1")
    house.orthanc.store("i2")
    house.follow(house.one)
    house.orthanc.delete("i1")
    house.two.follower.check_deleted("i1")
    house.follow(house.two)  # it hasn't heard of the store yet
    house.bring(house.two)
    house.follow(house.two)
    house.bring(house.one)
    house.follow(house.one)
    assert [one["noticed"] for one in house.two.entries("deleted")] == ["seen"]
    assert house.one.entries("deleted", "incident") == []
    assert house.one.tables() == house.two.tables()
    study_uid = house.two.entries("deleted")[0]["study_uid"]
    assert house.one.told_of_deletions == house.two.told_of_deletions == [(study_uid, ["i1"])]


def test_a_change_that_is_committed_late_is_recorded(house: House):
    house.orthanc.store("i1")
    house.orthanc.store("i2")
    late = house.orthanc.rows.pop(0)
    del house.orthanc.held["i1"]
    house.follow(house.one)
    house.orthanc.rows.insert(0, late)
    house.orthanc.held["i1"] = house.orthanc.held["i2"]
    house.follow(house.one)
    assert [one["orthanc_id"] for one in house.one.entries("stored")] == ["i2", "i1"]


@pytest.mark.parametrize("hours", [0, 24, -24, 48])
def test_what_another_node_let_in_is_found_by_its_digest_over_midnight_and_two_clocks(tmp_path: Path, hours: int):
    one, two = Claims(tmp_path), Claims(tmp_path)
    assert one.claim("abcd", "first", START) is None
    found = two.claim("abcd", "second", START + timedelta(hours=hours))
    assert found is not None
    assert found.sha256 == "first"


def test_words_of_the_last_days_stay_and_older_ones_go(tmp_path: Path):
    for days in range(6):
        Claims(tmp_path).claim("abcd", "first", START - timedelta(days=days))
    Claims(tmp_path, lambda: START).forget_old()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["2026-02-27", "2026-02-28", "2026-03-01"]
