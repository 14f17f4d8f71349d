"""Storage commitment with a real archive, a real gateway, and real modalities: pynetdicom, and another Orthanc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, Association, evt
from sqlalchemy import select

from demo.neighbours import free_ports
from gateway.commitment import elsewhere, reporting
from gateway.commitment.requests import SOP_CLASS, SOP_INSTANCE
from tests.integration.archive_fixture import PEERS, Archive, image, until
from tests.schema import upgraded
from zambezi.database.engine import Sessions, sessions
from zambezi.database.tables import AuditEntry, CommitmentRequest, ExceptionItem
from zambezi.environment import REPOSITORY

CT = str(CTImageStorage)


@dataclass
class Place:
    """An archive and its gateway; CT1 listens on `station_port` where a test lets it, BARE is another Orthanc."""

    archive: Archive
    folder: Path
    station_port: int
    bare_port: int
    bare_http: int
    sessions: Sessions
    gateway: subprocess.Popen[bytes] | None = None
    told: list[tuple[int, Dataset]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.archive.environment.ports.mpps

    def start(self) -> None:
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        for file in ("10-orthanc.json", "20-plugins.json"):
            (config / file).write_text((REPOSITORY / "orthanc-config" / file).read_text())
        settings = {"StorageCommitment": {"WaitSeconds": 2, "RetrySeconds": 0.3, "RetryCapSeconds": 0.3}}
        (config / "30-zambezi.json").write_text(json.dumps({"Zambezi": settings}))
        peers = {"CT1": ["CT1", "127.0.0.1", self.station_port], "BARE": ["BARE", "127.0.0.1", self.bare_port]}
        (config / "40-peers.json").write_text(json.dumps({"DicomModalities": peers}))
        environ = {**os.environ, **self.archive.variables, "ZAMBEZI_CONFIG": str(config),
                   "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
        with (self.folder / "gateway.log").open("ab") as log:
            self.gateway = subprocess.Popen(
                [sys.executable, "-m", "zambezi.starting", "gateway.service"], env=environ, stderr=log
            )
        until(self._echoes)

    def _echoes(self) -> bool:
        ae = AE("CT1")
        ae.add_requested_context("1.2.840.10008.1.1")
        made = ae.associate("127.0.0.1", self.port, ae_title="ZAMBEZI")
        if made.is_established:
            made.release()
            return True
        return False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """CT1 takes reports on its own port."""
        ae = AE("CT1")
        ae.add_supported_context(SOP_CLASS, scu_role=False, scp_role=True)
        server: Any = ae.start_server(
            ("127.0.0.1", self.station_port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)]
        )
        try:
            yield
        finally:
            server.shutdown()

    def _take(self, event: evt.Event) -> tuple[int, None]:
        self.told.append((int(event.event_type or 0), event.event_information))
        return 0, None

    @contextmanager
    def asking(self, port: int = 0, aet: str = "CT1") -> Iterator[Association]:
        """An association on which reports are taken, too."""
        ae = AE(aet)
        ae.add_requested_context(SOP_CLASS)
        made = ae.associate("127.0.0.1", port or self.port, ae_title="ZAMBEZI",
                            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)])  # fmt: skip
        assert made.is_established
        yield made
        if made.is_established:
            made.release()

    def ask(self, *instances: tuple[str, str], on: Association | None = None, answered: int | None = 0) -> str:
        """Ask `on` an association, else on one of its own that is closed again; the Transaction UID."""
        if on is None:
            with self.asking() as made:
                return self.ask(*instances, on=made, answered=answered)
        transaction = generate_uid()
        _, wanted = reporting.information(transaction, instances, [])
        status, _ = on.send_n_action(wanted, 1, SOP_CLASS, SOP_INSTANCE)
        assert status.get("Status") == answered
        return str(transaction)

    def reports(self, transaction: str) -> list[tuple[int, Dataset]]:
        return [one for one in self.told if one[1].TransactionUID == transaction]

    def row(self, transaction: str) -> CommitmentRequest:
        with self.sessions() as session:
            query = select(CommitmentRequest).where(CommitmentRequest.transaction_uid == transaction)
            return session.scalars(query).one()

    def file_of(self, one: Dataset) -> Path:
        """Where the archive keeps an image."""
        (orthanc_id,) = self.archive.as_service().find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})
        name = self.archive.get(f"/instances/{orthanc_id}/attachments/dicom/info").json()["Uuid"]
        return self.archive.environment.storage_dir / name[:2] / name[2:4] / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    closed = {"AET": "US1", "Host": "127.0.0.1", "Port": 11113, "AllowStorageCommitment": False}
    peers = {"DicomModalities": {**PEERS, "US1": closed}}
    (archive.environment.orthanc_config_dir / "40-peers.json").write_text(json.dumps(peers))
    archive.start()
    engine = upgraded(archive.environment.database_url)
    made = Place(archive, tmp_path_factory.mktemp("gateway"), *free_ports(3), sessions(engine, "test"))
    try:
        made.start()
        yield made
    finally:
        if made.gateway:
            made.gateway.terminate()
            made.gateway.wait(30)
        engine.dispose()
        archive.kill()


def reference(one: Dataset) -> tuple[str, str]:
    return str(one.SOPClassUID), str(one.SOPInstanceUID)


def test_what_is_safe_is_told_on_an_association_of_ours(place: Place) -> None:
    study = generate_uid()
    images = [image(study) for _ in range(60)]  # more than one piece of what is looked into
    assert set(place.archive.send(*images)) == {0}
    with place.listening():
        transaction = place.ask(*map(reference, images))
        ((event, told),) = until(lambda: place.reports(transaction))
    assert event == 1
    assert {one.ReferencedSOPInstanceUID for one in told.ReferencedSOPSequence} == {i.SOPInstanceUID for i in images}
    row = until(lambda: (found := place.row(transaction)).state == "reported" and found)
    assert (row.study_uids, row.attempts) == ([study], 1)


def test_who_keeps_its_association_open_is_told_there(place: Place) -> None:
    one = image()
    assert place.archive.send(one) == [0]
    with place.asking() as open_one:  # nobody listens on its port
        asked = []
        for _ in range(3):
            asked.append(place.ask(reference(one), on=open_one))
            time.sleep(0.4)  # the first would be told while it goes on asking
        until(lambda: all(map(place.reports, asked)))
        assert open_one.is_established
    assert until(lambda: {place.row(one).state for one in asked} == {"reported"})
    assert {place.row(one).outcome for one in asked} == {"told on its own association"}


def test_images_that_the_archive_lost_or_never_had_are_named_to_station_and_person(place: Place) -> None:
    """Orthanc's own word is that they are well: it answers from memory and index."""
    good, gone, cut, flipped, other = images = [image(generate_uid()) for _ in range(5)]
    assert place.archive.send(*images) == [0] * 5
    files = {id(one): place.file_of(one) for one in (gone, cut, flipped)}
    (orthanc_id,) = place.archive.as_service().find("Instance", {"SOPInstanceUID": gone.SOPInstanceUID})
    files[id(gone)].unlink()
    content = files[id(cut)].read_bytes()
    files[id(cut)].write_bytes(content[:-1])
    content = files[id(flipped)].read_bytes()
    files[id(flipped)].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(place.archive.as_service().file(orthanc_id)) > 0, "Orthanc gives out a file that is gone"
    never = (CT, generate_uid())
    asked = [reference(good), reference(gone), reference(cut), reference(flipped),
             (str(MRImageStorage), str(other.SOPInstanceUID)), never]  # fmt: skip
    with place.listening():
        transaction = place.ask(*asked)
        ((event, told),) = until(lambda: place.reports(transaction))
    assert event == 2
    assert [one.ReferencedSOPInstanceUID for one in told.ReferencedSOPSequence] == [good.SOPInstanceUID]
    failed = {one.ReferencedSOPInstanceUID: one.FailureReason for one in told.FailedSOPSequence}
    assert failed == {
        gone.SOPInstanceUID: 0x0110, cut.SOPInstanceUID: 0x0110, flipped.SOPInstanceUID: 0x0110,
        other.SOPInstanceUID: 0x0119, never[1]: 0x0112,
    }  # fmt: skip
    row = until(lambda: (found := place.row(transaction)).state == "reported" and found)
    with place.sessions() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.reference == f"{row.id} not safe")).one()
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "commitment-changed").order_by(AuditEntry.seq)
        ).all()
    assert (item.facts["failed"], item.facts["asked"]) == (5, 6)
    states = [json.loads(one.payload)["state"] for one in entries if transaction.encode() in one.payload]
    assert states == ["asked", "checked", "reported"]


