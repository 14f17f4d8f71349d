"""An archive with the whole plugin, what follows it, and a source that is files: for tests of proof."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from demo.neighbours import free_port
from gateway.journal import Follower
from gateway.pushes import Pushes
from migration import certificate, inventory, verifier, worker
from migration.desk import Desk
from migration.extras import Extra, Kind
from migration.source import Checked, Compared, Counted, Given, Named, Probe, Request, Study
from operations.custody.deleting import Deleting
from operations.custody.worker import Desk as CustodyDesk
from tests.integration.archive_fixture import PEERS, Archive, image, until, written
from tests.small_disk import small_disk
from zambezi import audit, clock, digest, signing
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource, Site, Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    MigrationInstance,
    MigrationProject,
    MigrationStudy,
)
from zambezi.database.upgrade import upgrade
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancClient


class Pushed(OrthancClient):
    """Custody's client: whenever it asks what the plugin knows, the gateway has pushed it just now."""

    push: Callable[[], Any]

    def request(self, method: str, path: str, timeout_s: float | None = None, **how: Any) -> requests.Response:
        if path == "/zambezi/status":
            self.push()
        return super().request(method, path, timeout_s, **how)


class Files:
    """A source that has files, by SOP Instance UID; `asked` counts what was compared with them."""

    kind = "files"
    queries = 0

    def __init__(self, archive: OrthancClient, *images: Dataset) -> None:
        self._archive = archive
        self.files = {str(one.SOPInstanceUID): (one, written(one)) for one in images}
        self.asked: list[str] = []
        self.beside: list[Extra] = []

    def extras(self, study_uid: str, kinds: Collection[Kind]) -> list[Extra]:
        return [one for one in self.beside if one.kind in kinds]

    def probe(self) -> Probe:
        return Probe({})

    def find_studies(self, today: date) -> tuple[inventory.Found, inventory.Coverage]:
        raise NotImplementedError  # the tests fill the ledger themselves

    def count(self, study_uid: str, times: int = 2) -> Counted:
        named = {uid: Named(str(one.SeriesInstanceUID)) for uid, (one, _) in self.files.items()
                 if one.StudyInstanceUID == study_uid}  # fmt: skip
        return Counted(named, ("CT",), agreed=True)

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        pass

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        for one, content in self.files.values():
            uids = (one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID)
            if uids[: len(request.keys)] == request.keys:
                self._archive.store(content)
        return {}

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        self.asked += sorted(wanted)
        checked = Checked()
        for uid in sorted(wanted):
            ours = digest.fingerprint(desk.client.file(study.held[uid][0]))
            theirs = digest.fingerprint(self.files[uid][1])
            tags = tuple(digest.differences(theirs, ours))
            verdict = "different" if tags else "equal"
            checked.compared[uid] = Compared(verdict, theirs.digest, ours.digest, None, tags)
        keep(checked.compared)
        return checked


