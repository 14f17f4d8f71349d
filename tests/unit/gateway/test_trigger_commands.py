"""`zambezi hl7 try` shows the very message, says whether it would be sent, and sends nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from gateway.trigger_commands import hl7
from tests.unit.gateway.test_triggers import PEERS, a_study, an_order
from zambezi import clock
from zambezi.database.tables import Delivery, Report
from zambezi.environment import REPOSITORY

OWN = {"Type": "ORU^R01^ORU_R01", "Segments": ["PID|1||{patient_id}", "OBX|1|FT|X||{findings}"]}
RULES: list[dict[str, Any]] = [
    {"Name": "exam", "On": "exam-changed", "Message": "ORM^O01", "When": {"State": ["completed"]}},
    {"Name": "images", "On": "study-completed", "Message": "ORU^R01"},
    {"Name": "report", "On": "report-signed", "Template": "own"},
]


@pytest.fixture
def run(made, tables_url: str, tmp_path: Path, monkeypatch):
    config = tmp_path / "config"
    shutil.copytree(REPOSITORY / "orthanc-config", config)
    section = {"Peers": PEERS, "Triggers": [{"SendTo": "his", **rule} for rule in RULES], "Templates": {"own": OWN}}
    (config / "30-zambezi.json").write_text(json.dumps({"Zambezi": {"Hl7": section}}))
    for name, value in (("HOME", tmp_path), ("CONFIG", config), ("DATABASE_URL", tables_url)):
        monkeypatch.setenv(f"ZAMBEZI_{name}", str(value))

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(hl7, ["try", *words])

    return invoke


def test_the_message_is_shown_with_whether_it_would_be_sent_and_nothing_is(made, now, run):
    with made.begin() as session:
        order = an_order(session, now)
        a_study(session, now, order, cause="migration")
    number = order.accession_number
    shown = run("exam", number)
    assert "It would not be sent: State is scheduled, the rule wants completed." in shown.output
    assert "ORC|SC||" in shown.output
    shown = run("exam", number, "--state", "completed")
    assert "It would be sent." in shown.output
    assert "||CM" in shown.output
    shown = run("images", "1.2")
    assert "exam" not in shown.output.partition("\n")[0]
    assert "ORU^R01 to his (127.0.0.1:2575). Nothing was sent." in shown.output
    assert "the cause is migration, the rule acts on modality" in shown.output
    assert "113014^DICOM Study^DCM||1.2|" in shown.output
    with made.begin() as session:
        assert session.scalars(select(Delivery)).all() == []


def test_a_report_fills_a_template_and_what_is_not_known_is_said_in_a_sentence(made, now, run):
    with made.begin() as session:
        a_study(session, now, an_order(session, now))
    assert run("report", "1.2").output == "Error: the study has no signed report to tell of\n"
    with made.begin() as session:
        session.add(
            Report(
                study_uid="1.2", version=1, state="final", findings="Sem | alterações\nfim", author="ana",
                signed_by="ana", signed_at=clock.text(now), created_at=clock.text(now), updated_at=clock.text(now),
            )
        )  # fmt: skip
    shown = run("report", "1.2")
    assert "OBX|1|FT|X||Sem \\F\\ alterações\\.br\\fim" in shown.output
    assert run("report", "9.9").output == "Error: there is no study or order 9.9\n"
    assert "no trigger 'exams' in Hl7.Triggers (known: exam, images, report)" in run("exams", "1.2").output
