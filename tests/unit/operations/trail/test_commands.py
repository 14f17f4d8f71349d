"""`zambezi audit` at the console: what is asked for is found, recorded, and told so that a person can act."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from operations.trail.commands import audit as commands
from zambezi import account, audit, clock
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Base
from zambezi.environment import Environment

Run = Callable[..., Result]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path / "home"))
    for name, value in Environment.read().variables().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    engine = connect(Environment.read().database_url, "test")
    Base.metadata.create_all(engine)
    made = sessions(engine, "test")
    old = clock.now() - timedelta(days=400)
    with made.begin() as session:
        for who in ("ana", "rui", "ana"):
            audit.append(session, "ris", "viewed", old, who=who, study_uid="1.2", patient_id="P1", patient_name="ZZ^C")
        audit.append(session, "ris", "sign-in-failed", clock.now(), who="ana", reason="second factor")
    return made


@pytest.fixture
def run(opened: Sessions) -> Run:
    def invoke(*words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(commands, words)
        assert done.exit_code == code, done.output
        return done

    return invoke


def used(opened: Sessions) -> list[str]:
    with opened() as session:
        rows = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "audit-used").order_by(AuditEntry.seq)
        ).all()
        assert all(row.who == account.at_the_console() for row in rows)
        return [json.loads(row.payload)["how"] for row in rows]


def test_search_seen_and_person_find_and_are_recorded(run: Run, opened: Sessions):
    found = run("search", "--patient", "P1", "--who", "ana").output
    assert found.count(" viewed: who=ana, study_uid=1.2") == 2 and "ZZ^C" not in found
    today = clock.now().astimezone(ZoneInfo("Africa/Maputo")).date().isoformat()  # a day of the site
    assert "sign-in-failed" in run("search", "--failed", "--until", today).output
    assert run("search", "--event", "viewed", "--since", today).output == ""
    assert "ana                          2 times, 1 studies" in run("seen", "P1").output
    assert "nobody has seen this patient here" in run("seen", "P2").output
    assert "sign-in-failed               1 times, 1 in vain" in run("person", "ana").output
    assert used(opened) == ["search"] * 3 + ["seen"] * 2 + ["person"]


def test_an_export_is_for_its_owner_alone(run: Run, tmp_path: Path):
    file = tmp_path / "out.json"
    assert "3 entries" in run("export", str(file), "--format", "json", "--event", "viewed").output
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one["who"] for one in json.loads(file.read_text())] == ["ana", "rui", "ana"]


def test_a_checkpoint_that_was_taken_out_shows_a_cut_end(run: Run, opened: Sessions, tmp_path: Path):
    stick = tmp_path / "checkpoint.json"
    assert "checkpoint 1, signed with key" in run("checkpoint", "--out", str(stick)).output
    good = run("verify", "--against", str(stick)).output
    assert "the audit trail holds" in good and "1 entries and checkpoints from elsewhere" in good
    with opened.begin() as session:
        run_sql = session.connection().exec_driver_sql
        run_sql("DELETE FROM audit_checkpoint")
        run_sql("DELETE FROM audit_entry WHERE journal = 'ris' AND seq > 2")
        run_sql("UPDATE chain_head SET seq = 2, hash = (SELECT hash FROM audit_entry WHERE journal = 'ris' AND seq = 2)"
                " WHERE journal = 'ris'")  # fmt: skip
    assert "the audit trail holds" in run("verify").output
    assert "BROKEN  central table, chain ris, entry 3: the chain ends here" in run(
        "verify", "--against", str(stick), code=1
    ).output  # fmt: skip
    other = tmp_path / "other.json"
    other.write_text('{"checkpoint":{"format":"x"}}\n')
    assert "Error: this is no checkpoint" in run("verify", "--against", str(other), code=1).output


def test_what_is_old_is_sealed_and_pruned_when_asked_for(run: Run, opened: Sessions):
    day = (clock.now() - timedelta(days=100)).date().isoformat()
    assert "sealed" in run("seal", "--before", day).output
    done = run("seal", "--before", day, "--prune").output
    assert "pruned  ris-000000001-000000003.gz: 3 entries left the table" in done
    assert "1 sealed segments" in run("verify").output
    ahead = (clock.now() + timedelta(days=3)).date().isoformat()
    assert "allowed is a day that has begun" in run("seal", "--before", ahead, code=1).output


def test_a_collector_that_is_not_there_is_said(run: Run):
    assert "none is configured (Zambezi.Audit.Collector)" in run("collector", code=1).output
