"""The status, with parts of it dead."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from operations import status, supervision
from operations.supervision import Process
from zambezi import clock
from zambezi.database.tables import ProcessState
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
    assert status.lines(found)


def test_every_process_has_its_program_in_supervisords_configuration(tmp_path: Path):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    made = supervision.configuration(environment, list(supervision.PROCESSES))
    assert [f"[program:{name}]" in made for name in supervision.PROCESSES] == [True] * len(supervision.PROCESSES)
    assert 'TCP_NODELAY="1"' in made
