"""The process operations by itself: it tells a real receiver, carries out rules, and repeats nothing after kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.gateway_alone import eventually
from tests.schema import upgraded
from tests.unit.operations.receivers import Heard, http_receiver
from zambezi import clock, exception_rules, exceptions, keys
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AlertChannel, ExceptionItem
from zambezi.environment import REPOSITORY, Environment


@pytest.fixture
def home(tmp_path: Path) -> Environment:
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path), "ZAMBEZI_CONFIG": str(tmp_path / "json")})
    upgraded(environment.database_url)
    keys.load_or_create(environment.keys_file)
    environment.config_dir.mkdir()
    for file in (REPOSITORY / "orthanc-config").glob("[124]0-*.json"):
        (environment.config_dir / file.name).write_bytes(file.read_bytes())
    return environment


def configure(home: Environment, port: int) -> None:
    """One message in twelve seconds at most, and no digest."""
    hook = {"Url": f"http://127.0.0.1:{port}/hook"}
    section = {"Webhook": hook, "IntervalMinutes": 0.2, "DigestHour": None, "PageAddress": "https://pacs.example"}
    (home.config_dir / "30-zambezi.json").write_text(json.dumps({"Zambezi": {"Alerts": section}}))


@contextmanager
def operations(home: Environment) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, **home.variables(), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-m", "zambezi.starting", "operations.service"], env=environ)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


def waits(opened: Sessions, reference: str, kind: str, source: str = "CT1", hours_ago: float = 0) -> None:
    with opened.begin() as session:
        exceptions.wait(
            session, "hold", reference, what="", suggestion="", now=clock.now() - timedelta(hours=hours_ago), kind=kind,
            facts={"source": source},
        )  # fmt: skip


def test_persons_are_told_once_by_a_process_that_is_killed_and_rules_are_carried_out(home: Environment):
    opened = sessions(connect(home.database_url, "test"), "test")
    waits(opened, "one", "conflict")
    waits(opened, "two", "mpps-no-order", hours_ago=30)
    waits(opened, "young", "mpps-no-order", "CT2", hours_ago=1)
    with opened.begin() as session:
        new = exception_rules.NewRule("drills", "mpps-no-order", "A drill.", "Tests.", 9, 10, source="CT2")
        exception_rules.make(session, new, who="marta", now=clock.now(), writer="ris")
    with http_receiver(Heard()) as heard:
        configure(home, heard.port)
        with operations(home) as process:
            eventually(lambda: heard.requests, 60)
            eventually(lambda: _by(opened, "young") == "rule 1", 30)
            eventually(lambda: _told(opened, "one"), 20)
            process.send_signal(signal.SIGKILL)
            process.wait()
        told = json.loads(heard.requests[0][2])
        assert [(group["kind"], group["new"]) for group in told["groups"]] == [("conflict", 1), ("mpps-no-order", 1)]
        waits(opened, "three", "damaged")
        with operations(home):
            eventually(lambda: len(heard.requests) > 1, 120)
        again = json.loads(heard.requests[1][2])
        assert [(group["kind"], group["new"]) for group in again["groups"]] == [("damaged", 1)]
        assert clock.parse(again["at"]) - clock.parse(told["at"]) >= timedelta(seconds=12)
        assert len(heard.requests) == 2


def test_a_receiver_that_is_away_is_said_in_the_row_and_one_that_is_no_longer_configured_is_forgotten(
    home: Environment,
):
    opened = sessions(connect(home.database_url, "test"), "test")
    waits(opened, "one", "conflict")
    configure(home, 1)
    with operations(home):
        row = eventually(lambda: _channel(opened), 60)
        assert "ConnectionRefusedError" in row.error
    (home.config_dir / "30-zambezi.json").write_text(json.dumps({"Zambezi": {}}))
    with operations(home):
        eventually(lambda: _channel(opened) is None, 60)


def test_without_the_database_from_the_start_a_full_disk_is_told_all_the_same(tmp_path: Path):
    home = Environment.read({"ZAMBEZI_HOME": str(tmp_path), "ZAMBEZI_CONFIG": str(tmp_path / "json")})
    keys.load_or_create(home.keys_file)
    home.config_dir.mkdir()
    for file in (REPOSITORY / "orthanc-config").glob("[124]0-*.json"):
        (home.config_dir / file.name).write_bytes(file.read_bytes())
    (tmp_path / "zambezi.db").mkdir()  # nothing can be opened there
    everything = {"Gigabytes": 1_000_000, "Percent": 100}
    disk = dict.fromkeys(("Warn", "StopMigration", "Refuse"), everything)
    with http_receiver(Heard()) as heard:
        section = {"Alerts": {"Webhook": {"Url": f"http://127.0.0.1:{heard.port}/hook"}}, "Disk": disk}
        (home.config_dir / "30-zambezi.json").write_text(json.dumps({"Zambezi": section}))
        with operations(home) as process:
            eventually(lambda: heard.requests, 90)
            assert process.poll() is None
    (told,) = json.loads(heard.requests[0][2])["conditions"]
    assert (told["kind"], told["state"], told["serious"]) == ("disk-full", "begun", True)


def _channel(opened: Sessions) -> AlertChannel | None:
    with opened() as session:
        return session.get(AlertChannel, "webhook")


def _item(opened: Sessions, reference: str) -> ExceptionItem:
    with opened() as session:
        return session.scalars(select(ExceptionItem).where(ExceptionItem.reference == reference)).one()


def _by(opened: Sessions, reference: str) -> str | None:
    return _item(opened, reference).decided_by


def _told(opened: Sessions, reference: str) -> str | None:
    return _item(opened, reference).alerted_at
