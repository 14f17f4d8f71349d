"""Migrations into an archive with the whole plugin, from every kind of source, on a disk that is full."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from migration import inventory, worker
from migration.office import open_office
from migration.service import Migrations
from tests.integration.archive_fixture import until, written
from tests.integration.migration_lab import Lab, start_legacy
from tests.integration.proof_room import Room, room, running, study_of
from tests.integration.test_migration_copies import Legacy
from tests.small_disk import as_root, fill
from zambezi import clock, digest, disk, hold
from zambezi.database.tables import (
    Held,
    MigrationProject,
    MigrationStudy,
    ProcessState,
)
from zambezi.disk import LOOK_S
from zambezi.orthanc_client import OrthancError

__all__ = ["room", "running"]


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
