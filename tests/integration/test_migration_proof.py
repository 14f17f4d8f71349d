"""Levels of proof, the certificate and the roll-back, with a real Orthanc, our plugin and custody."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
import pytest
import requests
from click.testing import CliRunner
from playwright.sync_api import Page, expect
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.journal import Follower
from gateway.pushes import Pushes
from migration import certificate, extras, inventory, proof, rechecking, rollback, verifier, worker
from migration.commands import migrate
from migration.desk import Desk
from migration.extras import Extra, Kind
from migration.office import open_office
from migration.records import archiving, mapping
from migration.service import Migrations
from migration.source import Checked, Compared, Counted, Given, Named, Probe, Request, Study
from operations.custody.deleting import Deleting
from operations.custody.worker import Desk as CustodyDesk
from ris_service.app import create_app
from tests import documents_process
from tests.integration.archive_fixture import PEERS, Archive, image, until, written
from tests.integration.migration_lab import Lab, free_port, start_legacy
from tests.integration.test_migration_copies import Legacy
from tests.integration.test_ris_browser import page, shot
from tests.served import served as pages_served
from tests.small_disk import as_root, fill, small_disk
from zambezi import announcing, audit, clock, deletions, digest, disk, hold, legacy, legacy_documents, signing
from zambezi.access.tokens import COOKIE, begin, sign
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource, Site, Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AuditEntry,
    Deletion,
    ExceptionItem,
    Held,
    LegacyReport,
    MigrationInstance,
    MigrationProject,
    MigrationStudy,
    ProcessState,
    User,
)
from zambezi.database.tables import Study as TheStudy
from zambezi.database.upgrade import upgrade
from zambezi.disk import LOOK_S
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancClient, OrthancError

__all__ = ["page"]


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


def test_arrival_is_proven_by_what_the_hook_saw_and_the_disk_gives_back(room: Room) -> None:
    images = study_of(3)
    project = room.project(*images, Level="arrival")
    room.run(project)
    study = room.study(project)
    assert (study.state, study.level, study.stored) == ("verified", 2, 3)
    assert room.sources[project.name].asked == []  # nothing came a second time
    for one in images:
        row, content = room.instances(project)[one.SOPInstanceUID], written(one)
        assert row.arrived_sha256 == hashlib.sha256(content).hexdigest()
        assert (row.level, row.size, row.stored_syntax) == (2, len(content), "1.2.840.10008.1.2.1")
    assert study.size == sum(row.size or 0 for row in room.instances(project).values())


def test_what_the_disk_gives_back_otherwise_is_found_though_orthanc_vouches_for_it(room: Room) -> None:
    class Damaging(Files):
        def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
            given = super().bring(desk, request, keeper)
            self.file().write_bytes(b"!" * len(content))
            return given

        def file(self) -> Path:
            (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
            return room.on_disk(orthanc_id)

    images = study_of(2)
    project = room.project(*images, Level="arrival")
    uid, (_, content) = next(iter(room.sources[project.name].files.items()))
    room.sources[project.name] = damaging = Damaging(room.client, *images)
    room.run(project)
    study = room.study(project)
    assert (study.state, study.level) == ("divergent", 1)
    assert study.reason.endswith("the file on the disk is not what arrived")
    (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
    assert room.client.file(orthanc_id) == content  # Orthanc answers from its memory
    damaging.file().write_bytes(content)


def test_what_nobody_saw_come_must_be_proven_by_the_source(room: Room) -> None:
    images = study_of(2)
    project = room.project(*images, Level="arrival")
    room.run(project)
    assert room.sources[project.name].asked == []
    uid = str(images[0].SOPInstanceUID)
    (orthanc_id,) = room.client.find("Instance", {"SOPInstanceUID": uid})
    room.follow()
    again = room.project(*images, Level="arrival")
    with sqlite3.connect(room.archive.environment.journal_file) as journal:
        journal.execute("UPDATE instances SET sha256 = NULL WHERE orthanc_id = ?", (orthanc_id,))
    room.run(again)
    assert room.sources[again.name].asked == [uid]
    assert {one.sop_uid: one.level for one in room.instances(again).values()} == {
        uid: 3, str(images[1].SOPInstanceUID): 2
    }  # fmt: skip
    assert room.study(again).level == 2


def test_a_sample_is_compared_with_the_source_and_the_certificate_says_how_sure_that_is(
    room: Room, tmp_path: Path
) -> None:
    images = [one for _ in range(6) for one in study_of(1)]
    project = room.project(*images, Level="source", Sample={"Studies": 3, "Seed": 7})
    with room.sessions.begin() as session:
        drawn = proof.sampling.draw(session, session.get_one(MigrationProject, project.id), "ana", clock.now())
    assert drawn is not None
    room.run(project)
    levels = {uid: row.level for uid, row in room.instances(project).items()}
    assert sorted(levels.values()) == [2, 2, 2, 3, 3, 3]
    asked = {str(one.StudyInstanceUID) for one in images if str(one.SOPInstanceUID) in levels
             and levels[str(one.SOPInstanceUID)] == 3}  # fmt: skip
    assert asked == set(sorted((str(one.StudyInstanceUID) for one in images), key=lambda u: verifier.rank("7", u))[:3])
    found = room.examined(room.certificate(project, tmp_path))
    assert found.faults == []
    assert found.head["sample"] | {"compared": 3, "differing": 0, "bound": 0.631597} == found.head["sample"]


def test_only_what_the_plan_declares_may_differ_and_it_is_listed(room: Room, tmp_path: Path) -> None:
    """The archive's coercion itself is tested elsewhere: here its outcome is stored as it would be."""
    one = study_of(1)[0]
    for value, is_declared in (("NEW", True), ("OTHER", False)):
        came = Dataset()
        came.update(one)
        came.file_meta, came.SOPInstanceUID = one.file_meta, generate_uid()
        came.StudyInstanceUID = generate_uid()
        project = room.project(came)
        changed = Dataset()
        changed.update(came)
        changed.file_meta, changed.AccessionNumber = came.file_meta, value
        room.client.store(written(changed))
        with room.sessions.begin() as session:
            session.get_one(MigrationStudy, room.study(project).id).changes = {"AccessionNumber": "NEW"}
        room.run(project)
        study = room.study(project)
        assert (study.state == "verified") == is_declared
        (row,) = room.instances(project).values()
        if is_declared:
            assert (row.level, row.coerced) == (3, "(0008,0050)")
            assert row.source_digest != row.stored_digest
            found = room.examined(room.certificate(project, tmp_path))
            assert (found.faults, found.head["counts"]["coerced"]) == ([], {"(0008,0050)": 1})
        else:
            assert "AccessionNumber, which has not the declared value" in study.reason


