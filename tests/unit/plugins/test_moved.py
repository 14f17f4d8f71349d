"""The archive has got another index with the same instances: nothing was stored, so nothing is told of but that."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from plugins import moved
from tests.unit.plugins.fake_orthanc import FakeOrthanc
from tests.unit.plugins.test_follower import Bench

RULES = {"Routing": [{"Name": "all", "SendTo": ["B"]}], "Destinations": {"B": {}}}
IDS = ("i1", "i2", "i3")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Three instances, recorded, complete and routed; then the same in a new index, filled in another order."""
    made = Bench(tmp_path, RULES)
    for one in IDS:
        made.orthanc.store(one)
    made.follow()
    made.follow(31)
    made.orthanc, made.index_id = FakeOrthanc(minute=7), "index-2"
    for one in reversed(IDS):
        made.orthanc.store(one)
    made.restart()
    return made


def left(bench: Bench, index_id: str = "index-2") -> Path:
    """What a move leaves for the journal."""
    file = bench.folder / "moved.db"
    with closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE about (index_id TEXT, facts TEXT)")
        made.execute("CREATE TABLE arrivals (seq INTEGER PRIMARY KEY, orthanc_id TEXT, date TEXT)")
        made.execute("INSERT INTO about VALUES (?, ?)", (index_id, json.dumps({"instances": 3, "proof": "move-1"})))
        rows = [(seq, orthanc_id, date) for seq, _, orthanc_id, date in bench.orthanc.rows]
        made.executemany("INSERT INTO arrivals VALUES (?, ?, ?)", rows)
        made.commit()
    return file


def take_over(bench: Bench, file: Path) -> bool:
    return moved.take_over(bench.journal, bench.recorder, file, bench.index_id, bench.now)


def test_a_moved_archive_tells_of_the_move_alone_and_goes_on(bench: Bench) -> None:
    file = left(bench)
    assert take_over(bench, file)
    assert not file.exists()
    asked = bench.orthanc.asked_contents
    bench.follow()
    bench.follow(100)
    (told,) = bench.told("archive-moved")
    assert (told["instances"], told["proof"]) == (3, "move-1")
    assert bench.stored() == dict.fromkeys(IDS, 1)
    assert bench.told("stored-again") == bench.told("deleted") == bench.told("incident") == []
    assert len(bench.told("routed")) == len(bench.told("study-completed")) == 1
    assert bench.orthanc.asked_contents == asked, "nothing was read anew"
    bench.orthanc.store("i9", "S9")
    bench.follow()
    bench.follow(31)
    assert len(bench.told("routed")) == 2


def test_should_the_new_index_lose_its_tail_it_is_recorded_as_ever_and_routed_no_more(bench: Bench) -> None:
    take_over(bench, left(bench))
    bench.follow()
    for one in bench.orthanc.lose_behind(1):
        bench.orthanc.store(one)
    bench.restart()
    bench.follow()
    bench.follow(100)
    assert sorted(one["orthanc_id"] for one in bench.told("stored-again")) == ["i1", "i2"]
    assert len(bench.told("routed")) == 1
    assert bench.told("deleted") == []


def test_cut_off_before_the_file_is_gone_the_move_is_told_of_once(bench: Bench) -> None:
    file = left(bench)
    shutil.copy(file, bench.folder / "again.db")
    assert take_over(bench, file)
    (bench.folder / "again.db").rename(file)
    assert take_over(bench, file)
    assert len(bench.told("archive-moved")) == 1
    assert not file.exists()


def test_what_belongs_to_another_index_is_left_alone(bench: Bench) -> None:
    """The move was not brought to its end, and the old archive is used meanwhile."""
    file = left(bench, "index-3")
    assert not take_over(bench, file)
    assert file.exists()
    assert bench.told("archive-moved") == []
