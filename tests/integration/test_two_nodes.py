"""Two Orthancs on one index and one storage: each store is recorded once, whichever node dies or comes back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, inspect, select

from demo.neighbours import free_ports
from tests import postgres
from tests.integration.archive_fixture import Archive, image, until, written
from tests.killing import family
from zambezi import announcing, audit, causes, clock
from zambezi.access import tokens
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
    gateways: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_gateways(self) -> None:
        """Two, as a site may have them."""
        environ = {**os.environ, **self.one.variables, "PYTHONPATH": str(REPOSITORY)}
        environ["ZAMBEZI_CONFIG"] = str(self.one.environment.orthanc_config_dir)
        for _ in range(2):
            mllp, mpps = map(str, free_ports(2))
            own = {**environ, "ZAMBEZI_MLLP_PORT": mllp, "ZAMBEZI_MPPS_PORT": mpps}
            with (self.one.home / "gateway.log").open("ab") as log:
                self.gateways.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "zambezi.starting", "gateway.service"], env=own, stdout=log, stderr=log
                    )
                )

    def kill_gateways(self) -> None:
        while self.gateways:
            one = self.gateways.pop()
            one.kill()
            one.wait()

    def end_lease(self) -> None:
        """As if the time that the gateway waits for a node that is away were over."""
        with self.sessions.begin() as session:
            session.scalars(select(FollowerLease)).one().lease_until = "2026-01-01T00:00:00.000000Z"

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

    def broken(self) -> list[audit.Broken]:
        """What of the audit doesn't hold, looked at from one moment: gateways go on writing."""
        engine = connect(self.one.variables["ZAMBEZI_DATABASE_URL"], "test", reading=True)
        try:
            with sessions(engine, "test")() as session:
                return audit.verify(session)
        finally:
            engine.dispose()

    def all(self, table: Any, *conditions: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).where(*conditions).order_by(*inspect(table).primary_key)))


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
            json.dumps({"PostgreSQL": {
                "EnableIndex": True, "EnableStorage": False, "Host": "127.0.0.1", "Port": postgres_cluster.port,
                "Database": index.rpartition("/")[2], "Username": postgres.ACCOUNT, "Password": "",
                "IndexConnectionsCount": 4,
            }})
        )  # fmt: skip
        engine = connect(central, "test")
        upgrade(engine)
        made = House(one, two, sessions(engine, "test"))
        begin(one)  # the first alone: it makes the index's tables
        begin(two)
        made.start_gateways()
        try:
            until(lambda: made.recorder() == "one", 30)
            yield made
        finally:
            made.kill_gateways()
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
    assert standing(house.one)["configuration"] == standing(house.two)["configuration"]
    # The node that doesn't record knows them, too.
    until(lambda: house.two.journal_rows("SELECT count(*) FROM instances WHERE study_uid = '1.2.3.1'") == [(60,)])


def test_both_nodes_have_the_worklist_and_show_a_study_to_whom_its_token_names_it(house: House):
    one, two = (
        (lambda: standing(house.one)["worklist_generation"]),
        (lambda: standing(house.two)["worklist_generation"]),
    )
    until(lambda: one() == two() > 0)
    made = tokens.begin("ana", "session", "referrer", int(time.time()), 600, ("1.2.3.1",))
    shown = {tokens.COOKIE: tokens.sign(made, house.one.keys.session_key)}
    for node in (house.one, house.two):
        for study_uid, status in (("1.2.3.1", 200), ("1.2.3.9", 403)):
            path = f"/dicom-web/studies/{study_uid}/series"
            assert node.get(path, service="front", cookies=shown).status_code == status
    # Who looked is known, through whichever node.
    until(lambda: len(house.all(AuditEntry, AuditEntry.event == "viewed", AuditEntry.study_uid == "1.2.3.1")) == 2)


def test_a_conflict_across_the_nodes_is_held_whole(house: House):
    first = image("1.2.3.2", PatientID="ACROSS")
    other = image("1.2.3.2", PatientID="ACROSS", SOPInstanceUID=first.SOPInstanceUID, PixelData=bytes([9] * 64))
    other.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    assert house.one.send(first) == [0]
    # At once, before any table of the other node tells of the first: nobody knows which of them Orthanc stores.
    assert house.two.send(other) != [0]
    assert house.two.send(first) == [0]
    held = until(lambda: house.all(Held, Held.sop_uid == first.SOPInstanceUID))
    assert {one.why for one in held} == {"conflict"}
    assert (house.one.environment.hold_dir / held[0].sha256[:2] / f"{held[0].sha256}.dcm").exists()


