"""`zambezi hold` at the console: what is told, and that the second person is another one."""

from __future__ import annotations

import json
import stat

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from operations.custody.hold_commands import hold as command
from tests.unit.operations.custody.archive import sample
from zambezi import account
from zambezi import hold as files
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry

CT = sample("CT_small.dcm")


@pytest.fixture
def run(room, monkeypatch):
    for name, value in room.environment.variables().items():
        monkeypatch.setenv(name, value)

    def invoke(*words: str, who: str = "console:ana"):
        monkeypatch.setattr(account, "at_the_console", lambda: who)
        return CliRunner().invoke(command, words)

    return invoke


def test_what_needs_somebody_is_listed_without_patients(room, run):
    row = room.hold(CT, state="waiting")
    room.hold(CT, why="deleted", state="kept", reference="deletion 1")
    listed = run("list").output
    assert f"{row}  waiting" in listed and "deleted" not in listed
    assert "deleted" in run("list", "--all").output
    assert "deleted" in run("list", "--state", "kept").output
    told = json.loads(run("list", "--json").output)
    assert [(one["id"], one["why"], one["times"]) for one in told] == [(row, "conflict", 1)]
    shown = run("show", str(row)).output + run("show", str(row), "--json").output
    assert "CompressedSamples" not in shown and "1CT1" not in shown
    assert room.row(row).sha256 in shown


def test_an_unknown_number_is_a_sentence(run):
    done = run("show", "99")
    assert done.exit_code == 1
    assert "there is no number 99 in the hold" in done.output


def test_discarding_needs_another_account(room, run):
    row = str(room.hold(CT, state="waiting"))
    assert run("discard", row).exit_code == 2, "a reason is needed"
    assert run("discard", row, "--reason", "a phantom").exit_code == 0
    refused = run("confirm", row)
    assert (refused.exit_code, "another person must confirm" in refused.output) == (1, True)
    assert run("confirm", row, who="console:rui").exit_code == 0
    assert room.row(int(row)).state == "discarded"


def test_withdrawing_and_releasing(room, run):
    row = str(room.hold(CT, why="quarantine", state="waiting"))
    run("discard", row, "--reason", "x")
    assert run("release", row).exit_code == 1
    assert run("withdraw", row, who="console:rui").exit_code == 0
    assert run("release", row).exit_code == 0
    assert (room.row(int(row)).state, room.row(int(row)).decided_by) == ("releasing", "console:ana")


def test_an_exported_object_is_recorded_whole_and_for_nobody_elses_eyes(room, run, tmp_path):
    row = str(room.hold(CT, state="waiting"))
    out = tmp_path / "out.dcm"
    assert run("export", row, str(out)).exit_code == 0
    assert out.read_bytes() == CT
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with room.sessions.begin() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.event == "viewed")).one()
    facts = Sealed(entry.journal, entry.seq, entry.hash, entry.payload).facts
    assert (facts["who"], facts["held"], facts["path"]) == ("console:ana", int(row), "export")
    assert "there already" in run("export", row, str(out)).output


def test_checking_ends_with_1_where_something_is_wrong(room, run):
    row = room.hold(CT, state="waiting")
    assert run("check").exit_code == 0
    files.path(room.folder, room.row(row).sha256).unlink()
    done = run("check", "--json")
    assert (done.exit_code, json.loads(done.output)["damaged"]) == (1, 1)


def test_who_types_is_who_signed_in_to_the_machine():
    assert account.at_the_console().startswith("console:")
    assert len(account.at_the_console()) > len("console:")
