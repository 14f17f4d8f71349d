"""Play step 6: a legacy PACS is inventoried, pulled inside an open window, compared instance by instance, certified."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pydicom
from sqlalchemy import select

from demo import doors, images
from demo.hospital import Hospital, Run, must, wait_for
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy, Study


def legacy_is_migrated(hospital: Hospital, run: Run) -> str:
    """Load dcmqrscp by storescu, inventory, move, compare, certify; the studies are there for the viewer."""
    with tempfile.TemporaryDirectory() as folder:
        files = images.legacy_studies(run.number, Path(folder))
        load(files, hospital.neighbours.legacy_port)
        expected = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}
    name = f"play-{run.number}"
    hospital.zambezi("migrate", "inventory", "LEGACY", "--project", name)
    hospital.zambezi("migrate", "start", name)

    def finished() -> bool:
        with hospital.database().begin() as session:
            project = session.scalars(select(MigrationProject).where(MigrationProject.name == name)).one()
        return project.state in ("finished", "certified")

    wait_for("the migration finished", finished, 180)
    with hospital.database().begin() as session:
        rows = session.execute(
            select(MigrationStudy, MigrationInstance)
            .join(MigrationInstance, MigrationInstance.study_id == MigrationStudy.id)
            .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
            .where(MigrationProject.name == name, MigrationInstance.sop_uid.in_(expected))
        ).all()
        verdicts = {instance.sop_uid: instance.verdict for _, instance in rows}
        undated = [study for study, _ in rows if not study.study_date]
        studies = sorted({study.study_uid for study, _ in rows})
    must(set(verdicts) == expected, f"the inventory found {len(verdicts)} of {len(expected)} instances")
    must(set(verdicts.values()) == {"equal"}, f"verdicts: {sorted(verdicts.values())} instead of all equal")
    must(undated, "the study without StudyDate is not among them")
    for sop_uid in expected:
        must(
            len(hospital.orthanc().find("Instance", {"SOPInstanceUID": sop_uid})) == 1, "an instance is not in Orthanc"
        )

    certificate = hospital.environment.home / f"certificate-{run.number}.jsonl"
    hospital.zambezi("migrate", "certificate", name, "--out", str(certificate))
    hospital.zambezi("migrate", "verify-certificate", str(certificate), "--against-archive")
    lines = [json.loads(line) for line in certificate.read_text().splitlines()]
    levels = {line["instance"]: line["level"] for line in lines if "instance" in line}
    must(set(levels) >= expected, "the certificate does not name every instance")
    must(set(levels.values()) == {3}, f"levels of proof: {sorted(levels.values())} instead of all 3")
    must(all("sha256" in line for line in lines if "instance" in line), "an instance's arrival was not seen")

    def known() -> bool:
        with hospital.database().begin() as session:
            found = session.scalars(select(Study.cause).where(Study.study_uid.in_(studies))).all()
        return len(found) == len(studies) and set(found) == {"migration"}

    wait_for("the migrated studies, with their cause, in the RIS", known)
    viewer = hospital.person("radiologista")
    for study_uid in studies:
        viewer.open_study(study_uid)
    doors.nothing_unnamed(hospital, studies)
    return f"{len(studies)} studies, {len(expected)} instances (compressed, undated) equal by digest; certified"


def load(files: list[Path], port: int) -> None:
    for file in files:  # an association each: every file in the transfer syntax it has
        subprocess.run(
            ["dcmsend", "-aet", "OLDCT", "-aec", "LEGACY", "127.0.0.1", str(port), str(file)],
            check=True, capture_output=True, timeout=60, env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip


def certificate_holds(hospital: Hospital, run: Run) -> str:
    """The certificate of the run's migration still verifies."""
    certificate = hospital.environment.home / f"certificate-{run.number}.jsonl"
    hospital.zambezi("migrate", "verify-certificate", str(certificate))
    return f"{certificate.name} verifies"