def test_what_was_replaced_through_one_node_the_other_does_not_show_as_it_was(house: House):
    one = image("1.2.3.5", PatientID="REPLACED")
    house.one.send(one)
    until(lambda: house.two.journal_rows("SELECT 1 FROM instances WHERE study_uid = '1.2.3.5' AND present = 1"))
    made = tokens.begin("ana", "session", "radiologist", int(time.time()), 600)
    cookie = {tokens.COOKIE: tokens.sign(made, house.one.keys.session_key)}

    def shown(node: Archive, path: str) -> tuple[int, str]:
        answer = node.get(path, service="front", cookies=cookie)
        # DICOMweb's parts stand between lines that are made anew for each answer, and name the node.
        text = answer.content.decode("latin-1").replace(node.environment.orthanc_url, "")
        return answer.status_code, re.sub(r"--[0-9a-f-]{30,}", "", text)

    there = house.two.as_service().find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})[0]
    series = house.two.as_service().get(f"/instances/{there}")["ParentSeries"]
    dicomweb = f"/dicom-web/studies/1.2.3.5/series/{one.SeriesInstanceUID}/instances/{one.SOPInstanceUID}"
    uids = f"studyUID=1.2.3.5&seriesUID={one.SeriesInstanceUID}&objectUID={one.SOPInstanceUID}"
    paths = [
        f"{dicomweb}/frames/1", f"{dicomweb}/metadata", f"{dicomweb}/rendered", f"/wado?requestType=WADO&{uids}",
        f"/instances/{there}/preview", f"/web-viewer/series/{series}", f"/web-viewer/instances/deflate-{there}_0",
    ]  # fmt: skip
    before = {path: shown(house.two, path) for path in paths}
    assert {status for status, _ in before.values()} == {200}

    assert house.one.delete(f"/instances/{there}", service="custody").status_code == 200
    until(lambda: house.all(AuditEntry, AuditEntry.event == "deleted", AuditEntry.study_uid == "1.2.3.5"))
    one.PixelData, one.PatientName = bytes([9, 200] * 32), "Outro^Rui"
    content = written(one)
    with house.sessions.begin() as session:
        coming = {one.SOPInstanceUID: hashlib.sha256(content).hexdigest()}
        generation = announcing.announce_instances(session, coming, causes.CORRECTION, "correction 1", clock.now())
    assert announcing.wait_until_known(house.one.as_service("custody"), generation, 20)
    assert house.one.as_service("custody").store(content)["ID"] == there
    until(lambda: {shown(house.two, path)[0] for path in paths} == {403})
    assert [standing(node)["refused_studies"] for node in (house.one, house.two)] == [0, 1]
    # Through the node that replaced it, all of it can be seen; through the other one when it has started anew.
    now = {path: shown(house.one, path) for path in paths}
    assert all(status == 200 and (status, body) != before[path] for path, (status, body) in now.items()), now
    house.two.kill()
    begin(house.two)
    assert {path: shown(house.two, path) for path in paths} == now


def test_the_recorder_is_killed_and_comes_back(house: House):
    epoch = standing(house.one)["epoch"]
    house.one.send(*[image("1.2.3.3", PatientID="KILLED") for _ in range(5)])
    until(lambda: house.stored()["1.2.3.3"] == 5)
    # What the second node stores while nobody records waits in /changes.
    house.one.kill()
    time.sleep(1)  # a renewal that is under way
    house.end_lease()
    assert house.two.send(*[image("1.2.3.3", PatientID="KILLED") for _ in range(7)]) == [0] * 7
    until(lambda: house.recorder() == "two", 40)
    assert standing(house.two)["epoch"] > epoch
    until(lambda: house.stored()["1.2.3.3"] == 12)
    begin(house.one)
    until(
        lambda: len(house.one.journal_rows("SELECT 1 FROM instances WHERE study_uid = '1.2.3.3' AND present = 1")) == 12
    )
    assert house.recorder() == "two"
    house.one.send(*[image("1.2.3.3", PatientID="KILLED") for _ in range(3)])
    until(lambda: house.stored()["1.2.3.3"] >= 15)
    assert house.stored()["1.2.3.3"] == 15
    assert house.broken() == []
    assert house.all(ExceptionItem, ExceptionItem.kind == "journal-new") == []


def test_with_the_gateway_away_the_recorder_goes_on_and_what_a_relieved_one_wrote_does_not_count(house: House):
    until(lambda: house.recorder() == "two")
    house.kill_gateways()
    house.one.send(*[image("1.2.3.4", PatientID="AWAY") for _ in range(4)])
    count = "SELECT count(*) FROM instances WHERE study_uid = '1.2.3.4' AND present = 1"
    until(lambda: house.two.journal_rows(count) == [(4,)])
    # Its machine goes, and with it the entries that nobody has read. The other one tells of the same.
    house.two.kill()
    house.end_lease()
    house.start_gateways()
    until(lambda: house.recorder() == "one", 40)
    until(lambda: house.stored()["1.2.3.4"] == 4)
    begin(house.two)
    until(lambda: len(house.all(AuditEntry, AuditEntry.event == "stored", AuditEntry.study_uid == "1.2.3.4")) == 8)
    assert house.stored()["1.2.3.4"] == 4
    until(lambda: house.two.journal_rows(count) == [(4,)])
    assert house.broken() == []
    # And back again: it goes on where the other one stopped, with its own late entries forgotten. The other one hangs,
    # and when it wakes up it must not record any more.
    assert house.one.process is not None
    frozen = family(house.one.process.pid)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    house.end_lease()
    house.two.send(image("1.2.3.4", PatientID="AWAY"))
    until(lambda: standing(house.two)["records"], 40)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    until(lambda: house.stored()["1.2.3.4"] >= 5)
    until(lambda: house.recorder() == "two")
    house.two.send(image("1.2.3.4", PatientID="AWAY"))
    until(lambda: house.one.journal_rows(count) == [(6,)])
    assert house.stored()["1.2.3.4"] == 6
    assert "entry" not in (house.one.home / "gateway.log").read_text()
