"""Room for what comes: who is let in at which level, and what the journal says of it, full disk or not."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.journal import Journal
from plugins.noted import Noted
from plugins.refusals import Refusals
from plugins.room import NEAR, RoomWatch
from plugins.spool import Spool
from tests.small_disk import as_root, fill, small_disk
from zambezi.chain import first_broken
from zambezi.config.settings import Disk
from zambezi.disk import GIGABYTE, Volume

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


class Bench:
    """A watch whose disk a test says, over a real journal."""

    def __init__(self, folder: Path) -> None:
        self.free = 50 * GIGABYTE
        self.looks = 0
        self.journal = Journal(folder / "journal.db")
        self.refusals = Refusals()
        rules: Any = SimpleNamespace(now=SimpleNamespace(zambezi=SimpleNamespace(disk=Disk())))
        self.watch = RoomWatch(rules, self.journal, self.refusals, self.measured)

    def measured(self) -> list[Volume]:
        self.looks += 1
        return [Volume(("images",), 100 * GIGABYTE, self.free)]

    def look(self, gigabytes: float) -> None:
        self.free = int(gigabytes * GIGABYTE)
        self.watch.look(NOW)

    def write_for_ever(self) -> None:
        while True:
            with self.journal.transaction() as transaction:
                transaction.append("incident", NOW, reason="x" * 5000)

    def levels(self) -> list[str]:
        entries = self.journal.entries_after(0, "", 1000)
        assert first_broken(entries) is None
        return [one.facts["level"] for one in entries if one.facts["event"] == "disk-changed"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("free", "admitted"),
    [
        (50, {"DICOM", "gateway", "migration", "ris", "custody", "recovery"}),
        (3, {"DICOM", "gateway", "migration", "ris", "custody", "recovery"}),
        (1.5, {"ris", "custody", "recovery"}),
        (0.5, {"recovery"}),
    ],
)
def test_what_persons_decide_has_room_longer_than_what_comes_in(bench: Bench, free: float, admitted: set[str]):
    bench.look(free)
    ways = ("DICOM", "migration", "ris", "custody", "recovery", "gateway")
    assert {one for one in ways if bench.watch.admits(1000, one)} == admitted
    refused = {one["who"] for one in bench.refusals.take(NOW)}
    assert refused == set(ways) - admitted


def test_far_from_the_mark_an_instance_costs_no_look_and_near_it_each_is_one(bench: Bench):
    bench.look(50)
    assert [bench.watch.admits(1_000_000, "DICOM") for _ in range(100)] == [True] * 100
    assert bench.looks == 1
    bench.look(2)
    bench.free += NEAR // 2
    assert bench.watch.admits(1_000_000, "DICOM")
    assert bench.looks == 3
    bench.free = GIGABYTE  # somebody else took it between two looks
    assert not bench.watch.admits(1_000_000, "DICOM")


def test_a_single_instance_may_not_take_the_reserve(bench: Bench):
    bench.look(2.1)
    assert bench.watch.admits(GIGABYTE // 20, "DICOM")
    assert not bench.watch.admits(GIGABYTE // 5, "DICOM")


def test_a_level_is_recorded_once_and_once_more_after_a_restart_in_another_one(bench: Bench, tmp_path: Path):
    for free in (50, 9, 9, 1.5, 1.5, 50):
        bench.look(free)
    assert bench.levels() == ["low", "full", "plenty"]
    bench.look(1.5)
    again = Bench(tmp_path)
    again.look(1.5)
    assert again.levels() == ["low", "full", "plenty", "full"], "it was said before"
    again.look(50)
    assert again.levels()[-1] == "plenty"


@as_root
def test_a_journal_on_a_disk_without_room_keeps_what_it_has_and_says_the_rest_later(tmp_path: Path):
    with small_disk(tmp_path / "small", 8):
        bench = Bench(tmp_path / "small")
        bench.look(50)
        filler = fill(tmp_path / "small" / "filler")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            bench.write_for_ever()
        kept = bench.journal.head[0]
        bench.look(0.5)
        assert not bench.watch.admits(1000, "DICOM")
        noted = Noted(bench.journal, Spool(tmp_path / "queries"), Spool(tmp_path / "incidents"), bench.refusals)
        with pytest.raises(sqlite3.OperationalError):
            noted.record(NOW)
        assert (bench.watch.now.level, bench.levels()) == ("spent", [])
        filler.unlink()
        bench.look(0.5)
        assert bench.levels() == ["spent"]
        noted.record(NOW)
        assert bench.journal.head[0] == kept + 2, "what failed left no gap"
        last = bench.journal.entries_after(0, "", 10_000)[-1]
        assert (last.facts["event"], last.facts["reason"]) == ("refused", "no room: the disk is spent")
        bench.journal.close()
