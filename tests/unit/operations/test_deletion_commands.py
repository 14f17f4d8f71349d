"""`zambezi delete` and `zambezi legal-hold` at the console."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from operations.custody.deletion_commands import delete, legal_hold
from tests.unit.ris_service.seeding import CHEST, Hospital, seeded
from zambezi import clock
from zambezi.database.tables import Deletion, DeletionItem, Study
from zambezi.environment import REPOSITORY

ME = f"console:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    made = seeded(tmp_path / "home")
    monkeypatch.setenv("ZAMBEZI_HOME", str(made.environment.home))
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(REPOSITORY / "orthanc-config"))
    monkeypatch.delenv("ZAMBEZI_DATABASE_URL", raising=False)
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "somebody-else")
    return made


def run(group, *words: str) -> Result:
    return CliRunner().invoke(group, list(words))


def asked() -> dict:
    answer = run(delete, "ask", CHEST, "--code", "quality", "--reason", "movement", "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.output)


def test_the_console_is_one_person_whatever_the_environment_says(hospital: Hospital):
    found = asked()
    assert (found["state"], found["asked_by"]) == ("asked", ME)
    answer = run(delete, "confirm", str(found["deletion"]))
    assert answer.exit_code == 1
    assert "another person must confirm it" in answer.output


def test_the_second_person_may_be_at_the_console(hospital: Hospital):
    number = asked()["deletion"]
    with hospital.sessions.begin() as session:
        session.get_one(Deletion, number).asked_by = "pacs-administrator"
    answer = run(delete, "confirm", str(number))
    assert answer.exit_code == 0, answer.output
    assert "carried out not before" in answer.output
    assert [one["state"] for one in json.loads(run(delete, "list", "--json").output)] == ["confirmed"]
    answer = run(delete, "withdraw", str(number), "--reason", "a mistake", "--json")
    assert json.loads(answer.output)["state"] == "withdrawn"
    assert run(delete, "list").output == ""
    assert CHEST in run(delete, "list", "--all").output
    assert run(delete, "withdraw", str(number)).exit_code == 1


def test_what_one_deletion_did_and_that_it_is_undone(hospital: Hospital):
    number = asked()["deletion"]
    assert run(delete, "restore", str(number), "--reason", "x").exit_code == 1
    with hospital.sessions.begin() as session:
        row = session.get_one(Deletion, number)
        row.state, row.done_at, row.confirmed_by = "done", clock.text(hospital.clock()), "administrator"
        session.add(
            DeletionItem(deletion_id=number, orthanc_id="i", sop_uid="1.2", series_uid="1", sha256="a", state="gone")
        )
    shown = json.loads(run(delete, "show", str(number), "--json").output)
    assert shown["instances"] == [{"sop_uid": "1.2", "series_uid": "1", "sha256": "a", "state": "gone"}]
    assert "1 listed, 1 left the archive" in run(delete, "show", str(number)).output
    assert "puts the copies back" in run(delete, "restore", str(number), "--reason", "it was right").output


def test_what_is_not_there_and_what_is_there_twice(hospital: Hospital):
    common = ("--code", "other", "--reason", "x")
    assert "no study 9.9" in run(delete, "ask", "9.9", *common).output
    assert "no deletion 77" in run(delete, "confirm", "77").output
    assert "no legal hold 77" in run(legal_hold, "lift", "77", "--reason", "x").output
    at = clock.text(hospital.clock())
    with hospital.sessions.begin() as session:
        session.add(Study(study_uid=CHEST, orthanc_id="twin", cause="modality", first_at=at, last_at=at))
    answer = run(delete, "ask", CHEST, *common)
    assert answer.exit_code == 1 and "--archive-id twin" in answer.output
    assert run(delete, "ask", CHEST, "--archive-id", "twin", *common).exit_code == 0
    with hospital.sessions.begin() as session:
        assert session.scalars(select(Deletion.study_orthanc_id)).all() == ["twin"]


def test_a_legal_hold_at_the_console(hospital: Hospital):
    assert "legal hold 1 stands" in run(legal_hold, "set", "--patient", "P1001", "--reason", "court").output
    answer = run(delete, "ask", CHEST, "--code", "other", "--reason", "x")
    assert answer.exit_code == 1 and "legal hold 1" in answer.output
    assert "patient P1001, set by " + ME in run(legal_hold, "list").output
    assert run(legal_hold, "lift", "1", "--reason", "closed").exit_code == 0
    assert run(legal_hold, "list").output == ""
    assert [one["lift_reason"] for one in json.loads(run(legal_hold, "list", "--all", "--json").output)] == ["closed"]
    assert asked()["state"] == "asked"
    assert run(legal_hold, "set", "--reason", "court").exit_code == 1
