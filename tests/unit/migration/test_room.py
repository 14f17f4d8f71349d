"""Migration stops while a disk gets full, in the midst of a study too, and goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migration.desk import Closed, Desk
from migration.office import Office
from migration.service import Migrations
from zambezi import clock, config, keys
from zambezi.config.settings import Disk, MigrationSource, Site
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base, MigrationProject, ProcessState
from zambezi.disk import GIGABYTE, Gauge, Volume
from zambezi.environment import REPOSITORY, Environment


class Filling:
    """A disk of a hundred gigabytes whose free ones a test says; each look is a new one."""

    def __init__(self) -> None:
        self.free = 50.0
        self.at = 0.0
        self.gauge = Gauge(Disk(), lambda: [Volume(("images",), 100 * GIGABYTE, int(self.free * GIGABYTE))], self.now)

    def now(self) -> float:
        self.at += 60
        return self.at


@pytest.fixture
def office(tmp_path: Path) -> Iterator[tuple[Office, Filling]]:
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    engine = connect(environment.database_url, "migration")
    Base.metadata.create_all(engine)
    made = sessions(engine, "migration")
    at = clock.text(clock.now())
    with made.begin() as session:
        session.add(MigrationProject(id=1, name="p", source="GONE", state="running", created_at=at, updated_at=at))
    disk = Filling()
    loaded = config.load(REPOSITORY / "orthanc-config", {})
    yield Office(environment, loaded, keys.load_or_create(environment.keys_file), made, room=disk.gauge.look), disk
    engine.dispose()


def said(office: Office) -> tuple[dict[str, Any], str]:
    with office.sessions() as session:
        row = session.get_one(ProcessState, "migration")
        return row.details, row.last_error


def test_no_project_is_worked_on_while_the_disk_gets_full(office: tuple[Office, Filling]):
    opened, disk = office
    migrations = Migrations(opened)
    disk.free = 4.0
    migrations.sweep()
    migrations.heartbeat()
    details, error = said(opened)
    assert details["note"].startswith("migration waits until there is more room on the disk: images: 4.0 GB")
    assert error == ""
    disk.free = 6.0  # not enough to spare
    migrations.sweep()
    migrations.heartbeat()
    assert "note" in said(opened)[0]
    disk.free = 7.0
    migrations.sweep()
    migrations.heartbeat()
    details, error = said(opened)
    assert "note" not in details
    assert "no source GONE" in error, "the sweep came to the project"


def test_a_study_on_its_way_is_let_go_of(office: tuple[Office, Filling]):
    opened, disk = office
    nothing: Any = None
    desk = Desk(
        nothing, opened.sessions, MigrationSource(peer="OLD"), nothing, nothing, "ZAMBEZI", Site(), clock.now,
        lambda: 0, "me",
        room=disk.gauge.look,
    )  # fmt: skip
    desk.check_open()
    disk.free = 4.0
    with pytest.raises(Closed, match="more room on the disk"):
        desk.check_open()