def test_a_batch_is_taken_back_and_everything_else_stays_byte_for_byte(room: Room, tmp_path: Path) -> None:
    images, others = study_of(3), study_of(2)
    earlier = image(images[0].StudyInstanceUID, PatientID=images[0].PatientID)  # a modality's, of the same study
    assert room.archive.send(earlier, *others) == [0, 0, 0]
    room.follow()
    project = room.project(*images, batch=4, Level="arrival", Carry=["metadata"])
    uids = images[0].StudyInstanceUID, images[0].SOPInstanceUID
    room.sources[project.name].beside = [
        Extra("study", uids[0], "metadata", "1025", lambda: b'"of the study"'),
        Extra("instance", uids[1], "metadata", "1025", lambda: b"of the image"),
    ]
    room.run(project)
    number = room.study(project).id
    with room.sessions.begin() as session:
        assert [one.state for one in extras.of_study(session, number)] == ["carried", "carried"]
    room.follow()
    before = room.md5s()
    file = room.certificate(project, tmp_path).rename(tmp_path / "before.jsonl")
    with room.sessions.begin() as session:
        row = session.get_one(MigrationProject, project.id)
        (taken,) = rollback.preview(session, room.client, row, 4, "OLD")
        assert list(rollback.preview(session, room.client, row, 5, "OLD")) == []
    came = {str(one.SOPInstanceUID) for one in images}
    assert {one.sop_uid for one in next(iter(taken.going.values()))} == came
    assert taken.staying == [(earlier.SOPInstanceUID, "it was stored by another cause: modality")]
    assert room.md5s() == before  # looking takes nothing
    with room.sessions.begin() as session:
        row = session.get_one(MigrationProject, project.id)
        assert len(rollback.ask(session, row, taken, "the wrong hospital", "ana", room.now())) == 1
        assert rollback.confirm(session, row, 4, "ana", room.now(), timedelta())[0] == []  # nobody alone
        (number,), _ = rollback.confirm(session, row, 4, "rui", room.now(), timedelta())
        assert [one.refused for one in rollback.preview(session, room.client, row, 4, "OLD")] == [
            "it is being taken back already"
        ]
    while room.custody.round():
        pass
    with room.sessions.begin() as session:
        assert session.get_one(Deletion, number).state == "done"
        assert rollback.settle(session, room.now()) == 1
        assert rollback.settle(session, room.now()) == 0
        assert {one.state for one in extras.of_study(session, taken.study_id)} == {"rolled-back"}
    kept = room.client.get(f"/studies/{next(iter(taken.going))}/metadata/1025")
    assert kept == "of the study", "a modality's image keeps the study"
    gone = {one.orthanc_id for one in next(iter(taken.going.values()))}
    assert room.md5s() == {one: md5 for one, md5 in before.items() if one not in gone}
    assert room.study(project).state == "rolled-back"
    assert {one.verdict for one in room.instances(project).values()} == {"rolled-back"}
    found = room.examined(room.certificate(project, tmp_path))
    assert found.faults == []
    assert found.head["counts"]["studies_by_state"] == {"rolled-back": 1}
    with file.open("rb") as content:  # the certificate of before does not hold against the archive any more
        rechecked = rechecking.recheck(room.client, verifier.instances(content), 10, 1)
    assert len(rechecked.faults) == 3
    with room.sessions.begin() as session:
        entries = select(AuditEntry.payload).where(AuditEntry.event == "migration-rollback").order_by(AuditEntry.seq)
        told = [json.loads(one) for one in session.scalars(entries)]
        deletions.restore(session, session.get_one(Deletion, number), "rui", "it was right", room.now(), "ris")
    assert [(one["state"], one["who"]) for one in told] == [("asked", "ana"), ("done", "ana")]
    while room.custody.round():
        pass
    assert room.md5s() == before
    with room.sessions.begin() as session:
        assert rollback.settle(session, room.now()) == 1
    assert room.study(project).state == "ready"


