"""Announcing: told to the archive when something new is said, and waited for until it knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.pushes import INSTANCES_FOR, Pushes
from zambezi import announcing, clock, orders
from zambezi.config import Zambezi
from zambezi.config.settings import Site
from zambezi.database import generations
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import MigrationProject, MigrationStudy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "test")
    yield sessions(engine, "test")
    engine.dispose()


def pushed(made: Sessions, now: datetime = NOW) -> dict[str, Any]:
    with made.begin() as session:
        return Pushes(made, Zambezi(), None).announced(session, now)  # type: ignore[arg-type]


def test_what_is_announced_reaches_the_document_that_is_pushed(made: Sessions) -> None:
    many = [f"1.2.{n}" for n in range(2500)]
    with made.begin() as session:
        first = announcing.announce_instances(session, dict.fromkeys(many, ""), "correction", "correction 12", NOW)
        second = announcing.announce_studies(session, ["1.9"], "migration", "legacy", NOW)
    assert second > first > 0
    told = pushed(made)
    assert told["studies"] == {"1.9": {"cause": "migration", "reference": "legacy"}}
    assert set(told["instances"]) == set(many)
    assert told["instances"]["1.2.7"] == {"cause": "correction", "reference": "correction 12"}
    assert pushed(made, NOW + INSTANCES_FOR + timedelta(seconds=1))["instances"] == {}


def test_a_generation_is_made_only_where_something_new_is_said(made: Sessions) -> None:
    with made.begin() as session:
        first = announcing.announce_instances(session, {"1.2": "aa"}, "correction", "correction 12", NOW)
    with made.begin() as session:
        assert announcing.announce_instances(session, {"1.2": "aa"}, "correction", "correction 12", NOW) == first
    with made.begin() as session:
        assert announcing.announce_instances(session, {"1.2": "aa"}, "correction", "correction 13", NOW) > first
    with made.begin() as session:
        latest = announcing.announce_instances(session, {"1.2": "bb"}, "correction", "correction 13", NOW)
        assert announcing.announce_instances(session, {"1.2": "bb"}, "correction", "correction 13", NOW) == latest
    told = {"cause": "correction", "reference": "correction 13", "sha256": "bb"}
    assert pushed(made)["instances"] == {"1.2": told}


def test_what_a_plan_changes_in_a_study_goes_with_its_announcement_whoever_makes_that(made: Sessions) -> None:
    at = clock.text(NOW)
    with made.begin() as session:
        session.add(MigrationProject(id=1, name="legacy", source="L", state="running", created_at=at, updated_at=at))
        session.flush()
        for uid, changes in (("1.2", {"PatientID": "Zé"}), ("1.3", {})):
            session.add(MigrationStudy(project_id=1, study_uid=uid, next_at=at, changes=changes))
    with made.begin() as session:
        first = announcing.announce_studies(session, ["1.2", "1.3"], "migration", "legacy", NOW)
    said = {"cause": "migration", "reference": "legacy"}
    assert pushed(made)["studies"] == {"1.2": {**said, "changes": {"PatientID": "Zé"}}, "1.3": said}
    with made.begin() as session:
        session.get_one(MigrationStudy, 1).changes = {"PatientID": "2"}
    with made.begin() as session:
        assert announcing.announce_studies(session, ["1.3"], "migration", "legacy", NOW) == first
        assert announcing.announce_studies(session, ["1.2"], "migration", "legacy", NOW) > first
    assert pushed(made)["studies"]["1.2"]["changes"] == {"PatientID": "2"}


def test_only_causes_that_exist_are_announced(made: Sessions) -> None:
    with made.begin() as session, pytest.raises(ValueError, match="no cause 'ourselves'"):
        announcing.announce_studies(session, ["1.2"], "ourselves", "", NOW)


def test_an_open_order_announces_its_study_and_a_migration_keeps_its_own(made: Sessions) -> None:
    with made.begin() as session:
        before = generations.current(session, "announced")
        patient = orders.register_patient(
            session, patient_id="P1", issuer="HIS", family_name="A", given_name="B", now=NOW, writer="ris"
        )
        placed = [
            orders.place_order(
                session, patient, orders.NewOrder(scheduled_at=NOW, modality="CT"), now=NOW, site=Site(), writer="ris"
            )
            for _ in range(3)
        ]
        ordered, migrated, _ = ((one.study_uid, one.accession_number) for one in placed)
        assert generations.current(session, "announced") > before
        announcing.announce_studies(session, [migrated[0]], "migration", "legacy", NOW)
        announcing.announce_studies(session, [ordered[0]], "correction", "correction 1", NOW)
        before = generations.current(session, "announced")
        orders.set_status(session, placed[2], "cancelled", now=NOW, writer="ris", reason="x")
        assert generations.current(session, "announced") > before
    assert pushed(made)["studies"] == {
        ordered[0]: {"cause": "modality", "reference": f"order {ordered[1]}"},
        migrated[0]: {"cause": "migration", "reference": "legacy"},
    }


class Archive:
    """Knows one generation more each time it is asked."""

    def __init__(self) -> None:
        self.generation = 0

    def get(self, _path: str) -> dict[str, int]:
        self.generation += 1
        return {"announced_generation": self.generation}


def test_waiting_ends_when_the_archive_knows_or_the_time_is_up() -> None:
    assert announcing.wait_until_known(Archive(), 2, 5)  # type: ignore[arg-type]
    assert not announcing.wait_until_known(Archive(), 1000, 0.3)  # type: ignore[arg-type]
