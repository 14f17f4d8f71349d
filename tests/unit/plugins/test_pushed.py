"""Snapshots that the gateway pushes: whole, checked, never older than what is at hand."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from plugins import pushed
from plugins.pushed import Announced, Pushed, SnapshotRefused
from plugins.worklist import WorklistAnswer
from zambezi.causes import Because

DICOM = bytes(128) + b"DICM" + b"item"


def entry(*aets: str, dicom: bytes = DICOM) -> dict[str, Any]:
    return {"aets": list(aets), "study_uid": "1.2", "dicom": base64.b64encode(dicom).decode()}


def test_the_newest_generation_counts_also_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "plugin" / "announced.json"
    announced = Pushed(file, Announced(), pushed.announced)
    told = {"1.2": {"cause": "migration", "reference": "legacy"}}
    assert announced.put({"generation": 3, "studies": told, "instances": {"1.3": {"cause": "restore"}}}) == 3
    assert announced.put({"generation": 2, "studies": {}}) == 3
    assert announced.put({"generation": 3, "studies": {}}) == 3
    again = Pushed(file, Announced(), pushed.announced)
    kept = Announced({"1.2": Because("migration", "legacy")}, {"1.3": Because("restore")})
    assert (again.generation, again.content) == (3, kept)
    assert again.put({"generation": 4, "studies": {}}) == 4
    assert again.content == Announced()


def test_declared_changes_of_a_study_are_read_and_checked(tmp_path: Path) -> None:
    announced = Pushed(tmp_path / "announced.json", Announced(), pushed.announced)
    said = {"cause": "migration", "reference": "legacy", "changes": {"PatientSex": "F", "PatientID": "1"}}
    announced.put({"generation": 1, "studies": {"1.2": said}})
    changes = (("PatientID", "1"), ("PatientSex", "F"))
    assert announced.content.studies["1.2"] == Because("migration", "legacy", changes=changes)
    assert announced.content.is_changing
    announced.put({"generation": 2, "studies": {"1.2": {**said, "changes": {}}}})
    assert not announced.content.is_changing
    with pytest.raises(SnapshotRefused, match="texts by DICOM keyword"):
        announced.put({"generation": 3, "studies": {"1.2": {**said, "changes": {"PatientID": 1}}}})


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "announced.json"
    file.write_text('{"generation": 3, "studies": {"1.2": "migration"}}')
    announced = Pushed(file, Announced(), pushed.announced)
    assert announced.content == Announced({"1.2": Because("migration")})


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (pushed.announced, []),
        (pushed.announced, {"studies": {}}),
        (pushed.announced, {"generation": "4", "studies": {}}),
        (pushed.announced, {"generation": 4}),
        (pushed.announced, {"generation": 4, "studies": {"1.2": "ourselves"}}),
        (pushed.announced, {"generation": 4, "studies": {}, "instances": {"1.2": {"reference": "x"}}}),
        (pushed.revocations, {"generation": 4, "sessions": []}),
        (pushed.worklist, {"generation": 4}),
        (pushed.worklist, {"generation": 4, "entries": [{"aets": ["A"]}]}),
        (pushed.worklist, {"generation": 4, "entries": [{"aets": ["A"], "dicom": "%%%"}]}),
        (pushed.worklist, {"generation": 4, "entries": [entry("A", dicom=b"no DICOM")]}),
    ],
)
def test_a_snapshot_that_is_wrong_changes_nothing(tmp_path: Path, read: Any, document: Any) -> None:
    at_hand: Pushed[Any] = Pushed(tmp_path / "x.json", "empty", read)
    with pytest.raises(SnapshotRefused):
        at_hand.put(document)
    assert (at_hand.generation, at_hand.content) == (0, "empty")
    assert not (tmp_path / "x.json").exists()


class Query:
    def __init__(self, matching: bytes) -> None:
        self.matching = matching

    def WorklistIsMatch(self, item: bytes) -> bool:
        return item == self.matching


class Answers(list[bytes]):
    def WorklistAddAnswer(self, _query: Query, item: bytes) -> None:
        self.append(item)


def test_the_worklist_answers_a_caller_with_its_own_items_that_match(tmp_path: Path) -> None:
    items: Pushed[dict[str, list[bytes]]] = Pushed(tmp_path / "worklist.json", {}, pushed.worklist)
    first, second = DICOM + b"1", DICOM + b"2"
    entries = [entry("CT1", "CT2", dicom=first), entry("CT1", dicom=second)]
    items.put({"generation": 1, "entries": entries})
    for aet, matching, expected in (
        ("CT1", first, [first]),
        ("CT1", second, [second]),
        ("CT2", second, []),
        ("CT2 ", first, [first]),
        ("XX", first, []),
    ):
        answers = Answers()
        WorklistAnswer(items).answer(answers, Query(matching), aet, "ZAMBEZI")
        assert answers == expected