def test_the_verifier_alone_verifies_and_the_archive_is_read_again(room: Room, tmp_path: Path) -> None:
    images = study_of(2)
    project = room.project(*images)
    room.run(project)
    file = room.certificate(project, tmp_path)
    program = tmp_path / "verifier.py"
    program.write_text(Path(verifier.__file__).read_text())
    key_id = room.examined(file).head["key_id"]

    def alone(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(program), str(file), *more]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={}, check=False)

    assert (alone("--key-id", key_id).returncode, alone("--key-id", "0" * 32).returncode) == (0, 1)
    with file.open("rb") as content:
        found = rechecking.recheck(room.client, verifier.instances(content), 10, 1)
    assert (found.drawn, found.of, found.faults) == (2, 2, [])
    damaged = room.on_disk(next(iter(room.instances(project).values())).orthanc_id or "")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with file.open("rb") as content:
        (fault,) = rechecking.recheck(room.client, verifier.instances(content), 10, 1).faults
    assert fault.endswith("its file is not the one that was certified")
    text = file.read_text().replace('"verdict":"equal"', '"verdict":"stored"', 1)
    file.write_text(text)
    tampered = alone("--key-id", key_id)
    assert tampered.returncode == 1
    assert "it was changed" in tampered.stdout


@contextmanager
def served(room: Room) -> Iterator[str]:
    """The pages of the same installation; their address."""
    with room.sessions.begin() as session:
        for login, role in (("ana", "migration-engineer"), ("rui", "administrator")):
            session.add(User(login=login, name=login, role=role, language="pt", password_hash="",
                             created_at=clock.text(clock.now())))  # fmt: skip
    sets = ("ris_service.session_pages:pages", "migration.pages:pages", "migration.proof_pages:pages",
            "migration.run_pages:pages", "migration.rollback_pages:pages",
            "operations.custody.deletion_pages:pages")  # fmt: skip
    app = create_app(room.archive.environment, Zambezi(), room.sessions, room.archive.keys, clock.now, sets)
    with pages_served(app) as address:
        yield address


