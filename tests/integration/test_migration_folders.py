"""Folders of messy files into a real Orthanc: all that can be stored is there and equal, all else is listed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from migration import inventory, worker
from migration.commands import migrate
from migration.desk import Desk
from migration.folders import places
from migration.office import open_office
from tests.integration.migration_lab import Lab, a_lab
from zambezi import digest, digests, hold
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
        waiting = {held.sha256: held.reason for held in session.scalars(select(Held)) if held.state == "waiting"}
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
            assert waiting[sha256]
            assert hold.get(lab.office.environment.hold_dir, sha256) == content
        else:
            assert (row.verdict, row.kind) in {("listed", kind) for kind in ("other", "packed", "dicomdir")}
            assert b"DICM" not in content[128:132] or row.kind == "dicomdir"
    assert len(fates["migrate"]) > 100


def altered(change: dict[str, str]) -> bytes:
    dataset = pydicom.dcmread(CORPUS / "test_files" / "CT_small.dcm")
    for keyword, value in change.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def test_a_folder_that_lies_breaks_grows_and_goes_away(lab: Lab) -> None:
    root = lab.folder / "discs"
    (root / "cd1").mkdir(parents=True)
    good = altered({"StudyInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.1.1"})
    torn = altered({"StudyInstanceUID": "1.2.2", "SOPInstanceUID": "1.2.2.1"})[:20000]
    beside = altered({"StudyInstanceUID": "1.2.2", "SOPInstanceUID": "1.2.2.2"})
    later = altered({"StudyInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.1"})
    (root / "cd1" / "IM1").write_bytes(good)
    (root / "cd1" / "TORN").write_bytes(torn)
    with zipfile.ZipFile(root / "export.zip", "w") as archive:
        archive.writestr("IM2", beside)
    (root / "CHANGES").write_bytes(later)
    folder_source(lab, root)
    probe = lab.office.source("DISCS").probe().abilities
    assert probe["folder"] == (True, "4 files looked at, 0 of them can't be read")
    project = take_inventory(lab)
    (root / "CHANGES").write_bytes(later[:-2] + b"\1\1")
    run_all(lab, project)

    studies = lab.studies()
    assert {uid: study.state for uid, study in studies.items()} == {
        "1.2.1": "verified", "1.2.2": "incomplete", "1.2.3": "parked",
    }  # fmt: skip
    refused = "the archive refused it: it can't be read as a DICOM file; it is in the hold"
    assert refused in studies["1.2.2"].reason
    assert "the file has changed since the inventory" in studies["1.2.3"].reason
    row = rows(lab)["cd1/TORN"]
    assert (row.verdict, row.held_sha256) == ("held", hashlib.sha256(torn).hexdigest())
    assert hold.get(lab.office.environment.hold_dir, str(row.held_sha256)) == torn
    instances = lab.instances()
    assert {uid: one.verdict for uid, one in instances.items()} == {
        "1.2.1.1": "equal", "1.2.2.1": "missing", "1.2.2.2": "equal", "1.2.3.1": "missing",
    }  # fmt: skip
    md5 = digests.orthanc_md5(beside)
    kept = instances["1.2.2.2"]
    assert (kept.source_md5, kept.given_md5, kept.stored_md5) == (md5, md5, md5)

    (root / "cd1" / "IM3").write_bytes(altered({"StudyInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.1.2"}))
    project = take_inventory(lab)
    runner = CliRunner()
    assert "2 studies will be tried again" in runner.invoke(migrate, ["start", "p", "--retry"]).output
    run_all(lab, project)
    assert {uid: study.state for uid, study in lab.studies().items()} == {
        "1.2.1": "verified", "1.2.2": "incomplete", "1.2.3": "verified",
    }  # fmt: skip
    with lab.office.sessions.begin() as session:
        assert [held.times for held in session.scalars(select(Held))] == [1], "what is held isn't offered again"

    said = json.loads(runner.invoke(migrate, ["files", "DISCS", "--verdict", "held", "--json"]).output)
    assert [one["place"] for one in said["files"]] == ["cd1/TORN"]
    assert said["walk"]["files"] == 6
    shown = runner.invoke(migrate, ["index", "DISCS"]).output
    assert "4 dicom, migrate" in shown
    assert "export.zip|IM2" in runner.invoke(migrate, ["files", "DISCS", "--kind", "dicom"]).output
    assert "no source LEGACY of Kind folder" in runner.invoke(migrate, ["files", "LEGACY"]).output

    root.rename(lab.folder / "elsewhere")
    root.mkdir()
    missing = runner.invoke(migrate, ["inventory", "DISCS", "--project", "p"])
    assert missing.exit_code == 1
    assert f"{root} is empty, but had 5 images: is it mounted?" in missing.output
    assert {row.verdict for row in rows(lab).values()} == {"migrate", "held", "listed"}, "nothing counts as gone"
