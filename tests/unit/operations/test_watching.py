"""The watch over a house on a real file, a real receiver and a real database that goes away."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from operations import condition_file, observing, status, supervision, watching
from operations.alert_channels import Webhook
from operations.status_commands import lines
from operations.supervision import Process
from operations.watching import House, Watch
from tests.unit.operations.receivers import Heard, http_receiver
from zambezi import audit, clock, keys
from zambezi.config.settings import Alerts, AlertWebhook, Disk, ExpectedModality, Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Base, ProcessState
from zambezi.disk import GIGABYTE, Gauge, Volume
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancUnreachable

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SETTINGS = Zambezi(alerts=Alerts(interval_minutes=0.1, calm_minutes=5, modalities={"CT1": ExpectedModality(hours=4)}))


class Bench:
    """A house whose disk, processes and archive a test says; database, file and receiver are real."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        self.free = 50.0
        self.seen: dict[str, str] = {}
        self.is_away = False
        self.running = [Process(name, "RUNNING", 0, 1, False, folder) for name in supervision.present()]
        self.environment = Environment.read({"ZAMBEZI_HOME": str(folder)})
        self.environment.run_dir.mkdir(parents=True, exist_ok=True)
        keys.load_or_create(self.environment.keys_file)
        engine = connect(self.environment.database_url, "operations")
        Base.metadata.create_all(engine)
        self.sessions = sessions(engine, "operations")
        monkeypatch.setattr(supervision, "processes", lambda _: self.running)
        self.beat()

    def get(self, _path: str) -> dict[str, Any]:
        if self.is_away:
            raise OrthancUnreachable("no answer")
        return {"seen": self.seen}

    def monotonic(self) -> float:
        return self.now.timestamp()

    def measured(self) -> list[Volume]:
        return [Volume(("images",), 100 * GIGABYTE, int(self.free * GIGABYTE))]

    def beat(self) -> None:
        """A sign of life of every process."""
        with self.sessions.begin() as session:
            for name in supervision.present():
                session.merge(
                    ProcessState(
                        process=name, at=clock.text(self.now), version="1", configuration="", details={}, last_error=""
                    )
                )

    def watch(self) -> Watch:
        gauge = Gauge(Disk(), self.measured, self.monotonic)
        client: Any = self
        house = House(self.environment, self.sessions, self.sessions, client, gauge)
        return Watch(house, SETTINGS, lambda: self.now)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "home", monkeypatch)


@pytest.fixture
def heard() -> Iterator[Heard]:
    with http_receiver(Heard()) as receiver:
        yield receiver


def hook(heard: Heard) -> Webhook:
    return Webhook(AlertWebhook(url=f"http://127.0.0.1:{heard.port}/hook"), Path())


def told(heard: Heard) -> list[list[str]]:
    return [
        [f"{one['state']} {one['kind']} {one['source']}" for one in json.loads(body)["conditions"]]
        for _, _, body in heard.requests
    ]


def minutes(bench: Bench, watch: Watch, way: Webhook, count: float, beats: bool = True) -> None:
    """So much time passes, and the watch looks and tells."""
    bench.now += timedelta(minutes=count)
    if beats:
        bench.beat()
    watch.look()
    watch.tell(way)


def test_a_database_that_goes_away_a_dead_process_and_a_full_disk_are_told_without_it(bench: Bench, heard: Heard):
    watch, way = bench.watch(), hook(heard)
    watch.look()
    assert watch.tell(way) == "" and heard.requests == []
    file = bench.environment.home / "zambezi.db"
    kept = [one.rename(one.with_name(f"away {one.name}")) for one in file.parent.glob("zambezi.db*")]
    file.mkdir()
    bench.sessions.kw["bind"].dispose()
    bench.free = 1.5
    bench.running[0] = Process("orthanc", "FATAL", 0, 0, True, Path())
    minutes(bench, watch, way, 1, beats=False)
    assert told(heard) == [["begun disk-full images"]], "the others may be back in a minute"
    minutes(bench, watch, way, 2, beats=False)
    assert told(heard)[1:] == [["begun database-away central", "begun process-dead orthanc"]]
    with pytest.raises(Exception, match="unable to open database"):
        watch.audit_what_was_told()
    # A process that starts anew goes on with what is in the file.
    watch = bench.watch()
    minutes(bench, watch, way, 60, beats=False)
    assert len(heard.requests) == 2, "each is told once"
    file.rmdir()
    for one in kept:
        one.rename(one.with_name(one.name.removeprefix("away ")))
    bench.free = 50.0
    bench.running[0] = Process("orthanc", "RUNNING", 0, 1, False, Path())
    minutes(bench, watch, way, 1)
    minutes(bench, watch, way, 6)
    assert [sorted(one) for one in told(heard)[2:]] == [
        ["over database-away central", "over disk-full images", "over process-dead orthanc"]
    ]
    watch.audit_what_was_told()
    with bench.sessions() as session:
        trail = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == "alerted").order_by(AuditEntry.seq)
        ).all()
        assert audit.verify(session) == []
    assert [json.loads(one)["count"] for one in trail] == [1, 2, 3]
    assert condition_file.load(condition_file.path(bench.environment)).unaudited == []


