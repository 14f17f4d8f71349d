"""Processes that others supervise: what is prepared for them, and how they are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.neighbours import free_port
from operations import alone, status, supervision
from tests.schema import upgraded
from zambezi import clock, keys
from zambezi.environment import PORTS, Environment, EnvironmentFault, take_secrets


def test_a_secret_comes_from_its_file(tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    environ = {"PGPASSWORD_FILE": str(file)}
    take_secrets(environ)
    assert environ["PGPASSWORD"] == "s3cret"


def test_without_the_file_nothing_goes_on(tmp_path: Path):
    with pytest.raises(EnvironmentFault, match=r"PGPASSWORD_FILE: .*missing can't be read"):
        take_secrets({"PGPASSWORD_FILE": str(tmp_path / "missing")})


def test_where_nobody_names_a_file_the_variable_stays():
    environ = {"PGPASSWORD": "as it was"}
    take_secrets(environ)
    assert environ == {"PGPASSWORD": "as it was"}


def test_each_process_is_asked_itself_where_no_supervisor_of_ours_runs(tmp_path: Path, free_ports: dict[str, str]):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path), **free_ports})
    environment.run_dir.mkdir()
    keys.load_or_create(environment.keys_file)
    upgraded(environment.database_url)
    assert status.look(environment, clock.now()).trouble[0] == "nothing runs here; `zambezi up` starts it"
    supervision.lone(environment).touch()
    assert alone.is_prepared(environment)
    assert {one.name: one.state for one in alone.seen(environment)} == dict.fromkeys(supervision.PROCESSES, "STOPPED")
    assert not any("nothing runs here" in said for said in status.look(environment, clock.now()).trouble)


@pytest.fixture
def free_ports() -> dict[str, str]:

    return {variable: str(free_port()) for variable, _ in PORTS.values()}
