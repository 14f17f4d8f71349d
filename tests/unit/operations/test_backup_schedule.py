from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path

import pytest
from sqlalchemy import select

from operations.backup import schedule, standstill
from operations.backup.places import Mark
from operations.backup.repository import BackupFault
from operations.backup.restoring import must_be_empty
from operations.backup.schedule import Last
from operations.service import Caretaker
from zambezi import clock
from zambezi.config.settings import Backup, Disk, Window, Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base, ExceptionItem
from zambezi.disk import Gauge
from zambezi.environment import REPOSITORY, Environment

NIGHT = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)
SETTINGS = Backup(repository="/mnt/b", windows=(Window(from_=clock_time(1), to=clock_time(5)),), keep_weekly=0)


def made(ago: timedelta, **other: object) -> Last:
    at = clock.text(NIGHT - ago)
    return Last(**{"finished": at, "tried": at, "ok": True, **other})  # type: ignore[arg-type]  # facts by name


def due(known: Last, now: datetime = NIGHT, settings: Backup = SETTINGS) -> str:
    return schedule.due(settings, known, now, UTC, ())


def test_the_backup_of_the_day_begins_in_its_window_once():
    assert due(Last()) == "there is no backup yet"
    assert due(made(timedelta(hours=24))) == "the last is 24 h old"
    assert due(made(timedelta(hours=1))) == ""
    assert due(made(timedelta(hours=24)), NIGHT.replace(hour=6)) == ""
    assert due(Last(), settings=Backup()) == ""


def test_one_that_failed_is_tried_again_not_at_once():
    failed = {"ok": False, "error": "no disk"}
    assert due(made(timedelta(hours=24), tried=clock.text(NIGHT - timedelta(minutes=10)), **failed)) == ""
    assert due(made(timedelta(hours=24), tried=clock.text(NIGHT - timedelta(minutes=40)), **failed)) != ""


def test_what_a_person_must_know():
    assert schedule.complaint(Backup(), Last(), NIGHT) == ""
    assert "there is no backup yet" in schedule.complaint(SETTINGS, Last(), NIGHT)
    assert schedule.complaint(SETTINGS, made(timedelta(hours=49)), NIGHT) == ""
    assert schedule.complaint(SETTINGS, made(timedelta(hours=51)), NIGHT) == "the last backup is 51 h old"
    said = schedule.complaint(SETTINGS, made(timedelta(hours=2), ok=False, error="no disk"), NIGHT)
    assert said == "the last backup is 2 h old; the last try failed: no disk"


def test_in_so_many_days_every_part_is_read_back():
    days = [schedule.part(date(2026, 3, 1) + timedelta(days=n), 30) for n in range(30)]
    assert sorted(days, key=lambda part: int(part.split("/")[0])) == [f"{n}/30" for n in range(1, 31)]


def test_what_is_kept_as_restic_has_it():
    assert schedule.keep(SETTINGS) == ["--keep-daily", "7", "--keep-monthly", "12"]


def test_what_is_written_is_read_and_what_is_no_outcome_is_none(tmp_path: Path):
    known = made(timedelta(), instances=3, gap_s=2.5)
    known.write(tmp_path)
    assert schedule.last(tmp_path) == known
    (tmp_path / "last.json").write_text("[]")
    assert schedule.last(tmp_path) == Last()


def test_a_living_folder_is_refused_and_one_that_a_restore_began_is_not(tmp_path: Path):
    home = tmp_path / "home"
    must_be_empty(home)
    (home / "backup").mkdir(parents=True)
    (home / "backup" / "ssh-key").write_text("x")
    (home / "orthanc" / "storage").mkdir(parents=True)
    must_be_empty(home)
    (home / "orthanc" / "index").write_text("x")
    with pytest.raises(BackupFault, match="never writes over one"):
        must_be_empty(home)
    Mark("/mnt/b", "abc").write(home)
    must_be_empty(home)


def test_locks_end_with_the_process_that_held_them(tmp_path: Path):
    """A backup that is killed keeps neither Orthanc nor custody nor the next backup waiting."""
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    code = (
        "import sys, time\nfrom operations.backup import standstill\nfrom zambezi.environment import Environment\n"
        "e = Environment.read()\n"
        "with standstill.one_at_a_time(e), standstill.nothing_leaves(e), standstill.orthanc_stopped(e):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    environ = {**os.environ, "ZAMBEZI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert standstill.is_running(environment)
        with standstill.may_move(environment) as may:
            assert not may
        with pytest.raises(BackupFault, match="runs already"), standstill.one_at_a_time(environment):
            pass
        waiting = subprocess.Popen(
            [sys.executable, "-c", code.splitlines()[1] + "\nfrom zambezi.environment import Environment\n"
             "standstill.wait_for_copy(Environment.read())"], env=environ,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        holder.kill()
        assert waiting.wait(30) == 0
    assert not standstill.is_running(environment)
    with standstill.may_move(environment) as may:
        assert may


def test_a_backup_of_the_day_that_failed_waits_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process is a real one; there is no repository, so that it fails."""
    shutil.copytree(REPOSITORY / "orthanc-config", tmp_path / "config")
    settings = {"Backup": {"Repository": str(tmp_path / "unplugged"), "Windows": [{}]}}
    (tmp_path / "config" / "30-zambezi.json").write_text(json.dumps({"Zambezi": settings}))
    for name, value in (("HOME", tmp_path / "home"), ("CONFIG", tmp_path / "config"), ("DATABASE_URL", "")):
        monkeypatch.setenv(f"ZAMBEZI_{name}", str(value))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    environment = Environment.read()
    environment.backup_dir.mkdir(parents=True)
    (environment.backup_dir / "password").write_text("A")
    engine = connect(environment.database_url, "test")
    Base.metadata.create_all(engine)
    opened = sessions(engine, "test")
    caretaker = Caretaker(environment, opened, opened, "hash", UTC, Gauge(Disk(), list))
    wanted = Zambezi.model_validate_json(json.dumps(settings))
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    while not (items := _items(opened)):
        caretaker.back_up(wanted)
        time.sleep(0.1)
        assert datetime.now(UTC) < deadline
    assert [(one.kind, one.reference[:7]) for one in items] == [("backup-failed", "backup ")]
    assert "is the disk plugged in" in items[0].what
    known = schedule.last(environment.backup_dir)
    assert (known.finished, known.ok) == ("", False)
    assert not (tmp_path / "unplugged").exists()  # nothing is written to the folder below a disk that isn't there
    engine.dispose()


def _items(opened: Sessions) -> list[ExceptionItem]:
    with opened() as session:
        return list(session.scalars(select(ExceptionItem)))
