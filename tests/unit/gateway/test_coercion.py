"""Coercion as an administrator sees it: what waits for a person, and what a rule would do to a file."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from gateway.coercion_commands import coerce_group
from gateway.effects import Effects
from tests.unit.coercion.images import read
from tests.unit.zambezi.test_rewriting import made as a_file
from zambezi import chain
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import ExceptionItem
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault


def test_a_person_is_told_once_a_study_and_rule_however_many_images(made: Sessions, now: datetime):
    entries, head = [], ""
    for seq, study in enumerate(("1.2.3", "1.2.3", "1.2.4"), 1):
        facts = {"rule": "clinic", "reason": "AccessionNumber: too long", "study_uid": study, "sop_uid": f"1.{seq}"}
        entries.append(chain.seal("j", seq, head, "coercion-failed", now, facts))
        head = entries[-1].hash
    with made.begin() as session:
        Effects(session, Zambezi(), now).carry_out(entries)
    with made() as session:
        found = {one.study_uid: one for one in session.scalars(select(ExceptionItem))}
    assert set(found) == {"1.2.3", "1.2.4"}
    one = found["1.2.3"]
    assert (one.kind, one.facts["source"]) == ("coercion-failed", "clinic")
    assert one.actions[0]["href"] == "/studies/1.2.3"


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `zambezi coerce` with these rules."""

    def run(rules: list[dict[str, Any]], *arguments: str) -> Any:
        for name in ("10-orthanc.json", "20-plugins.json"):
            (tmp_path / name).write_text((REPOSITORY / "orthanc-config" / name).read_text())
        (tmp_path / "30-zambezi.json").write_text(json.dumps({"Zambezi": {"Coercions": rules}}))
        monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("ZAMBEZI_CONFIG", str(tmp_path))
        monkeypatch.setenv("ZAMBEZI_REPOSITORY", str(REPOSITORY))
        return CliRunner().invoke(coerce_group, arguments)

    return run


RULES: list[dict[str, Any]] = [
    {"Name": "clinic", "When": {"StudyDescription": "TC"}, "Prefix": {"PatientID": "CN-"}},
    {"Name": "by-aet", "When": {"CallingAet": "CT2"}, "Set": {"StationName": "Sala 2"}},
    {
        "Name": "other", "When": {"StudyDescription": ["RM", "US"], "StationName": {"Present": True}},
        "Remove": ["StudyID"],
    },
]  # fmt: skip


def test_a_dry_run_says_which_rules_are_met_why_and_what_becomes(ask: Any, tmp_path: Path):
    file = tmp_path / "image.dcm"
    file.write_bytes(a_file())
    told = ask(RULES, "try", str(file), "--aet", "CT2", "--write", str(tmp_path / "made.dcm"))
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert lines[:3] == [
        "clinic: meets its conditions", "by-aet: meets its conditions",
        "other: StudyDescription is TC, the rule wants RM or US",
    ]  # fmt: skip
    assert "  (0010,0020) PatientID: 'P1' becomes 'CN-P1'" in lines
    assert "  (0008,1010) StationName: '' becomes 'Sala 2'" in lines
    assert read((tmp_path / "made.dcm").read_bytes()).PatientID == "CN-P1"
    assert file.read_bytes() == a_file()
    again = ask(RULES, "try", str(file), "--write", str(tmp_path / "made.dcm"))
    assert again.exit_code == 1
    assert "nothing is written over it" in again.output
    assert "by-aet: CallingAet is not known, the rule wants CT2" in ask(RULES, "try", str(file)).output


def test_a_dry_run_says_why_it_would_fail_and_of_what_is_no_image(ask: Any, tmp_path: Path):
    file = tmp_path / "image.dcm"
    file.write_bytes(a_file())
    told = ask([{"Name": "long", "Prefix": {"AccessionNumber": "0123456789ABCDEF"}}], "try", str(file))
    assert told.exit_code == 1
    assert "stored as it came, and a person told: AccessionNumber" in told.output
    file.write_text("no image")
    told = ask(RULES, "try", str(file))
    assert (told.exit_code, "no DICOM file" in told.output) == (1, True)


def test_the_rules_are_listed_in_words(ask: Any, monkeypatch: pytest.MonkeyPatch):
    never = "  never met: nobody listens at a coercing port (ZAMBEZI_COERCING_PORT is not set)"
    assert never in ask(RULES, "list").output.splitlines()
    monkeypatch.setenv("ZAMBEZI_COERCING_PORT", "4244")
    assert ask(RULES, "list").output.splitlines() == [
        "clinic: where StudyDescription is TC",
        "by-aet: where CallingAet is CT2",
        "other: where StudyDescription is RM or US and StationName present",
    ]
    assert ask([], "list").output == "there are no coercion rules\n"


def test_without_the_worklist_a_dry_run_says_so(ask: Any, tmp_path: Path):
    file = tmp_path / "image.dcm"
    file.write_bytes(a_file())
    told = ask([{"Name": "o", "FromWorklist": {"Take": ["PatientName"]}}], "try", str(file))
    assert "the worklist is not known" in told.output
    assert "it would be stored as it is" in told.output


@pytest.mark.parametrize("found", ["x", "0", "70000", "4242"])
def test_a_coercing_port_that_can_not_be_used_is_named(found: str):
    with pytest.raises(EnvironmentFault, match="ZAMBEZI_COERCING_PORT"):
        Environment.read({"ZAMBEZI_COERCING_PORT": found})


def test_the_coercing_port_is_off_unless_it_is_set():
    assert Environment.read({}).coercing_port is None
    on = Environment.read({"ZAMBEZI_COERCING_PORT": "4244"})
    assert on.coercing_port == 4244
    assert Environment.read(on.variables()).coercing_port == 4244
