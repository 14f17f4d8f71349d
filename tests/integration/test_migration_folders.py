"""Folders of messy files into a real Orthanc: all that can be stored is there and equal, all else is listed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import select

from migration import inventory, worker
from migration.desk import Desk
from migration.folders import places
from migration.office import open_office
from tests.integration.migration_lab import Lab, a_lab
from zambezi import digest, hold
from zambezi.database.tables import FolderFile, Held, MigrationInstance, MigrationProject

CORPUS = Path(pydicom.__file__).parent / "data"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with a_lab(tmp_path, monkeypatch) as running:
        yield running


def folder_source(lab: Lab, root: Path) -> None:
    settings = {"Migration": {"Sources": {"DISCS": {"Kind": "folder", "Folder": str(root), "RetrySeconds": 0.1}}}}
    (lab.folder / "config" / "30-zambezi.json").write_text(json.dumps({"Zambezi": settings}))
    lab.office = open_office()


def take_inventory(lab: Lab) -> MigrationProject:
    project = inventory.take(lab.office.sessions, lab.office.source("DISCS"), "p", "DISCS", datetime.now(UTC))
    with lab.office.sessions.begin() as session:
        project = session.get_one(MigrationProject, project.id)
        project.state = "running"
    return project


def run_all(lab: Lab, project: MigrationProject) -> None:
    desk = Desk(**{**vars(lab.office.desk("DISCS")), "settle_seconds": 0.1})
    for _ in range(3):
        lab.let_time_pass()
        while worker.work(desk, project):
            pass


def rows(lab: Lab) -> dict[str, FolderFile]:
    with lab.office.sessions.begin() as session:
        return {row.place: row for row in session.scalars(select(FolderFile))}


def test_of_a_messy_corpus_nothing_is_lost_silently(lab: Lab) -> None:
    folder_source(lab, CORPUS)
    run_all(lab, take_inventory(lab))
    client, listed = lab.office.client(), rows(lab)
    with lab.office.sessions.begin() as session:
        waiting = {held.sha256 for held in session.scalars(select(Held)) if held.state == "waiting"}
        verdicts = {row.sop_uid: row for row in session.scalars(select(MigrationInstance))}
    fates: dict[str, set[str]] = {}
    for file in sorted(CORPUS.rglob("*")):
        if not file.is_file():
            continue
        content, row = file.read_bytes(), listed[places.written((str(file.relative_to(CORPUS)),))]
        fates.setdefault(row.verdict, set()).add(file.name)
        if row.verdict == "migrate":  # there, the very bytes
            assert row.sop_uid is not None
            instance = verdicts[row.sop_uid]
            assert instance.verdict == "equal", (file.name, instance.verdict)
            assert client.file(str(instance.orthanc_id)) == content
        elif row.verdict == "copy":  # what it says is there
            stored = client.file(str(verdicts[str(row.sop_uid)].orthanc_id))
            assert digest.fingerprint(content).digest == digest.fingerprint(stored).digest
        elif row.verdict in ("conflict", "held"):  # whole, before a person
            sha256 = hashlib.sha256(content).hexdigest()
            assert sha256 in waiting
            assert hold.get(lab.office.environment.hold_dir, sha256) == content
            assert row.reason
        else:
            assert (row.verdict, row.kind) in {("listed", kind) for kind in ("other", "packed", "dicomdir")}
            assert b"DICM" not in content[128:132] or row.kind == "dicomdir"
    assert len(fates["migrate"]) > 100
