"""Whole studies from a real legacy PACS (dcmqrscp) into a real Orthanc."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time as time_
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner
from pydicom.uid import generate_uid
from sqlalchemy import select

from migration import lanes, ledger, verifier, worker
from migration.commands import migrate
from migration.desk import Closed
from tests.integration.migration_lab import SAMPLES, Lab, a_lab, listens, sample, wait_for
from zambezi import breakers, leases, signing
from zambezi.config.settings import MigrationSource, Window
from zambezi.database.tables import AuditEntry, ExceptionItem, MigrationProject, MigrationStudy
from zambezi.environment import REPOSITORY


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with a_lab(tmp_path, monkeypatch) as running:
        yield running


def undated(dataset: pydicom.Dataset) -> None:
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))
    dataset.PatientID = "UNDATED1"
    del dataset.StudyDate


def next_slice(dataset: pydicom.Dataset) -> None:
    dataset.SOPInstanceUID = generate_uid()


def run_all(lab: Lab, project: MigrationProject, **how: object) -> None:
    while worker.work(lab.desk(**how), project):
        pass


def test_every_study_is_moved_compared_and_certified(lab: Lab) -> None:
    lab.load(*map(sample, SAMPLES), lab.altered("CT_small.dcm", undated), lab.altered("CT_small.dcm", next_slice))
    runner = CliRunner()
    assert "5 studies (1 undated)" in runner.invoke(migrate, ["inventory", "LEGACY", "--project", "p"]).output
    with lab.office.sessions.begin() as session:  # one of them lies on tape: the process serves that lane, too
        tape = session.scalars(select(MigrationStudy).where(MigrationStudy.study_date == "").limit(1)).one()
        tape.priority = lanes.priority(0, {"InstanceAvailability": "NEARLINE"})
    assert "p runs" in runner.invoke(migrate, ["start", "p"]).output
    service = lab.start_service()

    def facts_of() -> dict[str, object]:
        found: dict[str, object] = json.loads(runner.invoke(migrate, ["status", "p", "--json"]).output)[0]
        return found

    wait_for("the migration to finish", lambda: facts_of()["state"] == "finished", 60)
    service.terminate()
    assert service.wait(30) == 0
    assert (facts_of()["verified"], facts_of()["failed"]) == (5, 0)
    assert {row.verdict for row in lab.instances().values()} == {"equal"}
    assert len(lab.office.client().get("/instances")) == 6
    syntaxes = {
        lab.office.client().request("GET", f"/instances/{row.orthanc_id}/metadata/TransferSyntax").text
        for row in lab.instances().values()
    }
    assert {"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"} < syntaxes  # RLE and JPEG 2000 as they were

    file, pdf = lab.folder / "certificate.jsonl", lab.folder / "certificate.pdf"
    issued = runner.invoke(migrate, ["certificate", "p", "--out", str(file), "--pdf", str(pdf)])
    assert issued.exit_code == 0, issued.output
    assert "6 instances; level 3 (source): 6" in runner.invoke(migrate, ["verify-certificate", str(file)]).output
    assert pdf.read_bytes().startswith(b"%PDF")
    head = json.loads(file.read_text().splitlines()[0])
    with file.open("rb") as lines:
        assert set(lab.instances()) == {one["instance"] for one in verifier.instances(lines)}
    known = signing.register(lab.office.environment.signing_dir, "certificate")
    assert known is not None
    with lab.office.sessions() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.event == "key-changed")).one()
    facts = json.loads(entry.payload)
    assert (facts["fingerprint"], facts["change"]) == (head["key_id"], "first") == (known.keys[0].key_id, "first")

    digest = next(iter(lab.instances().values())).stored_digest
    assert digest is not None
    file.write_text(file.read_text().replace(digest, digest[::-1]))
    tampered = runner.invoke(migrate, ["verify-certificate", str(file)])
    assert tampered.exit_code != 0
    assert "it was changed" in tampered.output

    quiet = runner.invoke(migrate, ["delta", "p"]).output
    assert "5 studies at the source" in quiet
    assert "0 new studies, 0 new instances in known ones" in quiet
    lab.load(lab.altered("CT_small.dcm", other_study))
    assert json.loads(runner.invoke(migrate, ["delta", "p", "--json"]).output)["new_studies"] == 1
    assert (facts_of()["state"], facts_of()["left"]) == ("running", 1), "there is something to move again"


def test_the_inventory_names_undated_studies_and_those_under_two_patients(lab: Lab) -> None:
    def other_patient(dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientID = "OTHER"

    lab.load(sample("CT_small.dcm"), lab.altered("CT_small.dcm", undated))
    lab.load(lab.altered("CT_small.dcm", other_patient))
    found, coverage = lab.office.source("LEGACY").find_studies(datetime.now(UTC).date())
    assert (coverage.studies, coverage.undated, coverage.doubts) == (2, 1, [])
    assert sorted(map(len, found.patients.values())) in ([1, 1], [1, 2])  # this PACS may merge the two patients
    lab.inventory()
    assert len(lab.instances()) == 3


def test_a_probe_of_a_pacs_that_no_one_here_wrote_finds_what_it_can_do(lab: Lab) -> None:
    lab.load(sample("CT_small.dcm"))
    found = lab.office.source("LEGACY").probe().abilities
    assert {name for name, (has, _) in found.items() if has} >= {
        "C-ECHO as the archive", "C-FIND, study root", "SERIES level", "IMAGE level", "C-MOVE to the archive",
        "C-GET, study root",
    }  # fmt: skip


def test_nothing_moves_outside_the_window(lab: Lab) -> None:
    lab.load(sample("CT_small.dcm"))
    project = lab.inventory()
    never = MigrationSource(peer="legacy", windows=(Window(days=(), from_=time(0), to=time(1)),))
    with pytest.raises(Closed):
        worker.work(lab.desk(settings=never), project)
    assert lab.moves() == 0
    assert {study.state for study in lab.studies().values()} == {"ready"}


def test_an_instance_that_the_source_adds_during_the_move_is_counted_and_brought_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.load(sample("CT_small.dcm"))
    project = lab.inventory()
    really_count = worker._count_again

    def add_then_count(*which: object) -> set[str]:
        monkeypatch.setattr(worker, "_count_again", really_count)
        lab.load(lab.altered("CT_small.dcm", next_slice))
        return really_count(*which)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "_count_again", add_then_count)
    run_all(lab, project)
    assert [row.verdict for row in lab.instances().values()] == ["equal", "equal"]
    assert {study.state for study in lab.studies().values()} == {"verified"}


def test_a_study_of_any_size_costs_the_archive_and_the_database_few_questions(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.load(*(lab.altered("CT_small.dcm", next_slice) for _ in range(4)))
    project, desk = lab.inventory(), lab.desk()
    asked: Counter[str] = Counter()
    commits: list[str] = []
    really = desk.client.request

    def request(method: str, path: str, *rest: Any, **how: Any) -> Any:
        asked[f"{method} {re.sub('[0-9a-f]{8}(-[0-9a-f]{4,12}){4}', '*', path)}"] += 1
        return really(method, path, *rest, **how)

    monkeypatch.setattr(desk.client, "request", request)
    monkeypatch.setattr("zambezi.database.engine.crash.point", commits.append)
    assert worker.work(desk, project)
    assert {row.verdict for row in lab.instances().values()} == {"equal"}
    asked = Counter({what: many for what, many in asked.items() if not what.startswith("GET /jobs/")})
    assert asked == {
        "GET /zambezi/status": 1, "POST /tools/find": 2,  # what is there before the move, and after
        "POST /modalities/legacy/query": 4, "POST /queries/*/retrieve": 1,  # the move; series, images and whose it is
        "GET /queries/*/answers": 3, "PUT /zambezi/verify": 1, "POST /tools/bulk-content": 1,
        "GET /instances/*/file": 4, "GET /instances/*/attachments/dicom/md5": 4,  # this archive has not our plugin
    }  # fmt: skip
    # Claimed, announced with those that follow, looked at, all there, compared with the source, ended.
    assert len(commits) / 2 == 6


def test_one_object_that_cannot_be_sent_holds_up_nothing_but_itself(lab: Lab) -> None:
    def compressed(dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID = generate_uid()

    # This PACS proposes RLE alone for MR, and can't compress: the plain one of the two can't be sent.
    bad = lab.altered("MR_small.dcm", compressed)
    lab.load(sample("MR_small_RLE.dcm"), bad)
    project = lab.inventory()
    for _ in range(MigrationSource(peer="legacy").policy.object_attempts):
        run_all(lab, project)
        lab.let_time_pass()
    rows = lab.instances()
    left_behind = rows.pop(str(pydicom.dcmread(bad).SOPInstanceUID))
    assert left_behind.verdict == "missing"
    assert left_behind.reason, "why it can't be had stands beside it"
    assert [row.verdict for row in rows.values()] == ["equal"]
    (study,) = lab.studies().values()
    assert study.state == "incomplete"
    assert study.reason.startswith("all but 1 of 2 instances are verified: 1 instances did not arrive")
    with lab.office.sessions.begin() as session:
        assert session.query(ExceptionItem).one().reference == study.study_uid


def other_study(dataset: pydicom.Dataset) -> None:
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.StudyInstanceUID = generate_uid()


def other_series(dataset: pydicom.Dataset) -> None:
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()


def test_a_source_that_is_down_is_left_alone_and_asked_by_one_worker_when_it_may_be_well(lab: Lab) -> None:
    lab.load(*(lab.altered("CT_small.dcm", other_study) for _ in range(5)))
    project = lab.inventory()
    legacy = lab.processes["legacy-server"]
    legacy.kill()
    legacy.wait()
    impatient = MigrationSource(peer="legacy", break_after=2)
    run_all(lab, project, settings=impatient)
    assert sorted(study.attempts for study in lab.studies().values()) == [0, 0, 0, 1, 1]
    with lab.office.sessions.begin() as session:
        (paused,) = breakers.paused(session)
    assert paused.name == "source:LEGACY"
    assert "source:LEGACY is paused until" in CliRunner().invoke(migrate, ["status"]).output
    lab.let_time_pass()
    run_all(lab, project, settings=impatient)
    assert sum(study.attempts for study in lab.studies().values()) == 3  # one probe, in vain
    lab.start("legacy-server", [str(word) for word in legacy.args])
    wait_for("the legacy PACS", lambda: listens(lab.legacy_port))
    lab.let_time_pass()
    run_all(lab, project, settings=impatient)
    assert {study.state for study in lab.studies().values()} == {"verified"}
    with lab.office.sessions.begin() as session:
        assert breakers.paused(session) == []


def test_a_cap_makes_the_parts_smaller_and_is_waited_for(lab: Lab) -> None:
    lab.load(sample("CT_small.dcm"), lab.altered("CT_small.dcm", other_series))
    project = lab.inventory()
    began = time_.monotonic()
    run_all(lab, project, settings=MigrationSource(peer="legacy", windows=(Window(kilobits_per_second=400),)))
    # Twice 39 KB, moved and retrieved a second time, at 50 KB a second, of which the first 50 are free.
    assert time_.monotonic() - began > 1.8
    assert lab.moves() == 2
    assert {study.state for study in lab.studies().values()} == {"verified"}


def test_a_worker_that_died_is_named_in_the_audit_and_costs_the_study_no_attempt(lab: Lab) -> None:
    lab.load(sample("CT_small.dcm"))
    project = lab.inventory()
    with lab.office.sessions.begin() as session:
        ledger.claim(session, project, now=datetime.now(UTC), owner="dead:1:1")
    lab.let_time_pass()
    run_all(lab, project)
    (study,) = lab.studies().values()
    assert (study.state, study.attempts) == ("verified", 1)
    with lab.office.sessions.begin() as session:
        said = [entry.payload for entry in session.query(AuditEntry).filter_by(event="migration-changed")]
    assert any(b"the lease of dead:1:1 ran out" in payload for payload in said)


def test_what_the_archive_had_before_under_the_same_uid_with_other_pixels_is_a_conflict(lab: Lab) -> None:
    def flipped(dataset: pydicom.Dataset) -> None:
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]

    lab.load(sample("CT_small.dcm"))
    lab.store(lab.altered("CT_small.dcm", flipped))
    run_all(lab, lab.inventory())
    (study,) = lab.studies().values()
    assert study.state == "conflict"
    assert "had 1 instances before, under the same UIDs, with other content, in (7fe0,0010)" in study.reason
    (row,) = lab.instances().values()
    assert (row.verdict, row.was_there, row.reason) == ("different", 1, "(7fe0,0010)")
    assert row.source_digest != row.stored_digest


def test_killed_in_the_middle_a_migration_goes_on_and_moves_nothing_again(lab: Lab) -> None:
    def one_of_many(dataset: pydicom.Dataset) -> None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = (generate_uid() for _ in range(3))

    lab.load(*(lab.altered("CT_small.dcm", one_of_many) for _ in range(8)))
    lab.inventory()

    def verified() -> int:
        return sum(study.state == "verified" for study in lab.studies().values())

    service = lab.start_service()
    wait_for("some studies to be verified", lambda: verified() >= 2)
    service.kill()
    service.wait()
    assert verified() < 8
    lab.let_time_pass()
    lab.start_service()
    wait_for("the rest", lambda: verified() == 8, 60)
    assert lab.moves() in (8, 9)  # the one that was under way may have been asked for twice
    assert len(lab.office.client().get("/instances")) == 8


def test_a_worker_that_was_thought_dead_can_finish_nothing(lab: Lab) -> None:
    lab.load(sample("CT_small.dcm"))
    project = lab.inventory()
    now = datetime.now(UTC)
    with lab.office.sessions.begin() as session:
        old = ledger.claim(session, project, now=now, owner="a", lease=-ledger.LEASE)
        new = ledger.claim(session, project, now=now, owner="b")
    assert old is not None
    assert new is not None
    with pytest.raises(leases.Fenced), lab.office.sessions.begin() as session:
        ledger.finish(session, old, "verified", "", now)
    with lab.office.sessions.begin() as session:
        assert ledger.claim(session, project, now=now, owner="c") is None


def test_the_service_without_an_installation_says_what_is_missing(tmp_path: Path) -> None:
    environ = {"ZAMBEZI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"}
    ended = subprocess.run(
        [sys.executable, "-m", "zambezi.starting", "migration.service"],
        env=environ,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 2
    assert "zambezi up" in ended.stderr
    assert "Traceback" not in ended.stderr