def enter(page: Page, room: Room, address: str, login: str, role: str) -> None:
    token = sign(begin(login, "session", role, int(clock.now().timestamp()), 1800, ()), room.archive.keys.session_key)
    page.context.clear_cookies()
    page.context.add_cookies([{"name": COOKIE, "value": token, "url": address}])


def test_proof_and_roll_back_in_a_browser(room: Room, page: Page, tmp_path: Path) -> None:
    images = study_of(3)
    earlier = image(images[0].StudyInstanceUID, PatientID=images[0].PatientID)
    assert room.archive.send(earlier) == [0]
    room.follow()  # its cause is what was announced when it is recorded
    project = room.project(*images, batch=1, Level="arrival", Carry=["labels", "metadata"])
    study_uid = images[0].StudyInstanceUID
    room.sources[project.name].beside = [
        Extra("study", study_uid, "metadata", "1025", lambda: b"a note"),
        Extra("series", "1.2.3", "label", "teaching"),
    ]
    room.run(project)
    room.follow()
    room.certificate(project, tmp_path)
    with served(room) as address:
        enter(page, room, address, "ana", "migration-engineer")
        page.goto(f"{address}/migrations/{project.id}/studies/{study_uid}")
        beside = page.locator("h2", has_text="Ao lado das imagens").locator("xpath=following::table[1]")
        expect(beside).to_contain_text("trazido, relido, igual")
        expect(beside).to_contain_text("o arquivo não tem isto (series), ou tem-no em dois pacientes")
        shot(page, "migration-beside")
        page.goto(f"{address}/migrations/{project.id}")
        page.get_by_role("link", name="Prova e certificado").first.click()
        expect(page.locator("main")).to_contain_text("o ficheiro no disco é, byte a byte, o que o arquivo recebeu")
        shot(page, "migration-proof")
        with page.expect_download() as downloaded:
            page.get_by_role("link", name="O ficheiro assinado").click()
        assert room.examined(downloaded.value.path()).faults == []
        page.get_by_role("link", name="Retirar …").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("Sairiam 3 imagens de 1 estudos")
        expect(page.locator("main")).to_contain_text("foi guardado por outra causa: um equipamento")
        shot(page, "migration-rollback")
        page.get_by_label("Porquê, sem o nome do paciente").focus()
        page.keyboard.type("O hospital errado.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("espera por uma segunda pessoa, ana")
        expect(page.locator("button", has_text="Confirmar")).to_have_count(0)
        enter(page, room, address, "rui", "administrator")
        page.goto(page.url)
        shot(page, "migration-rollback-asked")
        page.get_by_role("link", name="Eliminação").click()
        expect(page.locator("main")).to_contain_text("só as imagens da lista")
        page.go_back()
        page.get_by_role("button", name="Confirmar o lote inteiro").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("confirmada, corre o tempo de espera, ana, rui")
    with room.sessions.begin() as session:
        (deletion,) = rollback.of_batch(session, project.id, 1)
        deletions.withdraw(session, deletion, "rui", clock.now(), "ris")


def test_the_console_shows_what_would_go_and_one_person_is_not_two(
    room: Room, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in room.archive.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(room.archive.environment.orthanc_config_dir))
    project = room.project(*study_of(2), batch=2, Level="source", Sample={"Studies": 500, "Seed": 3})
    console = CliRunner()

    def said(*words: str) -> str:
        done = console.invoke(migrate, [*words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "1 of 1 studies, drawn with seed 3" in said("sample", project.name)
    room.run(project)
    room.follow()
    shown = json.loads(said("rollback", project.name, "--batch", "2", "--json"))
    assert [(one["going"], one["staying"]) for one in shown["studies"]] == [(2, [])]
    assert shown["asked"] == []
    assert "asked for with 1 deletions" in said("rollback", project.name, "--batch", "2", "--because", "a trial")
    assert "another person must confirm it" in said("rollback", project.name, "--batch", "2", "--confirm")
    file = tmp_path / "c.jsonl"
    said("certificate", project.name, "--out", str(file), "--verifier", str(tmp_path / "v.py"))
    assert "1 of 1 drawn studies compared with the source, 0 differ" in said("verify-certificate", str(file),
                                                                           "--against-archive")  # fmt: skip
    assert room.examined(file).faults == []
    again = said("certificate", project.name, "--last")
    assert again.encode() == file.read_bytes()
    refused = console.invoke(migrate, ["rollback", "nobody", "--batch", "1"])
    assert (refused.exit_code, "no migration nobody" in refused.output) == (1, True)


@pytest.mark.parametrize(("level", "reached"), [("arrival", 2), ("source", 3)])
def test_what_the_plan_changes_is_carried_out_by_the_archive_and_proven(
    room: Room, tmp_path: Path, level: str, reached: int
) -> None:
    images = study_of(2)
    project = room.project(*images, Level=level)
    with room.sessions.begin() as session:
        session.get_one(MigrationStudy, room.study(project).id).changes = {"PatientID": "NEW7", "AccessionNumber": "A7"}
    room.run(project)
    study = room.study(project)
    assert (study.state, study.reason, study.level) == ("verified", "", reached)
    assert bool(room.sources[project.name].asked) == (level == "source")
    for row in room.instances(project).values():
        tags = room.client.get(f"/instances/{row.orthanc_id}/simplified-tags")
        assert (tags["PatientID"], tags["AccessionNumber"]) == ("NEW7", "A7")
        assert row.coerced == "(0008,0050) (0010,0020) (0400,0561)"
        assert row.arrived_sha256 == hashlib.sha256(room.client.file(row.orthanc_id or "")).hexdigest()
    found = room.examined(room.certificate(project, tmp_path))
    assert (found.faults, found.head["counts"]["coerced"]["(0010,0020)"]) == ([], 2)


PDF = b"%PDF-1.4\n% an old report, of odd length\n%%EOF"


def old_reports(room: Room, archive: bool, *made: legacy.PastReport) -> None:
    """Reports as an import leaves them behind, whose mapping says so or not."""
    fields = {"StudyUID": "UID", "File": "FILE"}
    said = {"Name": "old-ris", "Issuer": "HCM", "ToArchive": archive,
            "Reports": {"From": {"Csv": "r.csv"}, "Key": "ID", "Fields": fields}}  # fmt: skip
    with room.sessions.begin() as session:
        for one in made:
            legacy.record_report(session, None, one, now=clock.now())
        archiving.mark(session, mapping.read(said))


def test_documents_of_an_old_ris_go_into_the_archive_with_their_study_and_set_nothing_off(room: Room) -> None:
    (ct,) = study_of(1, AccessionNumber="A1")
    sr = image(
        ct.StudyInstanceUID, generate_uid(), PatientID=ct.PatientID, SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    strangers = image(
        ct.StudyInstanceUID, generate_uid(), PatientID="ANOTHER", SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    renumbered = image(
        ct.StudyInstanceUID, generate_uid(), PatientID="OLD-7", SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    for one in (sr, strangers, renumbered):
        del one.PixelData
        item = Dataset()
        item.ValueType, item.TextValue = "TEXT", "Sem altera"
        one.ContentSequence = [item]
    assert room.archive.send(ct) == [0]
    room.follow()

    def report(
        key: str, document: bytes, media: str, study_uid: str = str(ct.StudyInstanceUID), sop_uid: str = ""
    ) -> Any:
        return legacy.PastReport(
            "old-ris", key, "", media, document, sop_uid, study_uid, written_at=clock.text(clock.now())
        )

    dicom = legacy_documents.DICOM
    made = (report("1", PDF, legacy_documents.PDF), report("2", written(sr), dicom, sop_uid=sr.SOPInstanceUID),
            report("3", written(strangers), dicom, sop_uid=strangers.SOPInstanceUID),
            report("4", PDF, legacy_documents.PDF, study_uid="1.2.3.999"),
            report("5", b"words", legacy_documents.TEXT),
            report("6", written(renumbered), dicom, sop_uid=renumbered.SOPInstanceUID))  # fmt: skip
    project = room.project(ct, Level="arrival")  # its plan has said who OLD-7 is here
    with room.sessions.begin() as session:
        row = session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)).one()
        row.patient_id, row.changes = "OLD-7", {"PatientID": ct.PatientID}
    old_reports(room, False, *made)
    client = Pushed(room.archive.environment, room.archive.keys, "migration")
    client.push = lambda: room.pushes.push_what_is_newer(clock.now())

    def a_round() -> int:
        return archiving.store_all(room.sessions, room.sessions, client, ZoneInfo("Africa/Maputo"), lambda: True)

    assert a_round() == 0, "only where the mapping asks for it"
    old_reports(room, True)
    before = room.md5s()
    assert a_round() == 4, "the fourth waits for its study, the fifth is words"
    came = {one: md5 for one, md5 in room.md5s().items() if one not in before}
    assert len(came) == 3
    with room.sessions.begin() as session:
        rows = {one.source_key: one for one in session.scalars(select(LegacyReport))}
        assert rows["3"].archive_reason == "the object names another patient than the study's images do"
        assert rows["3"].document == made[2].document, "whole"
        assert {key: row.archive_state for key, row in rows.items()} == {
            "1": "stored", "2": "stored", "3": "refused", "4": "due", "5": "", "6": "stored"
        }  # fmt: skip
        (waits,) = session.scalars(select(ExceptionItem).where(ExceptionItem.kind == "documents-refused"))
        assert waits.facts == {"source": "old-ris", "count": 1}
    (pdf_id,) = client.find("Instance", {"SOPInstanceUID": rows["1"].sop_uid})
    pdf = client.file(pdf_id)
    assert legacy_documents.inner_pdf(pdf) == PDF
    found = pydicom.dcmread(BytesIO(pdf))
    assert (found.StudyInstanceUID, found.PatientID) == (ct.StudyInstanceUID, ct.PatientID)
    (sr_id,) = client.find("Instance", {"SOPInstanceUID": sr.SOPInstanceUID})
    assert client.file(sr_id) == made[1].document, "the object itself"
    (new_id,) = client.find("Instance", {"SOPInstanceUID": renumbered.SOPInstanceUID})
    new = pydicom.dcmread(BytesIO(client.file(new_id)))
    (before_that,) = new.OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert (new.PatientID, before_that.PatientID) == (ct.PatientID, "OLD-7"), "as the plan declares it, and no more"
    assert new.ContentSequence[0].TextValue == renumbered.ContentSequence[0].TextValue
    room.follow()
    with room.sessions.begin() as session:
        told = [
            json.loads(one) for one in session.scalars(select(AuditEntry.payload).where(AuditEntry.event == "stored"))
        ]
        by_id = {one["orthanc_id"]: (one["cause"], one.get("reference")) for one in told}
        assert {by_id[one] for one in came} == {("migration", "records old-ris")}
        (study,) = session.scalars(select(TheStudy).where(TheStudy.study_uid == ct.StudyInstanceUID))
        linked = [one.report.source_key for one in legacy.reports_of(session, study, None)]
        assert linked == ["6", "5", "3", "2", "1"], "the study's page leads to its reports, each report to its object"
        assert announcing.forget_instances(session, "migration", "records ", clock.now()) == 4


def test_a_death_at_any_commit_stores_a_document_once(room: Room, tmp_path: Path) -> None:
    (ct,) = study_of(1)
    assert room.archive.send(ct) == [0]
    room.follow()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.documents_process"])

    def child(death: int) -> int | None:
        """A process that stores what is due, and dies at its n-th commit event; how it ended."""
        (tmp_path / "migration").unlink(missing_ok=True)
        if death:
            (tmp_path / "migration").write_text(str(death))
        one = processes.Process(target=documents_process.store_all, args=(room.archive.variables, str(tmp_path)))
        one.start()
        while one.is_alive():
            room.pushes.push_what_is_newer(clock.now())
            one.join(0.1)
        return one.exitcode

    for death in count(1):
        pdf = PDF + str(death).encode()
        report = legacy.PastReport("dying", str(death), "", legacy_documents.PDF, pdf, "", str(ct.StudyInstanceUID))
        with room.sessions.begin() as session:
            legacy.record_report(session, None, report, now=clock.now()).archive_state = "due"
        ended = child(death)
        if ended == 0:
            break
        assert (ended, child(0)) == (137, 0), f"death {death}"
    assert death > 4, "before and after it is announced, before and after it is written down that it is there"
    with room.sessions.begin() as session:
        made = session.scalars(select(LegacyReport).where(LegacyReport.source == "dying")).all()
        assert {one.archive_state for one in made} == {"stored"}
    (study,) = room.client.find("Study", {"StudyInstanceUID": ct.StudyInstanceUID})
    there = {one["ID"] for one in room.client.get(f"/studies/{study}/instances")}
    assert len(there) == 1 + len(made)
    changes = room.client.get("/changes", since="0", limit="100000")["Changes"]
    new = [one["ID"] for one in changes if one["ChangeType"] == "NewInstance"]
    assert sorted(one for one in new if one in there) == sorted(there), "each came once"


@pytest.fixture
def lab(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The same archive, for a migration from sources of the test's own; `configure` says which."""
    environment, folder = room.archive.environment, tmp_path / "lab"
    shutil.copytree(environment.orthanc_config_dir, folder / "config")
    environ = {**os.environ, **room.archive.variables, "ZAMBEZI_CONFIG": str(folder / "config"), "TCP_NODELAY": "1",
               "ZAMBEZI_CLOCK": str(folder / "ahead")}  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    peers = json.loads((folder / "config" / "40-peers.json").read_text())
    made = Lab(folder, peers["DicomModalities"]["legacy"][2], environ, open_office())
    yield made
    made.stop()


def migrating(lab: Lab, name: str, plan: dict[str, Any] | None = None, **source: Any) -> MigrationProject:
    """A project that runs, with the inventory of this one source."""
    settings = {"Migration": {"Sources": {name: {"RetrySeconds": 0.1, **source}}}}
    (lab.folder / "config" / "30-zambezi.json").write_text(json.dumps({"Zambezi": settings}))
    lab.office = open_office()
    called = f"p{generate_uid()[-8:]}"
    made = inventory.take(lab.office.sessions, lab.office.source(name), called, name, clock.now())
    with lab.office.sessions.begin() as session:
        made = session.get_one(MigrationProject, made.id)
        made.state, made.plan = "running", plan or {}
    return made


def worked(room: Room, lab: Lab, project: MigrationProject) -> None:
    desk = replace(lab.office.desk(project.source), announced=room.announced)
    while worker.work(desk, project):
        pass


def files(folder: Path, *images: Dataset) -> dict[str, bytes]:
    """By SOP Instance UID, the bytes of each, which lies in the folder."""
    folder.mkdir()
    made = {str(one.SOPInstanceUID): written(one) for one in images}
    for uid, content in made.items():
        (folder / uid).write_bytes(content)
    return made


@pytest.mark.parametrize("kind", ["orthanc", "folder"])
def test_what_a_copying_source_has_under_the_archives_own_uids_waits_in_the_hold(room: Room, lab: Lab, kind: str):
    mine, beside = study_of(2)
    theirs = copy.deepcopy(mine)
    theirs.PixelData = bytes(63) + b"\1"
    assert room.archive.send(mine) == [0]
    room.follow()
    has = files(lab.folder / "discs", theirs, beside)
    if kind == "orthanc":
        legacy = Legacy(lab)
        assert legacy.load(*has.values()) == 2
        project = migrating(lab, "ORTHANC", Kind="orthanc", Peer="old")
    else:
        project = migrating(lab, "DISCS", Kind="folder", Folder=str(lab.folder / "discs"))
    worked(room, lab, project)
    study, rows = room.study(project), room.instances(project)
    assert (study.state, study.reason) == (
        "conflict", "the archive had 1 instances before, under the same UIDs, with other content, in (7fe0,0010)"
    )  # fmt: skip
    ours, other = rows[mine.SOPInstanceUID], rows[beside.SOPInstanceUID]
    assert (other.verdict, other.level) == ("equal", 3)
    assert (ours.verdict, ours.was_there, ours.reason) == ("different", 1, "(7fe0,0010)")
    sides = {"stored": room.on_disk(ours.orthanc_id or "").read_bytes(), "source": has[theirs.SOPInstanceUID]}
    assert digest.fingerprint(sides["stored"]).digest == digest.fingerprint(written(mine)).digest
    for side, content in sides.items():
        assert getattr(ours, f"{side}_digest") == digest.fingerprint(content).digest
        assert getattr(ours, f"{side}_md5") == hashlib.md5(content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(sides["source"]).hexdigest()
    assert hold.get(room.archive.environment.hold_dir, sha256) == sides["source"]
    room.follow()
    with room.sessions.begin() as session:
        (held,) = session.scalars(select(Held).where(Held.sha256 == sha256))
        assert (held.why, held.sop_uid) == ("conflict", mine.SOPInstanceUID)


def test_what_comes_by_get_as_it_is_compressed_is_proven_by_arrival_and_by_its_source(room: Room, lab: Lab):
    start_legacy(lab, room.archive.environment.ports.dicom)
    sent = [lab.altered(name, renamed) for name in ("MR_small_RLE.dcm", "examples_jpeg2k.dcm", "CT_small.dcm")]
    lab.load(*sent)
    project = migrating(lab, "LEGACY", {"Level": "arrival"}, Peer="legacy", Retrieve="get")
    for level in (2, 3):
        worked(room, lab, project)
        rows = room.instances(project).values()
        assert [row.level for row in rows] == [level] * 3
        for row in rows:
            kept = room.on_disk(row.orthanc_id or "").read_bytes()
            assert row.arrived_sha256 == hashlib.sha256(kept).hexdigest()
            assert row.given_md5 == hashlib.md5(kept, usedforsecurity=False).hexdigest()
        with room.sessions.begin() as session:  # what is there is enough: nothing comes a second time
            session.get_one(MigrationProject, project.id).plan = {"Level": "source"}
            mine = MigrationStudy.project_id == project.id
            assert set(session.scalars(select(MigrationStudy.state).where(mine))) == {"verified"}
            session.execute(update(MigrationStudy).where(mine).values(state="ready"))
    assert {row.stored_syntax for row in rows} == {RLELossless, JPEG2000Lossless, ExplicitVRLittleEndian}
    assert {digest.fingerprint(room.client.file(row.orthanc_id or "")).digest for row in rows} == {
        digest.fingerprint(file.read_bytes()).digest for file in sent
    }


def renamed(dataset: Dataset) -> None:
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))


@contextmanager
def a_service(room: Room, lab: Lab) -> Iterator[Migrations]:
    """Sweeps when it is told to; a gateway pushes and follows meanwhile, as its process does, whatever is away."""
    over, migrations = threading.Event(), Migrations(lab.office)

    def go_on() -> None:
        while not over.wait(0.05):
            with suppress(SQLAlchemyError, OrthancError):
                room.pushes.push_what_is_newer(clock.now())
                while room.follower.follow(0):
                    pass

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield migrations
    finally:
        migrations.stop.set()
        migrations.wait()
        over.set()
        thread.join()


def states_of(room: Room, project: MigrationProject) -> Counter[str]:
    with room.sessions.begin() as session:
        query = select(MigrationStudy.state).where(MigrationStudy.project_id == project.id)
        return Counter(session.scalars(query))


@as_root
def test_a_migration_waits_for_room_on_the_disk_says_so_and_goes_on_by_itself(
    room: Room, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = files(lab.folder / "discs", *(study_of(1, PixelData=bytes(100_000))[0] for _ in range(80)))
    project = migrating(lab, "DISCS", Kind="folder", Folder=str(lab.folder / "discs"), Ceiling=4)

    def verified(many: int) -> bool:
        migrations.sweep()
        with suppress(SQLAlchemyError):
            return states_of(room, project)["verified"] >= many
        return False

    def note() -> str:
        migrations.sweep()
        migrations.heartbeat()
        with room.sessions.begin() as session:
            row = session.get(ProcessState, "migration")
            return str(row.details.get("note", "")) if row else ""

    with a_service(room, lab) as migrations:
        until(lambda: verified(3), 30)
        filler = fill(room.archive.environment.home / "filler")  # in the middle, to the last byte
        time.sleep(LOOK_S)  # so long nobody knows
        monkeypatch.setattr(disk, "LOOK_S", 0.2)
        assert not verified(80)
        migrations.wait()
        os.truncate(filler, filler.stat().st_size - (20 << 20))
        until(lambda: "migration waits until there is more room on the disk" in note())
        before = states_of(room, project)
        note()
        assert states_of(room, project) == before, "nothing is claimed"
        filler.unlink()
        until(lambda: note() == "")
        lab.put_clock(minutes=10)  # leases and pauses are over
        until(lambda: verified(80), 30)
    rows = room.instances(project)
    assert {uid: room.on_disk(row.orthanc_id or "").read_bytes() for uid, row in rows.items()} == has
    with room.sessions.begin() as session:
        query = select(MigrationStudy.attempts).where(MigrationStudy.project_id == project.id)
        assert set(session.scalars(query)) == {1}, "a full disk is no failed attempt of a study"