@dataclass
class Room:
    """An archive with our plugin, the central database, and in this process gateway, migration and custody."""

    archive: Archive
    sessions: Sessions
    ahead: timedelta = timedelta()
    sources: dict[str, Files] = field(default_factory=dict)

    def __post_init__(self) -> None:
        gateway = self.archive.as_service("gateway")
        self.follower = Follower(self.sessions, Zambezi(), gateway)
        self.pushes = Pushes(self.sessions, Zambezi(), gateway)
        self.client = self.archive.as_service("migration")
        custody = Pushed(self.archive.environment, self.archive.keys, "custody")
        custody.push = lambda: self.pushes.push_what_is_newer(clock.now())
        self.custody = Deleting(
            CustodyDesk(self.archive.environment, Zambezi(), self.sessions, custody, self.now, "custody")
        )

    def now(self) -> Any:
        return clock.now() + self.ahead

    def follow(self) -> None:
        last = self.client.get("/changes", last="")["Last"]
        until(lambda: self.archive.get("/zambezi/status").json()["follower"]["change"] >= last)
        while self.follower.follow(0):
            pass

    def project(self, *images: Dataset, batch: int = 0, **plan: Any) -> MigrationProject:
        """A running project whose inventory is these images."""
        name, at = f"p{generate_uid()[-8:]}", clock.text(clock.now())
        source = self.sources[name] = Files(self.client, *images)
        with self.sessions.begin() as session:
            made = MigrationProject(name=name, source="OLD", state="running", plan=plan, created_at=at, updated_at=at)
            session.add(made)
            session.flush()
            for uid in sorted({str(one.StudyInstanceUID) for one in images}):
                named = source.count(uid)
                row = MigrationStudy(project_id=made.id, study_uid=uid, expected=len(named.instances), next_at=at,
                                     batch=batch, modalities="CT", study_date="20200101")  # fmt: skip
                session.add(row)
                session.flush()
                session.add_all(MigrationInstance(study_id=row.id, sop_uid=sop, series_uid=one.series_uid)
                                for sop, one in named.instances.items())  # fmt: skip
            return made

    def run(self, project: MigrationProject) -> None:
        desk = Desk(
            client=self.client, sessions=self.sessions, settings=MigrationSource(peer="old"),
            peer=Modality("old", "OLD", "127.0.0.1", 1), source=self.sources[project.name], target_aet="ZAMBEZI",
            site=Site(), now=self.now, announced=self.announced, owner="test", settle_seconds=0.2,
            hold_dir=self.archive.environment.hold_dir,
        )  # fmt: skip
        while worker.work(desk, project):
            pass
        with self.sessions.begin() as session:
            worker.finish_project(session, project.id, desk)

    def announced(self) -> int:
        self.pushes.push_what_is_newer(clock.now())
        return int(self.client.get("/zambezi/status")["announced_generation"])

    def study(self, project: MigrationProject) -> MigrationStudy:
        with self.sessions.begin() as session:
            return session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)).one()

    def instances(self, project: MigrationProject) -> dict[str, MigrationInstance]:
        with self.sessions.begin() as session:
            query = select(MigrationInstance).join(MigrationStudy, MigrationStudy.id == MigrationInstance.study_id)
            rows = session.scalars(query.where(MigrationStudy.project_id == project.id)).all()
            return {one.sop_uid: one for one in rows}

    def md5s(self) -> dict[str, str]:
        """Of every file in the archive, by Orthanc id, as it is on the disk."""
        return {one: hashlib.md5(self.client.file(one), usedforsecurity=False).hexdigest()
                for one in self.client.get("/instances")}  # fmt: skip

    def certificate(self, project: MigrationProject, folder: Path) -> Path:
        signer = signing.current(folder / "signing", "certificate", "ana", clock.now())
        number = certificate.issue(self.sessions, project.id, signer, {"zambezi": "0"}, "ana", clock.now())
        file = folder / f"{project.name}.jsonl"
        file.write_bytes(b"".join(certificate.lines(self.sessions, number)))
        return file

    def examined(self, file: Path) -> verifier.Examined:
        with file.open("rb") as content:
            return verifier.examine(content)

    def on_disk(self, orthanc_id: str) -> Path:
        uuid = self.client.get(f"/instances/{orthanc_id}/attachments/dicom/info")["Uuid"]
        return self.archive.environment.storage_dir / uuid[:2] / uuid[2:4] / uuid


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """On a small disk of its own, where somebody may mount one."""
    folder = tmp_path_factory.mktemp("archive")
    with small_disk(folder, 500) if os.geteuid() == 0 else nullcontext():
        archive = Archive(folder)
        peers = {"DicomModalities": {**PEERS, "legacy": ["LEGACY", "127.0.0.1", free_port()]}}
        (archive.environment.orthanc_config_dir / "40-peers.json").write_text(json.dumps(peers))
        archive.start()
        upgrade(connect(archive.environment.database_url, "test"))
        yield archive
        archive.stop()


@pytest.fixture
def room(running: Archive) -> Iterator[Room]:
    engine = connect(running.environment.database_url, "test")
    yield Room(running, sessions(engine, "test"))
    with sessions(engine, "test").begin() as session:
        assert audit.verify(session) == []
    engine.dispose()


def study_of(count: int, **tags: Any) -> list[Dataset]:
    uid = generate_uid()
    return [image(uid, PatientID=f"P{uid[-8:]}", **tags) for _ in range(count)]
