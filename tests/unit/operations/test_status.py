"""The status, with parts of it dead."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operations import status, supervision
from operations.status_commands import known_faults, lines
from operations.supervision import Process
from zambezi import clock, exceptions
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AlertChannel, ProcessState
from zambezi.environment import Environment

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
AT = int(NOW.timestamp())


def process(name: str, state: str = "RUNNING", since: int = AT - 100) -> Process:
    return Process(name, state, since, 42, state != "RUNNING", Path("/log"))


def row(name: str, seconds_ago: int) -> ProcessState:
    at = clock.text(datetime.fromtimestamp(AT - seconds_ago, UTC))
    return ProcessState(process=name, at=at, version="0.1.0", configuration="abc", details={}, last_error="")


@pytest.mark.parametrize(
    ("rows", "running", "state"),
    [
        ([row("ris", 3)], [process("ris")], "running"),
        ([row("ris", 60)], [process("ris")], "silent"),
        ([row("ris", 60)], [process("ris", since=AT - 5)], "starting"),
        ([], [process("ris", since=AT - 5)], "starting"),
        ([row("ris", 3)], [process("ris", "BACKOFF")], "backoff"),
        ([row("ris", 3)], None, "stopped"),
    ],
)
def test_a_process_is_running_only_while_it_says_so_itself(
    rows: list[ProcessState], running: list[Process] | None, state: str
):
    found = {part.name: part.state for part in status.parts(rows, running, NOW)}
    assert found["ris"] == state


def test_everything_dead_is_still_a_status(tmp_path: Path):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    found = status.look(environment, NOW)
    assert not found.is_well
    assert {part.state for part in found.parts} == {"stopped"}
    assert any("`zambezi up` starts it" in sentence for sentence in found.trouble)
    assert any(line.lstrip("! ").startswith(f"at rest: data folder {tmp_path}: ") for line in lines(found))


def test_a_node_says_which_studies_it_can_not_show_until_it_is_started_again(tmp_path: Path):
    nodes = [
        {"node": name, "records": name == "one", "epoch": 3, "journal": name, "seq": 7, "refused_studies": refused}
        for name, refused in (("one", 0), ("two", 2))
    ]
    found = status.look(Environment.read({"ZAMBEZI_HOME": str(tmp_path)}), NOW)
    said = [line for line in lines(replace(found, archive={"nodes": nodes})) if line.startswith("  node ")]
    assert ["refuses since another node corrected them, until it is started again: 2" in line for line in said] == [
        False, True
    ]  # fmt: skip


def test_what_waits_and_a_channel_that_fails_are_in_the_status(tmp_path: Path, tables_url: str):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path), "ZAMBEZI_DATABASE_URL": tables_url})
    engine = connect(environment.database_url, "test")
    with sessions(engine, "test").begin() as session:
        for n in range(3):
            at = NOW - timedelta(hours=n)
            exceptions.wait(session, "hold", str(n), what="", suggestion="", now=at, kind="conflict")
        session.add(
            AlertChannel(
                name="mail", sent_at=clock.text(NOW), digest_day="", failures=2, error="mail.hcm: refused",
                error_since=clock.text(NOW),
            )
        )  # fmt: skip
    found = status.look(environment, NOW)
    assert found.exceptions == [exceptions.Waiting("hold", "conflict", 3, clock.text(NOW - timedelta(hours=2)))]
    trouble = "alerts by mail fail since 2026-03-01T08:30:00: mail.hcm: refused"
    assert trouble in found.trouble
    said = "\n".join(lines(found))
    assert "3  hold conflict, the oldest since 2026-03-01T06:30:00" in said
    assert trouble in said
    on = "SQLite" if tables_url.startswith("sqlite") else "PostgreSQL"
    assert f"Databases: central {on} " in said
    assert ", index SQLite" in said
    assert json.loads(json.dumps(asdict(found)))["exceptions"][0]["count"] == 3


def test_every_process_has_its_program_in_supervisords_configuration(tmp_path: Path):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    made = supervision.configuration(environment, list(supervision.PROCESSES))
    assert [f"[program:{name}]" in made for name in supervision.PROCESSES] == [True] * len(supervision.PROCESSES)
    assert 'TCP_NODELAY="1"' in made


def test_the_open_faults_of_an_orthanc_are_said_until_it_has_them_no_more():
    assert len(known_faults("1.10.1")) == 2 and "CVE-2026-5437" in known_faults("1.12.7")[0]
    assert len(known_faults("1.12.11")) == 1
    assert known_faults("1.13.0") == known_faults("mainline") == known_faults("") == []