def test_a_receiver_that_is_away_is_told_all_at_once_and_its_failure_is_in_the_status(bench: Bench, heard: Heard):
    watch, way = bench.watch(), hook(heard)
    heard.status = 503
    bench.free = 4.0
    minutes(bench, watch, way, 1)
    minutes(bench, watch, way, 0.5)
    assert len(heard.requests) == 1, "it waits a minute"
    found = status.look(bench.environment, bench.now)
    assert any("alerts by webhook fail since" in said and "503" in said for said in found.trouble)
    assert any("Disk nearly full: migration has stopped since 2026-03-02" in line for line in lines(found))
    heard.status = 204
    bench.free = 1.0
    minutes(bench, watch, way, 2)
    assert told(heard)[1:] == [["begun disk-full images"]]
    assert not any("webhook" in said for said in status.look(bench.environment, bench.now).trouble)
    watch.only([])
    assert condition_file.load(condition_file.path(bench.environment)).channels == {}


def test_a_modality_is_silent_unless_it_was_seen_and_never_for_our_own_absence(bench: Bench, heard: Heard):
    watch, way = bench.watch(), hook(heard)
    bench.seen = {"CT1": clock.text(NOW - timedelta(hours=1)), "STRANGER": clock.text(NOW)}
    watch.look()
    minutes(bench, watch, way, 230)
    assert told(heard) == [], "it counts from when it was expected first"
    bench.is_away = True
    minutes(bench, watch, way, 30)
    assert [one for one in told(heard) if "modality" in str(one)] == []
    bench.is_away = False
    bench.seen = {"CT1": clock.text(bench.now - timedelta(hours=3))}
    minutes(bench, watch, way, 1)
    assert [one for one in told(heard) if "modality" in str(one)] == [], "it was seen meanwhile"
    minutes(bench, watch, way, 61)
    assert ["begun modality-silent CT1"] in told(heard)
    with bench.sessions.begin() as session:  # the gateway answered an echo of it
        session.get_one(ProcessState, "gateway").details = {"seen": {"CT1": clock.text(bench.now)}}
    watch.look()
    bench.now += timedelta(minutes=6)
    watch.look()
    watch.tell(way)
    assert "over modality-silent CT1" in told(heard)[-1]


def test_a_process_without_a_sign_of_life_is_dead_and_we_are_not_missed(bench: Bench):
    def dead(away: bool = False) -> list[str]:
        found = observing.processes(bench.environment, bench.sessions, away, bench.now)
        return [f"{one.source} {one.facts['state']}" for one in found]

    assert dead() == []
    bench.now += timedelta(minutes=5)
    assert dead() == ["ris silent", "gateway silent", "migration silent"]
    assert dead(away=True) == [], "without the database nobody knows"
    bench.running = [Process(one.name, "BACKOFF", 0, 0, True, Path()) for one in bench.running]
    assert "front backoff" in dead(away=True)


def test_where_others_supervise_each_process_is_asked_at_its_own_door(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervision, "processes", lambda _: None)
    assert observing.processes(bench.environment, bench.sessions, False, bench.now) == [], (
        "nothing says what should run"
    )
    supervision.lone(bench.environment).touch()
    found = observing.processes(bench.environment, bench.sessions, True, bench.now)
    assert {one.source for one in found} >= {"orthanc", "ris", "gateway", "front"}
    assert {one.source for one in found} & {"migration", "operations"} == set(), "those say it in the database"


def test_a_certificate_is_told_of_before_it_ends_and_gets_worse(bench: Bench):
    folder = bench.environment.home / "certificates"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "100", "-subj", "/CN=pacs", "-keyout", str(folder / "front.key"), "-out", str(folder / "front.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    end = observing.certificate_end(bench.environment, {})
    assert end is not None

    def grades(days: int = 30) -> list[int]:
        befores = (31, 29.5, 6.5, -1)
        at = [end - timedelta(days=one) for one in befores]
        return [sum(found.grade for found in observing.certificate(bench.environment, {}, days, one)) for one in at]

    assert grades() == [0, 1, 2, 3]
    assert grades(0) == [0, 0, 0, 0]
    (folder / "front.crt").write_text("no certificate")
    assert observing.certificate(bench.environment, {}, 30, NOW) == []


def test_a_backup_is_old_when_no_good_one_came(bench: Bench):
    memory = condition_file.Memory()
    file = bench.environment.home / "backup" / "last.json"
    file.parent.mkdir()

    def old(hours_on: float) -> list[str]:
        found = observing.backup(bench.environment, 48, memory, NOW + timedelta(hours=hours_on))
        return [str(one.facts["last"]) for one in found]

    assert (old(0), old(47), old(49)) == ([], [], ["-"]), "none ever: it counts from our start"
    file.write_text(json.dumps({"finished": (NOW + timedelta(hours=49)).isoformat(), "ok": True}))
    assert (old(50), old(96)) == ([], [])
    file.write_text(json.dumps({"finished": (NOW + timedelta(hours=96)).isoformat(), "ok": False}))
    assert old(96) == []
    assert old(98) == ["2026-03-04 09:30"], "one that failed is none"
    assert observing.backup(bench.environment, 0, memory, NOW + timedelta(days=9)) == []


def test_a_file_that_is_damaged_or_can_not_be_written_silences_nobody(bench: Bench, heard: Heard):
    file = condition_file.path(bench.environment)
    file.parent.mkdir()
    file.write_text('{"going": [{"about": "disk"')
    watch, way = bench.watch(), hook(heard)
    file.unlink()
    file.mkdir()  # nothing can be put in its place
    bench.free = 1.0
    minutes(bench, watch, way, 1)
    minutes(bench, watch, way, 10)
    assert told(heard) == [["begun disk-full images"]]
    assert watching.WRITER == "operations"
