"""An inventory killed anywhere goes on; a later one finds what is new, has grown, is gone or has moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from migration import inventory
from migration.source import Counted, Named
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base, MigrationInstance, MigrationSlice, MigrationStudy, MigrationSurvey

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


class Killed(BaseException):
    """What no code catches."""


class Legacy:
    """A source with studies: UID -> (patient, date, SOP Instance UIDs); dies at its n-th question if told so."""

    kind = "dicom"

    def __init__(self, held: dict[str, tuple[str, str, list[str]]]) -> None:
        self.held, self.queries, self.dies_at, self.counted = held, 0, 10**9, []

    def _asked(self) -> None:
        self.queries += 1
        if self.queries == self.dies_at:
            raise Killed

    def studies(self, **matching):
        self._asked()
        first, last = matching.get("StudyDate", "-9").split("-")
        prefix = matching.get("PatientID", "*").removesuffix("*")
        return [
            {"StudyInstanceUID": uid, "PatientID": patient, "StudyDate": day,
             "NumberOfStudyRelatedInstances": str(len(images))}
            for uid, (patient, day, images) in self.held.items()
            if first <= day <= last and patient.startswith(prefix)
        ]  # fmt: skip

    def reservations(self):
        return ["it is told not to be trusted"]

    def count(self, study_uid, times=2):
        self._asked()
        self.counted.append(study_uid)
        patient, _, images = self.held.get(study_uid, ("", "", []))
        return Counted({uid: Named("9") for uid in images}, ("CT",), True, frozenset({patient}))


@pytest.fixture
def ledger(tmp_path: Path) -> Sessions:
    engine = connect(f"sqlite:///{tmp_path}/z.sqlite", "migration")
    Base.metadata.create_all(engine)
    return sessions(engine, "migration")


def legacy(count: int = 12) -> Legacy:
    return Legacy({f"1.2.{n}": (f"P{n}", f"2020{n % 12 + 1:02}01", [f"1.2.{n}.1"]) for n in range(count)})


def take(ledger: Sessions, source, now: datetime = NOW, **how):
    return inventory.take(ledger, source, "p", "LEGACY", now, **how)


def test_killed_at_any_question_it_goes_on_and_asks_nothing_twice(ledger):
    whole = legacy()
    take(sessions(_memory(), "migration"), whole)
    source, asked, states = legacy(), 0, []
    for dies_after in (1, 7, 20, 25, 8, 4, 3):
        source.queries, source.dies_at = 0, dies_after
        with pytest.raises(Killed):
            take(ledger, source)
        asked += dies_after - 1
        with ledger.begin() as session:
            (under_way,) = session.scalars(select(MigrationSurvey)).all()
            states.append((under_way.number, under_way.state))
    assert set(states) == {(1, "asking"), (1, "counting")}
    source.queries, source.dies_at = 0, 10**9
    project = take(ledger, source)
    assert asked + source.queries == whole.queries
    assert len(source.counted) == len(set(source.counted)) == 12
    assert (project.state, project.coverage["studies"], project.coverage["doubts"]) == (
        "planned",
        12,
        ["it is told not to be trusted"],
    )
    with ledger.begin() as session:
        (done,) = session.scalars(select(MigrationSurvey)).all()
        assert (done.state, done.named, done.counted, done.new) == ("done", 12, 12, 12)
        slices = session.scalars(select(MigrationSlice)).all()
        assert len(slices) == project.coverage["queries"]
        assert not any(row.answers for row in slices), "what was heard is in the ledger now"
        assert session.query(MigrationInstance).count() == 12


def _memory():
    engine = connect("sqlite:///:memory:", "migration")
    Base.metadata.create_all(engine)
    return engine


def test_a_later_inventory_finds_what_is_new_or_grew_and_names_what_is_gone(ledger):
    source = legacy()
    take(ledger, source)
    source.held["1.9"] = ("Q1", "20261119", ["1.9.1"])
    source.held["1.2.3"][2].append("1.2.3.2")
    del source.held["1.2.5"]
    project = take(ledger, source, NOW + timedelta(days=1))
    assert project.coverage["gone"] == ["1.2.5"]
    assert "1 studies that an earlier inventory named are not named any more" in project.coverage["doubts"]
    with ledger.begin() as session:
        second = session.get_one(MigrationSurvey, (project.id, 2))
        assert (second.new, second.grown, second.gone) == (1, 1, 1)


def test_a_study_that_came_under_another_patient_is_told(ledger):
    source = legacy(1)
    project = take(ledger, source)
    source.held["1.2.0"] = ("MERGED", "20200101", ["1.2.0.1"])
    with ledger.begin() as session:
        found = inventory.record(session, project.id, "1.2.0", source.count("1.2.0"), NOW)
        assert found.patients == {"MERGED"}
        assert session.query(MigrationStudy).one().patient_id == "P0"
    source.held["1.2.0"] = ("", "20200101", ["1.2.0.1"])
    with ledger.begin() as session:
        silent = inventory.record(session, project.id, "1.2.0", source.count("1.2.0"), NOW)
        assert not silent.patients, "a source that doesn't say whose it is has moved nothing"
