"""What must be right before anything starts: each fault is a sentence with a remedy."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from operations import preparing
from tests import postgres
from tests.postgres import Cluster
from zambezi import config, keys
from zambezi.config import Configuration
from zambezi.environment import PORTS, REPOSITORY, Environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    probes = {variable: socket.create_server(("127.0.0.1", 0)) for variable, _ in PORTS.values()}
    free = {variable: str(probe.getsockname()[1]) for variable, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return Environment.read({"ZAMBEZI_HOME": str(tmp_path), **free})


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A durable one of this test's own: `prepare` takes no other, and the test stops it."""
    found = postgres.programs()
    assert found, "PostgreSQL is not installed; tools/install --tests brings it"
    with postgres.a_cluster(found, is_durable=True) as running:
        yield running


def delivered(**changed: object) -> Configuration:
    found = config.load(REPOSITORY / "orthanc-config", {})
    return Configuration({**found.orthanc, **changed}, found.zambezi, found.hash)


def test_a_missing_plugin_names_debians_package():
    faults = preparing.machine_faults(delivered(Plugins=["/nowhere/libOrthancPython.so"]))
    assert faults == ["/nowhere/libOrthancPython.so is not there; as root: apt-get install orthanc-python"]


def test_orthanc_without_the_python_plugin_is_refused():
    assert "libOrthancPython.so is not named" in preparing.machine_faults(delivered(Plugins=[]))[0]


def test_another_python_than_the_one_inside_orthanc_is_refused(tmp_path: Path):
    plugin = tmp_path / "libOrthancPython.so"
    plugin.write_bytes(b"\x7fELF...libpython3.7m.so.1.0...libpython3.7.so.1.0")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert preparing.interpreter_faults(plugin) == [
        f"this is Python {ours}, but Orthanc embeds Python 3.7; remove .venv and run `make install`, "
        "which makes it with /usr/bin/python3"
    ]


def test_a_port_in_use_names_variable_and_holder(environment: Environment):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", environment.ports.mllp))
        holder.listen()
        faults = preparing.port_faults(environment, {})
    assert len(faults) == 1
    assert f"port {environment.ports.mllp} is in use by" in faults[0]
    assert f"(process {os.getpid()})" in faults[0]
    assert "ZAMBEZI_MLLP_PORT=" in faults[0]


def test_a_coercing_port_that_somebody_has_is_named(environment: Environment):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = replace(environment, coercing_port=holder.getsockname()[1])
        (fault,) = preparing.port_faults(taken, {})
    assert "ZAMBEZI_COERCING_PORT" in fault


def test_a_home_that_programs_would_have_to_quote_is_refused(tmp_path: Path):
    found = preparing.environment_faults(Environment.read({"ZAMBEZI_HOME": str(tmp_path / "my data")}))
    assert "ZAMBEZI_HOME: found" in found[0]


def test_a_home_too_long_for_a_socket_is_refused():
    found = preparing.environment_faults(Environment.read({"ZAMBEZI_HOME": "/" + "x" * 120}))
    assert "too long for a socket's name" in found[0]


def test_preparing_an_empty_home_leaves_secrets_to_the_account_alone(environment: Environment):
    preparing.prepare(environment, {})
    secrets = [
        environment.keys_file,
        environment.orthanc_config_dir / config.SECRETS_FILE,
        environment.run_dir / "front-authorization.conf",
    ]
    assert [file.stat().st_mode & 0o777 for file in secrets] == [0o600] * 3
    assert config.load(environment.orthanc_config_dir, {}).hash == config.load(environment.config_dir, {}).hash


def test_preparing_again_keeps_the_keys(environment: Environment):
    _, first = preparing.prepare(environment, {})
    _, second = preparing.prepare(environment, {})
    assert first == second == keys.load(environment.keys_file)


def test_a_database_that_does_not_answer_is_a_sentence(environment: Environment):
    nobody = Environment(
        environment.home, environment.config_dir, "postgresql://nobody@127.0.0.1:1/none", environment.ports
    )
    with pytest.raises(preparing.EnvironmentFault, match=r"central database \(none at .*: the server doesn't answer"):
        preparing.prepare(nobody, {})


def test_an_installation_that_has_run_starts_while_its_database_is_away(environment: Environment, cluster: Cluster):
    cluster.make_databases("right")
    url = f"postgresql://zambezi:right@127.0.0.1:{cluster.port}/zambezi"
    here = replace(environment, database_url=url)
    preparing.prepare(here, {})
    cluster.stop()
    preparing.prepare(here, {})
    elsewhere = replace(environment, database_url=url + "2")
    with pytest.raises(preparing.EnvironmentFault, match="the server doesn't answer"):
        preparing.prepare(elsewhere, {})
