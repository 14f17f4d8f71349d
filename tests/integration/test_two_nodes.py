"""Two Orthancs on one index and one storage: each store is recorded once, whichever node dies or comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests import postgres
from tests.integration.archive_fixture import Archive, free_ports, image, until
from zambezi import audit
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, ExceptionItem, FollowerLease, Held, Study
from zambezi.database.upgrade import upgrade
from zambezi.environment import REPOSITORY

INDEX = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"


@dataclass
class House:
    """Two nodes and a gateway."""

    one: Archive
    two: Archive
    sessions: Sessions
    gateway: subprocess.Popen[bytes] | None = None

    def start_gateway(self) -> None:
        environ = {**os.environ, **self.one.variables, "PYTHONPATH": str(REPOSITORY)}
        environ["ZAMBEZI_CONFIG"] = str(self.one.environment.orthanc_config_dir)
        with (self.one.home / "gateway.log").open("ab") as log:
            self.gateway = subprocess.Popen(
                [sys.executable, "-m", "gateway.service"], env=environ, stdout=log, stderr=log
            )

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()
        self.gateway.wait()

    def recorder(self) -> str:
        """Which node records; empty where none, or both, would."""
        told = [one for one in (standing(self.one), standing(self.two)) if one.get("records")]
        return str(told[0]["node"]) if len(told) == 1 else ""

    def stored(self) -> Counter[str]:
        """How often each instance counts as stored centrally: by entries that hold."""
        with self.sessions() as session:
            return Counter(
                dict(session.execute(select(Study.study_uid, func.sum(Study.instances)).group_by("study_uid")).all())
            )

    def all(self, table: Any, *conditions: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).where(*conditions)).all())


def standing(node: Archive) -> dict[str, Any]:
    if node.process is None or node.process.poll() is not None:
        return {}
    try:
        told: dict[str, Any] = node.get("/zambezi/status").json()
    except OSError:
        return {}
    return told


def begin(node: Archive) -> None:
    node.start(wait=False)
    until(lambda: node.listens() and standing(node), 60)


@pytest.fixture(scope="module")
def house(postgres_cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Started, with the first node recording."""
    assert Path(INDEX).exists(), "as root: apt-get install orthanc-postgresql (tools/install --tests does)"
    home = tmp_path_factory.mktemp("nodes")
    http_one, dicom_one, http_two, dicom_two = free_ports(4)
    with postgres_cluster.a_database() as index, postgres_cluster.a_database() as central:
        variables = {
            "ZAMBEZI_NODES": f"one={http_one}/{dicom_one},two={http_two}/{dicom_two}",
            "ZAMBEZI_DATABASE_URL": central, "PGPASSWORD": "",
        }  # fmt: skip
        one = Archive(home, variables={**variables, "ZAMBEZI_NODE": "one"})
        shared = {name: value for name, value in one.variables.items() if name != "ZAMBEZI_NODE"}
        two = Archive(home, variables={**shared, "ZAMBEZI_NODE": "two"})
        config = one.environment.orthanc_config_dir
        plugins = (config / "20-plugins.json").read_text()
        (config / "20-plugins.json").write_text(plugins.replace('libOrthancGdcm.so"', f'libOrthancGdcm.so", "{INDEX}"'))
        (config / "25-postgresql.json").write_text(
            f'{{"PostgreSQL": {{"EnableIndex": true, "EnableStorage": false, "Host": "127.0.0.1", "Port": '
            f'{postgres_cluster.port}, "Database": "{index.rpartition("/")[2]}", "Username": "zambezi", "Password": "", '
            f'"IndexConnectionsCount": 4}}}}'
        )
        engine = connect(central, "test")
        upgrade(engine)
        made = House(one, two, sessions(engine, "test"))
        begin(one)  # the first alone: it makes the index's tables
        begin(two)
        made.start_gateway()
        try:
            until(lambda: made.recorder() == "one", 30)
            yield made
        finally:
            made.kill_gateway()
            for node in (one, two):
                if node.process and node.process.poll() is None:
                    node.kill()
            engine.dispose()


def test_stores_to_both_nodes_are_each_recorded_once(house: House):
    images = [image("1.2.3.1", PatientID="BOTH") for _ in range(60)]
    senders = [
        threading.Thread(target=node.send, args=images[n::4]) for n, node in enumerate([house.one, house.two] * 2)
    ]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    until(lambda: house.stored()["1.2.3.1"] >= 60)
    time.sleep(1)
    assert house.stored()["1.2.3.1"] == 60
    stored = house.all(AuditEntry, AuditEntry.event == "stored", AuditEntry.study_uid == "1.2.3.1")
    assert {entry.sop_uid for entry in stored} == {one.SOPInstanceUID for one in images}
    assert len({entry.journal for entry in stored}) == 1
    # The node that doesn't record knows them, too.
    until(lambda: house.two.journal_rows("SELECT count(*) FROM instances WHERE study_uid = '1.2.3.1'") == [(60,)])
