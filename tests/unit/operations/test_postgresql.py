"""What `zambezi config check` and `up` say of PostgreSQL: a sentence for each thing that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.neighbours import free_port
from operations import postgresql
from tests.postgres import Cluster
from zambezi import config
from zambezi.config import Configuration, ConfigurationFaults
from zambezi.config.safety import INDEX_PLUGIN
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault, take_secrets

PASSWORD = "right"
NEVER_DURABLE = "fsync is off"  # the tests' own cluster


@pytest.fixture(scope="module")
def cluster(postgres_cluster: Cluster) -> Cluster:
    postgres_cluster.make_databases(PASSWORD)
    postgres_cluster.make_databases(PASSWORD)  # again: nothing is made twice
    postgres_cluster.run(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    return postgres_cluster


def said(home: Path, url: str, index: dict[str, object] | None = None) -> list[str]:
    found = config.load(REPOSITORY / "orthanc-config", {})
    section = {"PostgreSQL": {"EnableIndex": True, **index}} if index else {}
    configuration = Configuration({**found.orthanc, **section}, found.zambezi, found.hash)
    environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url})
    return [fault.words for fault in postgresql.faults(environment, configuration)]


def test_what_can_be_used_has_no_fault_but_that_the_tests_cluster_would_not_survive_the_mains(
    tmp_path: Path, cluster: Cluster
):
    found = said(tmp_path, f"postgresql://zambezi:{PASSWORD}@127.0.0.1:{cluster.port}/zambezi")
    assert len(found) == 1
    assert NEVER_DURABLE in found[0]


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("zambezi:wrong@127.0.0.1:{port}/zambezi", "the role zambezi was refused: wrong password, or there is no such"),
        ("strange:right@127.0.0.1:{port}/zambezi", "the role strange was refused: wrong password, or there is no such"),
        ("postgres@127.0.0.1:{port}/none", "there is no database none; as root: tools/postgresql makes it"),
        ("postgres@127.0.0.1:{port}/latin", "found the encoding LATIN1, allowed is UTF8"),
        ("zambezi:right@127.0.0.1:{port}/postgres", "the role may not create tables there"),
        ("zambezi@no.such.host.invalid/zambezi", "nobody knows the host no.such.host.invalid"),
    ],
)  # fmt: skip
def test_what_is_missing_is_a_sentence(tmp_path: Path, cluster: Cluster, who: str, words: str):
    found = [one for one in said(tmp_path, f"postgresql://{who.format(port=cluster.port)}") if NEVER_DURABLE not in one]
    assert len(found) == 1
    assert "the central database (" in found[0]
    assert words in found[0]
    assert "right" not in found[0].replace("copyright", "")


def test_a_server_that_is_away_is_told_apart_for_both_databases(tmp_path: Path):
    port = free_port()
    environment = Environment.read(
        {"ZAMBEZI_HOME": str(tmp_path), "ZAMBEZI_DATABASE_URL": f"postgresql://zambezi@127.0.0.1:{port}/zambezi"}
    )
    found = config.load(REPOSITORY / "orthanc-config", {})
    index = {"PostgreSQL": {"EnableIndex": True, "Host": "127.0.0.1", "Port": port, "Database": "orthanc"}}
    both = postgresql.faults(environment, Configuration({**found.orthanc, **index}, found.zambezi, found.hash))
    assert [fault.is_away for fault in both] == [True, True]
    assert both[1].words.startswith(
        f"Orthanc's index (orthanc at 127.0.0.1:{port}): the server doesn't answer; start it"
    )


def test_the_index_is_asked_with_what_orthanc_is_told(tmp_path: Path, cluster: Cluster):
    index = {"Host": "127.0.0.1", "Port": cluster.port, "Database": "orthanc", "Username": "orthanc", "Password": "no"}
    assert "the role orthanc was refused" in said(tmp_path, "", index)[0]
    assert NEVER_DURABLE in said(tmp_path, "", index | {"Password": PASSWORD})[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"number": 120011, "version": "12.11"}, "found PostgreSQL 12.11, allowed is 13 or newer"),
        ({"commit": "off"}, "synchronous_commit is off: what was acknowledged would be lost with the mains"),
        ({"is_standby": True, "may_create": False}, "this server is a standby"),
    ],
)
def test_what_no_cluster_here_is_makes_a_database_unfit_too(changed: dict[str, object], words: str):
    fit = {
        "number": 150018, "version": "15.18", "encoding": "UTF8", "fsync": "on", "pages": "on", "commit": "on",
        "is_standby": False, "may_create": True,
    }  # fmt: skip
    assert postgresql.unfit(**fit) == []  # type: ignore[arg-type]  # one dict for all
    (found,) = postgresql.unfit(**fit | changed)  # type: ignore[arg-type]  # one dict for all
    assert words in found


def test_section_and_plugin_must_agree(tmp_path: Path):
    for file in (REPOSITORY / "orthanc-config").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    section = tmp_path / "25-postgresql.json"
    section.write_text('{"PostgreSQL": {"EnableIndex": true}}')
    with pytest.raises(ConfigurationFaults, match=f"25-postgresql.json: PostgreSQL: .*{INDEX_PLUGIN}"):
        config.load(tmp_path, {})
    plugins = tmp_path / "20-plugins.json"
    plugins.write_text(plugins.read_text().replace("libOrthancGdcm.so", INDEX_PLUGIN))
    assert config.load(tmp_path, {}).index_is_postgresql
    section.unlink()
    with pytest.raises(ConfigurationFaults, match=f"Plugins: {INDEX_PLUGIN} is named, but"):
        config.load(tmp_path, {})


def test_address_and_password_lie_in_the_home_whoever_types_a_command(tmp_path: Path):
    (tmp_path / "database-url").write_text("postgresql://zambezi@127.0.0.1/zambezi\n")
    (tmp_path / "postgresql-password").write_text("secret\n")
    environ = {"ZAMBEZI_HOME": str(tmp_path)}
    take_secrets(environ)
    assert Environment.read(environ).database_url == "postgresql://zambezi@127.0.0.1/zambezi"
    assert environ["PGPASSWORD"] == "secret"
    assert Environment.read(environ | {"ZAMBEZI_DATABASE_URL": "sqlite:///x"}).database_url == "sqlite:///x"
    (tmp_path / "database-url").write_text("mysql://somewhere")
    with pytest.raises(EnvironmentFault, match="database-url in ZAMBEZI_HOME"):
        Environment.read(environ)