def test_a_request_survives_kill_9_and_a_station_that_is_away(place: Place) -> None:
    one = image()
    assert place.archive.send(one) == [0]
    transaction = place.ask(reference(one))
    assert place.gateway
    place.gateway.kill()
    place.gateway.wait()
    place.start()
    assert until(lambda: place.row(transaction).state == "retrying")
    with place.listening():
        ((event, _),) = until(lambda: place.reports(transaction))
        assert event == 1
        assert until(lambda: place.row(transaction).state == "reported")


def test_another_orthanc_as_modality_is_told(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "bare.json"
    file.write_text(json.dumps({
        "DicomAet": "BARE", "DicomPort": place.bare_port, "HttpPort": place.bare_http, "AuthenticationEnabled": False,
        "StorageDirectory": str(tmp_path / "bare"), "Plugins": [], "DicomCheckModalityHost": False,
        "DicomModalities": {"ZAMBEZI": ["ZAMBEZI", "127.0.0.1", place.port]},
    }))  # fmt: skip
    one, never = image(), generate_uid()
    assert place.archive.send(one) == [0]
    url = f"http://127.0.0.1:{place.bare_http}"
    bare = subprocess.Popen(["/usr/sbin/Orthanc", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(f"{url}/system"), 30)
        body = {"DicomInstances": [list(reference(one)), [CT, never]]}
        asked = requests.post(f"{url}/modalities/ZAMBEZI/storage-commitment", json=body, timeout=30)
        assert asked.status_code == 200, asked.text
        report = until(lambda: _report(url + asked.json()["Path"]))
    finally:
        bare.terminate()
        bare.wait(30)
    assert report["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [one.SOPInstanceUID]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [(never, 0x0112)]


def test_a_request_at_orthancs_own_port_is_seen_and_warned_of(place: Place) -> None:
    one = image()
    assert place.archive.send(one) == [0]
    own = place.archive.environment.ports.dicom
    with place.asking(own, "US1") as closed, place.asking(own) as known:
        place.ask(reference(one), on=closed, answered=None)  # its right to it was taken away
        transaction = place.ask(reference(one), on=known)
    watch = elsewhere.Watch(place.sessions, place.archive.as_service(), place.port)
    assert until(lambda: watch.look() and _is_kept(place, transaction))
    with place.sessions() as session:
        items = session.scalars(select(ExceptionItem).where(ExceptionItem.kind == "commitment-own-port")).all()
    (item,) = items
    assert (item.facts["source"], item.facts["port"]) == ("CT1", place.port)


def _is_kept(place: Place, transaction: str) -> bool:
    with place.sessions() as session:
        query = select(CommitmentRequest.state).where(CommitmentRequest.transaction_uid == transaction)
        return session.scalars(query).first() == "elsewhere"


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _report(url: str) -> Any:
    found = requests.get(url, timeout=5).json()
    return found if found["Status"] != "Pending" else None
