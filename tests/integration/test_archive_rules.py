"""Rules over attributes, signs and dry runs, in a real Orthanc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.integration.archive_fixture import Archive, image, until
from zambezi.environment import REPOSITORY

RULES = {
    "Completeness": {"QuietSeconds": 600, "By": ["mpps", "count"], "SettleSeconds": 0.5},
    "Destinations": {"PACS2": {"Proof": "found"}},
    "Access": {"Sites": {"Beira": {"AETs": ["US1"]}}},
    "Routing": [
        {
            "Name": "thin-heads",
            "When": {
                "Modality": "CT", "StudyDescription": {"Pattern": "*cabeça*"}, "SliceThickness": {"To": 1.5},
                "Not": {"ImageType": "LOCALIZER"}, "PatientAge": {"From": 16},
            },
            "SendTo": ["PACS2"],
        },
        {"Name": "beira", "When": {"Site": "Beira"}, "Whole": "study", "Late": "never", "SendTo": ["PACS2"]},
        {"Name": "with-priors", "When": {"StudyID": "NEW"}, "SendTo": ["PACS2"], "Priors": {"Count": 1}},
        {
            "Name": "by-step",
            "When": {"0040,0275/0040,0009": "SPS7", "0029,1008[SIEMENS CSA HEADER]": {"Pattern": "image*"}},
            "SendTo": ["PACS2"],
        },
        {"Name": "urgent", "When": {"Priority": ["STAT", "HIGH"]}, "SendTo": ["PACS2"]},
    ],
}  # fmt: skip

HEAD = {"StudyDescription": "TAC Cabeça", "SpecificCharacterSet": "ISO_IR 100", "PatientAge": "045Y"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("rules"), RULES).start()
    yield running
    running.leave()


def routed(archive: Archive, study: str) -> dict[str, set[str]]:
    return {one["rule"]: {i[2] for i in one["instances"]} for one in archive.events("routed", study_uid=study)}


def ended(archive: Archive, *studies: str) -> None:
    """The gateway tells that the modality ended these exams, without saying how many images."""
    generation = archive.get("/zambezi/status").json()["ready_generation"] + 1
    signs = {study: {"mpps": {"at": "2026-03-01T08:30:00.000000Z", "instances": None}} for study in studies}
    assert archive.put("/zambezi/ready", {"generation": generation, "studies": signs}).status_code == 200


def test_rules_over_what_only_the_files_hold_when_the_modality_says_it_is_done(archive: Archive) -> None:
    study, other = generate_uid(), generate_uid()
    thin = image(study, SliceThickness="0.6", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], **HEAD)
    thick = image(study, SliceThickness="5", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], **HEAD)
    scout = image(study, SliceThickness="1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **HEAD)
    child = image(other, SliceThickness="0.6", **{**HEAD, "PatientAge": "008Y"})
    announced = {study: {"cause": "modality", "reference": "order Z1", "priority": "HIGH"}}
    archive.put("/zambezi/announced", {"generation": 1, "studies": announced})
    assert archive.send(thin, thick, scout, child) == [0] * 4
    until(lambda: archive.events("stored", sop_uid=child.SOPInstanceUID))
    assert archive.events("study-completed") == []
    ended(archive, study, other)
    until(lambda: archive.events("study-completed", study_uid=other) and archive.events("routed", study_uid=study))
    everything = {one.SOPInstanceUID for one in (thin, thick, scout)}
    assert routed(archive, study) == {"thin-heads": {thin.SOPInstanceUID}, "urgent": everything}
    assert {one["priority"] for one in archive.events("routed", study_uid=study)} == {50}
    assert routed(archive, other) == {}
    (completed,) = archive.events("study-completed", study_uid=other)
    assert completed["because"] == "the modality ended the exam (MPPS)"
    told = archive.get(f"/zambezi/explain?study={other}").json()
    assert told["rules"][0]["left"] == {"PatientAge is 008Y, the rule wants at least 16": 1}


def test_rules_over_what_stands_in_sequences_and_in_private_blocks(archive: Archive) -> None:
    study = generate_uid()
    images = [image(study, generate_uid(), NumberOfStudyRelatedInstances=3) for _ in range(3)]
    steps = [["SPS1", "SPS7"], ["SPS7"], []]
    for one, ids in zip(images, steps, strict=True):
        one.RequestAttributesSequence = [Dataset() for _ in ids]
        for item, id in zip(one.RequestAttributesSequence, ids, strict=True):
            item.ScheduledProcedureStepID = id
    images[1].private_block(0x0029, "ACME", create=True).add_new(0x08, "CS", "IMAGE")  # SIEMENS' is the second here
    for one in images:
        one.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x08, "CS", "IMAGE NUM 4")
    images[0][0x0029, 0x1008].value = "SPEC"
    assert archive.send(*images) == [0] * 3
    until(lambda: archive.events("study-completed", study_uid=study))
    assert routed(archive, study) == {"by-step": {images[1].SOPInstanceUID}}
    told = next(rule for rule in archive.get(f"/zambezi/explain?study={study}").json()["rules"] if rule["matches"])
    assert told["because"].endswith("0040,0275/0040,0009 is SPS7 and 0029,1008[SIEMENS CSA HEADER] is like image*")
    assert told["left"] == {
        "0040,0275/0040,0009 is empty, the rule wants SPS7": 1,
        "0029,1008[SIEMENS CSA HEADER] is something else, the rule wants like image*": 1,
    }


def test_the_images_own_count_completes_a_study_and_late_ones_stay_behind(archive: Archive) -> None:
    study = generate_uid()
    counted = {"NumberOfStudyRelatedInstances": 2}
    assert archive.send(image(study, **counted), aet="US1") == [0]
    until(lambda: archive.events("stored", study_uid=study))
    assert archive.events("study-completed", study_uid=study) == []
    assert archive.send(image(study, **counted), aet="US1") == [0]
    until(lambda: archive.events("routed", study_uid=study))
    assert archive.send(image(study, **counted), aet="US1") == [0]
    until(lambda: archive.events("study-completed", study_uid=study, generation=2))
    assert [len(one["instances"]) for one in archive.events("routed", study_uid=study)] == [2]


def test_the_patients_earlier_study_goes_along(archive: Archive) -> None:
    who = {"PatientID": "HCZ 7 (ç)", "SpecificCharacterSet": "ISO_IR 100", "NumberOfStudyRelatedInstances": 1}
    earlier, stranger = image(StudyDate="20250101", **who), image(StudyDate="20250601", **{**who, "PatientID": "HCZ 7"})
    new = image(StudyDate="20260301", StudyID="NEW", **who)
    assert archive.send(earlier, stranger) == [0, 0]
    until(lambda: archive.events("study-completed", study_uid=stranger.StudyInstanceUID))
    assert archive.send(new) == [0]
    until(lambda: archive.events("routed", study_uid=earlier.StudyInstanceUID))
    assert routed(archive, new.StudyInstanceUID) == {"with-priors": {new.SOPInstanceUID}}
    assert routed(archive, stranger.StudyInstanceUID) == {}


def test_the_commands_ask_the_running_plugin(archive: Archive, tmp_path: Path) -> None:
    study = generate_uid()
    assert archive.send(image(study, NumberOfStudyRelatedInstances=1, SliceThickness="5", **HEAD)) == [0]
    until(lambda: archive.events("study-completed", study_uid=study))
    tried = tmp_path / "tried.json"
    tried.write_text(
        '{ "Zambezi": { "Routing": [ // the thick ones, too\n'
        '  { "Name": "thin-heads", "When": { "StudyDescription": { "Pattern": "*cabe?a" } },'
        '    "SendTo": ["PACS2"] }, { "Name": "old", "When": { "StudyDescription": "TAC Cabeça" },'
        '    "Priors": { "FetchFrom": ["PACS2"] } } ], "PriorSources": { "PACS2": {} } } }'
    )
    before = archive.entries()
    explained = zambezi(archive, "route", "explain", study)
    assert "- thin-heads: 0 of 1 instances meet" in explained.stdout
    assert "SliceThickness is 5, the rule wants at most 1.5" in explained.stdout
    ran = zambezi(archive, "route", "dry-run", str(tried), "--last", "10")
    assert f"{study}  (modality" in ran.stdout
    assert "+ thin-heads -> PACS2: 1 instances, because rule thin-heads" in ran.stdout
    assert "+ old -> here, from PACS2: earlier studies, because rule old: 1 instances" in ran.stdout
    assert "nothing was sent or changed" in ran.stdout
    assert [one for one in archive.entries()[len(before) :] if one["event"] in ("routed", "configured")] == []
    tried.write_text('{ "Routing": [ { "Name": "x", "When": { "StudyDescripton": "y" }, "SendTo": ["PACS3"] } ] }')
    refused = zambezi(archive, "route", "dry-run", str(tried))
    assert refused.returncode == 2
    assert 'did you mean "StudyDescription"?' in refused.stderr
    assert "Traceback" not in refused.stderr


def zambezi(archive: Archive, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ, **archive.variables, "PYTHONPATH": str(REPOSITORY),
        "ZAMBEZI_CONFIG": str(archive.environment.orthanc_config_dir),
    }  # fmt: skip
    command = [sys.executable, "-c", "from zambezi.cli import main; main()", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
