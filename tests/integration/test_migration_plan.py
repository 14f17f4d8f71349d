"""From plan to archive: what is decided is carried out as the images come, and provable; what is held waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import select

from migration import deciding, plans, worker
from migration.desk import Desk
from migration.inventory import Coverage, Found
from migration.source import Checked, Compared, Counted, Given, Named, Probe, Request, Study
from tests.integration.archive_fixture import image, until, written
from tests.integration.correcting import Room, a_room
from tests.unit.coercion.images import read
from zambezi import clock
from zambezi.coercion import declared
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource, Site
from zambezi.database.tables import MigrationInstance, MigrationMatch, MigrationProject, MigrationStudy
from zambezi.leases import Keeper


class Legacy:
    """A source in this process: it posts its files, and compares by carrying out once more what was declared."""

    kind, queries = "folder", 0

    def __init__(self, room: Room, images: Collection[Dataset]) -> None:
        self._room = room
        self.files = {str(one.SOPInstanceUID): one for one in images}

    def probe(self) -> Probe:
        return Probe({})

    def find_studies(self, today: date) -> tuple[Found, Coverage]:
        return Found(), Coverage()

    def count(self, study_uid: str, times: int = 2) -> Counted:
        of_study = {uid: Named(str(one.SeriesInstanceUID)) for uid, one in self.files.items()
                    if one.StudyInstanceUID == study_uid}  # fmt: skip
        return Counted(of_study, ("CT",), True)

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        """Nothing is left running."""

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        for one in self.files.values():
            if one.StudyInstanceUID == request.query["StudyInstanceUID"]:
                self._room.archive.as_service("migration").store(written(one))
        return {}

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        with desk.sessions.begin() as session:
            changes = session.scalars(select(MigrationStudy.changes).where(MigrationStudy.study_uid == study.uid)).one()
        found = {}
        for uid in wanted:
            (stored,) = [desk.client.file(one) for one in study.held[uid]]
            tags = declared.differences(written(self.files[uid]), stored, changes, "pacs", desk.now())
            found[uid] = Compared("different" if tags else "equal", "a", "b", None, tuple(tags))
        keep(found)
        return Checked(found)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with a_room(tmp_path) as running:
        yield running


def desk(room: Room, source: Legacy) -> Desk:
    client = room.archive.as_service("migration")
    return Desk(
        client=client, sessions=room.sessions, settings=MigrationSource(peer="legacy"), source=source, site=Site(),
        peer=Modality("legacy", "LEGACY", "127.0.0.1", 104), target_aet="ZAMBEZI", now=clock.now, owner="w",
        announced=lambda: int(client.get("/zambezi/status")["announced_generation"]), stop=threading.Event(),
        settle_seconds=0.2, hold_dir=room.archive.environment.hold_dir,
    )  # fmt: skip


def test_a_planned_study_arrives_as_declared_and_a_held_one_when_somebody_has_decided(room: Room) -> None:
    inês = room.patient("0012")  # Macuácua^Inês, 31/01/1980, F, of issuer HCZ
    said = {"PatientName": "MACUACUA^INES", "PatientBirthDate": "19800131", "PatientSex": "F"}
    hers = [image(PatientID="OLD-0012", **said) for _ in range(2)]
    hers[1].StudyInstanceUID = hers[0].StudyInstanceUID
    other = image(PatientID="OLD-99", **said)
    legacy = Legacy(room, [*hers, other])
    at = clock.text(clock.now())
    with room.sessions.begin() as session:
        project = MigrationProject(name="pacs", source="OLD", state="planned", created_at=at, updated_at=at)
        session.add(project)
        session.flush()
        for uid in {str(one.StudyInstanceUID) for one in legacy.files.values()}:
            first = next(one for one in legacy.files.values() if one.StudyInstanceUID == uid)
            study = MigrationStudy(
                project_id=project.id, study_uid=uid, patient_id=first.PatientID, next_at=at,
                facts={"PatientID": str(first.PatientID), **said},
            )  # fmt: skip
            session.add(study)
            session.flush()
            for sop_uid, named in legacy.count(uid).instances.items():
                session.add(MigrationInstance(study_id=study.id, sop_uid=sop_uid, series_uid=named.series_uid))
    document = {"Matching": {}, "Rules": [{"Name": "old", "Strip": {"PatientID": {"Prefix": "OLD-"}}}]}
    plans.record(room.sessions, project.id, document, who="eva", because="a test", now=clock.now())
    assert plans.catch_up(room.sessions, project.id, clock.now()) == 2

    def run() -> dict[str, str]:
        with room.sessions.begin() as session:
            planned = session.get_one(MigrationProject, project.id)
        while worker.work(desk(room, legacy), planned):
            pass
        with room.sessions.begin() as session:
            return {one.study_uid: f"{one.state} {one.reason}" for one in session.scalars(select(MigrationStudy))}

    states = run()
    assert states[str(hers[0].StudyInstanceUID)] == "verified "
    assert states[str(other.StudyInstanceUID)].startswith("held a patient here resembles it")
    for one, files in zip(hers, (room.files([one])[str(one.SOPInstanceUID)] for one in hers), strict=True):
        (content,) = files
        new = read(content)
        assert (new.PatientID, new.IssuerOfPatientID, str(new.PatientName)) == ("0012", "HCZ", "Macuácua^Inês")
        assert new.PixelData == one.PixelData
    assert room.files([other])[str(other.SOPInstanceUID)] == []
    entries = until(lambda: room.archive.events("stored", study_uid=str(hers[0].StudyInstanceUID)))
    assert {(one["cause"], one["reference"]) for one in entries} == {("migration", "pacs")}

    with room.sessions.begin() as session:
        match = session.scalars(select(MigrationMatch).where(MigrationMatch.state == "held")).one()
    deciding.decide(room.sessions, match.id, inês, who="eva", because="her card", now=clock.now())
    assert run()[str(other.StudyInstanceUID)] == "verified "
    assert read(room.files([other])[str(other.SOPInstanceUID)][0]).PatientID == "0012"
