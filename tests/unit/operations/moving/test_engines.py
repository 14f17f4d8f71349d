"""What an installation's data lie in, and which starts are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from operations.moving import engines
from zambezi import config
from zambezi.config import Configuration
from zambezi.environment import REPOSITORY, Environment

POSTGRESQL = {"PostgreSQL": {"EnableIndex": True, "Host": "db", "Port": 5432, "Database": "o", "Username": "u"}}


def asked(**more: object) -> Configuration:
    found = config.load(REPOSITORY / "orthanc-config", {})
    return Configuration({**found.orthanc, **more}, found.zambezi, found.hash)


def installation(home: Path, url: str = "") -> Environment:
    return Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url})


def put_images(environment: Environment) -> None:
    environment.index_dir.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(environment.index_dir / "index")) as index:
        index.execute("CREATE TABLE AttachedFiles (uuid TEXT)")
        index.execute("INSERT INTO AttachedFiles VALUES ('x')")
        index.commit()


def test_a_new_installation_takes_whatever_is_named(tmp_path: Path):
    assert engines.faults(installation(tmp_path), asked(**POSTGRESQL)) == []


@pytest.mark.parametrize("is_recorded", [True, False])
def test_another_index_is_refused_where_there_are_images(tmp_path: Path, is_recorded: bool):
    environment = installation(tmp_path)
    put_images(environment)
    if is_recorded:
        engines.record(environment, engines.wanted(environment, asked()))
    assert engines.faults(environment, asked()) == []
    (fault,) = engines.faults(environment, asked(**POSTGRESQL))
    assert "the archive's index is on sqlite" in fault and "`zambezi move to postgresql`" in fault


def test_the_way_back_is_refused_too(tmp_path: Path):
    environment = installation(tmp_path)
    engines.record(environment, engines.wanted(environment, asked(**POSTGRESQL)))
    assert "`zambezi move to sqlite`" in engines.faults(environment, asked())[0]


def test_another_central_database_is_refused_and_no_password_is_written_down(tmp_path: Path):
    url = "postgresql://zambezi:s3cret@db:5433/zambezi"
    engines.record(installation(tmp_path, url), engines.wanted(installation(tmp_path, url), asked()))
    assert "s3cret" not in (tmp_path / "engines.json").read_text()
    (fault,) = engines.faults(installation(tmp_path), asked())
    assert "the central database is on postgresql" in fault
    assert engines.faults(installation(tmp_path, url.replace("db:", "other:")), asked()) == []


def test_an_empty_installation_may_change_its_index(tmp_path: Path):
    environment = installation(tmp_path)
    engines.record(environment, engines.wanted(environment, asked()))
    assert engines.faults(environment, asked(**POSTGRESQL)) == []


def test_nothing_starts_while_old_and_new_change_places(tmp_path: Path):
    environment = installation(tmp_path)
    engines.phase_file(environment).parent.mkdir()
    engines.phase_file(environment).touch()
    assert "was cut off at its end" in engines.faults(environment, asked())[0]
