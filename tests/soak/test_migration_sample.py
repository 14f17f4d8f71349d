"""A sample of five hundred studies, drawn, compared and certified: `make soak`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migration import verifier, worker
from tests.integration.archive_fixture import until
from tests.integration.migration_lab import Lab
from tests.integration.proof_room import Room, room, running, study_of
from tests.integration.test_migration_whole import a_service, files, lab, migrating, states_of
from zambezi.database.tables import MigrationStudy

__all__ = ["lab", "room", "running"]


@pytest.mark.timeout(900)  # three minutes on two busy cores
def test_of_501_studies_500_are_compared_with_the_source_and_the_certificate_says_what_that_proves(
    room: Room, lab: Lab, tmp_path: Path, say: Callable[[str], None]
) -> None:
    images = [study_of(1)[0] for _ in range(501)]
    files(lab.folder / "discs", *images)
    plan = {"Level": "source", "Sample": {"Studies": 500, "Seed": 11}}
    project = migrating(lab, "DISCS", plan, Kind="folder", Folder=str(lab.folder / "discs"), Ceiling=4)
    begun = time.monotonic()
    with a_service(room, lab) as migrations:

        def over() -> bool:
            migrations.sweep()
            return states_of(room, project)["verified"] == len(images)

        until(over, 600)
    say(f"{len(images)} studies in {time.monotonic() - begun:.0f} s")
    with room.sessions.begin() as session:
        worker.finish_project(session, project.id, lab.office.desk("DISCS"))
    found = room.examined(room.certificate(project, tmp_path))
    assert found.faults == []
    told = {"population": 501, "drawn": 500, "compared": 500, "differing": 0, "bound": 0.005974}
    assert found.head["sample"] | told == found.head["sample"]
    (left,) = (row for row in room.instances(project).values() if row.level == 2)
    with room.sessions.begin() as session:
        uid = session.get_one(MigrationStudy, left.study_id).study_uid
    assert uid == max((str(one.StudyInstanceUID) for one in images), key=lambda one: verifier.rank("11", one))
