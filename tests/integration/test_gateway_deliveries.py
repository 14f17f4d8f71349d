"""Images out, with a real Orthanc and its plugin.

To dcmtk's dcmqrscp and storescp (TLS, too), to another Orthanc, and to receivers that lie or are picky.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, generate_uid
from pynetdicom import AE, StoragePresentationContexts, evt

from tests import misbehaving
from tests.gateway_alone import Alone, FakePlugin, eventually, free_port
from tests.integration.archive_fixture import PEERS, Archive, free_ports, image
from tests.schema import upgraded
from zambezi import audit, clock, outbox
from zambezi.database.engine import sessions
from zambezi.database.tables import AuditEntry, Delivery, ExceptionItem, Study
from zambezi.environment import REPOSITORY


@dataclass
class Receiver:
    """dcmqrscp or storescp in a folder of its own."""

    kind: str
    folder: Path
    sender_port: int
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    tls: tuple[Path, ...] = ()  # key, certificate, authority

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        path = "/usr/bin"
        if self.kind == "dcmqrscp":
            config, second = self.folder.with_suffix(".cfg"), self.folder.with_suffix(".2")
            second.mkdir(exist_ok=True)
            config.write_text(
                f"NetworkTCPPort = {self.port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
                f"HostTable BEGIN\nus = (ZAMBEZI, 127.0.0.1, {self.sender_port})\nHostTable END\n"
                "VendorTable BEGIN\nVendorTable END\n"
                f"AETable BEGIN\nQR {self.folder} RW (500, 1024mb) ANY\n"
                f"QR2 {second} RW (500, 1024mb) ANY\nAETable END\n"
            )
            command = [shutil.which("dcmqrscp", path=path), "-c", config]
        else:
            tls = ["+tls", *self.tls[:2], "+cf", self.tls[2]] if self.tls else []  # wants our certificate, too
            command = [shutil.which("storescp", path=path), "--fork", "+xa", *tls, "-od", self.folder, str(self.port)]
        self.process = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
        eventually(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def holds(self, study_uid: str) -> list[str]:
        """SOP Instance UIDs of the files it has of a study."""
        files = [dcmread(f) for f in self.folder.iterdir() if f.is_file() and f.name != "index.dat"]
        return sorted(str(f.SOPInstanceUID) for f in files if f.StudyInstanceUID == study_uid)


class Liar:
    """Answers Success to every C-STORE, stores nothing, and finds nothing."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.told: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        ae = AE("LIAR")
        ae.supported_contexts = StoragePresentationContexts[:120]
        ae.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")

        def stored(event: evt.Event) -> int:
            self.told.append(str(event.request.AffectedSOPInstanceUID))
            return 0

        def found(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
            yield from ()

        handlers: list[Any] = [(evt.EVT_C_STORE, stored), (evt.EVT_C_FIND, found)]
        server: Any = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield
        finally:
            server.shutdown()


class OtherOrthanc:
    """An Orthanc of somebody else's: nothing of ours in it."""

    def __init__(self, folder: Path) -> None:
        self.port, dicom = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir()
        settings = {
            "HttpPort": self.port, "DicomPort": dicom, "StorageDirectory": str(folder), "IndexDirectory": str(folder),
            "RegisteredUsers": {"us": "secret"}, "AuthenticationEnabled": True,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(["/usr/sbin/Orthanc", folder / "orthanc.json"], stderr=subprocess.DEVNULL)

    def instances(self) -> set[str]:
        return set(requests.get(f"{self.url}/instances", auth=("us", "secret"), timeout=10).json())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class House:
    """An archive, a gateway and the receivers."""

    archive: Archive
    gateway: Alone
    qr: Receiver
    sto: Receiver
    liar: Liar
    tls: Receiver
    picky: misbehaving.Receiver
    other: OtherOrthanc

    def send(self, count: int, modality: str, study: str | None = None) -> tuple[str, list[str]]:
        """Store a study's images from CT1; its UID and theirs."""
        study = study or generate_uid()
        images = [image(study, Modality=modality) for _ in range(count)]
        assert self.archive.send(*images) == [0] * count
        return study, sorted(str(one.SOPInstanceUID) for one in images)

    def deliveries(self, study: str, state: str = "") -> list[Delivery]:
        wanted = [Delivery.kind == "dicom", Delivery.study_uid == study, *([Delivery.state == state] if state else [])]
        return self.gateway.all(Delivery, *wanted)


def certificates(folder: Path) -> None:
    """An authority, and what it has signed for them and for us."""
    run = partial(subprocess.run, check=True, cwd=folder, capture_output=True)
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run([*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"])
    for name in ("them", "us"):
        run([*new, "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem",
             "-subj", f"/CN={name}"])  # fmt: skip


def settings(tls_port: int) -> dict[str, Any]:
    patient = {"RetrySeconds": 0.3, "RetryMultiplier": 1}
    return {
        "Completeness": {"QuietSeconds": 0.5},
        "Destinations": {
            "qr": {"Proof": "found", **patient},
            "sto": {"Proof": "acknowledged", **patient},
            "liar": {"Proof": "found", **patient, "Attempts": 2},
            "tls": {
                "Proof": "acknowledged", **patient, "Transcode": "jpeg-ls",
                "Tls": {"CaFile": "ca.pem", "CertificateFile": "us.pem", "KeyFile": "us.key", "Port": tls_port},
            },
            "capped": {"Proof": "found", **patient, "Windows": [{"KilobitsPerSecond": 100_000}]},
            "picky": {"Proof": "acknowledged", **patient, "Attempts": 3},
            "keeper": {"Proof": "committed", **patient, "Aet": "ZAMBEZI_SC"},
            "other": {"Kind": "peer", **patient},
        },
        "Routing": [
            {"Name": "ct", "When": {"Modality": ["CT"]}, "SendTo": ["qr"]},
            {"Name": "mr", "When": {"Modality": ["MR"]}, "SendTo": ["sto"]},
            {"Name": "us", "When": {"Modality": ["US"]}, "SendTo": ["liar"]},
            {"Name": "cr", "When": {"Modality": ["CR"]}, "SendTo": ["tls"]},
            {"Name": "pt", "When": {"Modality": ["PT"]}, "SendTo": ["capped"]},
            {"Name": "nm", "When": {"Modality": ["NM"]}, "SendTo": ["picky"]},
            {"Name": "mg", "When": {"Modality": ["MG"]}, "SendTo": ["keeper"]},
            {"Name": "xa", "When": {"Modality": ["XA"]}, "SendTo": ["other"]},
        ],
        "Hl7": {
            "Peers": {"his": {"Application": "HIS", "Host": "127.0.0.1", "Port": free_port()}},
            "Triggers": [{"Name": "tell", "On": "study-completed", "SendTo": "his", "Message": "ORM^O01"}],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("deliveries")
    config = folder / "config"
    config.mkdir()
    (folder / "crash").mkdir()
    (folder / "home").mkdir()
    certificates(folder)
    tls = Receiver(
        "storescp", folder / "tls", 0, tls=tuple(folder / name for name in ("them.key", "them.pem", "ca.pem"))
    )
    for name in ("ca.pem", "us.pem", "us.key"):
        shutil.copy(folder / name, folder / "home")
    rules = settings(tls.port)
    variables = {"ZAMBEZI_CONFIG": str(config), "ZAMBEZI_CRASH_DIR": str(folder / "crash")}
    archive = Archive(folder / "home", rules, variables)
    qr = Receiver("dcmqrscp", folder / "qr", archive.environment.ports.dicom)
    sto = Receiver("storescp", folder / "sto", archive.environment.ports.dicom)
    liar = Liar(free_port())
    picky = misbehaving.Receiver()
    other = OtherOrthanc(folder / "other")
    peers = {
        **PEERS, "qr": ["QR", "127.0.0.1", qr.port], "sto": ["STO", "127.0.0.1", sto.port],
        "liar": ["LIAR", "127.0.0.1", liar.port], "tls": ["TLS", "127.0.0.1", 1],
        "capped": ["QR2", "127.0.0.1", qr.port],
        "picky": ["PACS", "127.0.0.1", picky.port], "keeper": ["KEEPER", "127.0.0.1", picky.port],
    }  # fmt: skip
    named = {"DicomModalities": peers, "OrthancPeers": {"other": [other.url, "us", "secret"]}}
    (archive.environment.orthanc_config_dir / "40-peers.json").write_text(json.dumps(named))
    for file in archive.environment.orthanc_config_dir.glob("[1-4]0-*.json"):
        shutil.copy(file, config)
    engine = upgraded(archive.environment.database_url)
    environ = {**archive.variables, "PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    gateway = Alone(archive.environment, sessions(engine, "test"), FakePlugin(0, ""), environ)
    qr.start()
    sto.start()
    tls.start()
    archive.start()
    try:
        gateway.start()
        yield House(archive, gateway, qr, sto, liar, tls, picky, other)
    finally:
        if gateway.process is not None:
            gateway.kill()
        archive.stop()
        for one in (qr, sto, tls, other):
            one.stop()
        engine.dispose()


def test_found_every_instance_answers_to_a_query(house: House):
    study, images = house.send(5, "CT")
    (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
    assert house.qr.holds(study) == images
    assert (delivery.proof, delivery.attempts, delivery.rule) == ("found", 1, "ct")
    assert "each of 5 instances" in delivery.outcome


def test_acknowledged_every_store_was_answered_with_success(house: House):
    study, images = house.send(3, "MR")
    (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
    assert house.sto.holds(study) == images
    assert delivery.proof == "acknowledged"


def test_late_images_go_alone(house: House):
    study, first = house.send(2, "CT")
    eventually(lambda: house.deliveries(study, "delivered"))
    _, second = house.send(1, "CT", study)
    deliveries = eventually(lambda: len(house.deliveries(study, "delivered")) == 2 and house.deliveries(study))
    assert sorted(len(one.instances) for one in deliveries) == [1, 2]
    assert house.qr.holds(study) == sorted(first + second)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_receiver_that_is_down_gets_everything_when_it_is_up(house: House, modality: str):
    receiver = house.qr if modality == "CT" else house.sto
    receiver.stop()
    study, images = house.send(3, modality)
    (waiting,) = eventually(lambda: [d for d in house.deliveries(study) if d.attempts >= 2])
    # The first attempt sends, the second asks first what is there; either may have written its words by now.
    assert "failed" in waiting.outcome or "does not answer" in waiting.outcome
    receiver.start()
    eventually(lambda: house.deliveries(study, "delivered"))
    assert receiver.holds(study) == images


def test_a_receiver_that_answers_but_stores_nothing_is_found_out(house: House):
    with house.liar.listening():
        study, images = house.send(2, "US")
        (delivery,) = eventually(lambda: house.deliveries(study, "parked"))
    assert sorted(set(house.liar.told)) == images
    assert "2 of 2 instances are not found there" in delivery.outcome
    assert house.gateway.count(ExceptionItem, ExceptionItem.reference == delivery.id) == 1


def test_over_tls_with_our_certificate_images_go_out_compressed_without_loss(house: House):
    study = generate_uid()
    images = [image(study, Modality="CR", Rows=64, Columns=64, PixelData=bytes(range(256)) * 16) for _ in range(2)]
    assert house.archive.send(*images) == [0, 0]
    (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
    assert delivery.outcome == "tls acknowledged each of 2 instances"
    files = [dcmread(file) for file in house.tls.folder.iterdir()]
    assert {file.file_meta.TransferSyntaxUID for file in files} == {JPEGLSLossless}
    assert sorted(file.SOPInstanceUID for file in files) == sorted(one.SOPInstanceUID for one in images)
    assert all(len(file.PixelData) < 4096 for file in files)
    unpacked = house.tls.folder.with_suffix(".dcm")
    subprocess.run(["dcmdjpls", next(house.tls.folder.iterdir()), unpacked], check=True)
    assert dcmread(unpacked).PixelData == bytes(range(256)) * 16


def test_our_own_store_and_query_are_understood_by_dcmqrscp(house: House):
    study, images = house.send(3, "PT")
    (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
    assert delivery.outcome == "capped answers to a query for each of 3 instances (3 sent)"
    second = house.qr.folder.with_suffix(".2")
    assert sorted(dcmread(file).SOPInstanceUID for file in second.glob("CT_*")) == images


def test_where_orthancs_job_stopped_an_association_of_ours_goes_on_image_by_image(house: House):
    house.picky.does = lambda event, number: 0xC000 if number == 3 else None
    with house.picky.listening():
        study, images = house.send(5, "NM")
        eventually(lambda: house.deliveries(study, "delivered"))
    assert sorted(house.picky.has) == images
    # The third was refused to the job, whose progress told of two; then it was offered again, and taken.
    assert sorted(house.picky.offered[uid] for uid in images) == [1, 1, 1, 1, 2]
    assert len(set(house.picky.callers)) == 1


def test_a_commitment_is_reported_to_the_gateways_own_port(house: House):
    keeper = house.picky
    keeper.aet, keeper.does = "KEEPER", lambda event, number: None
    keeper.reports_to = ("ZAMBEZI_SC", house.gateway.environment.ports.mpps)
    with keeper.listening():
        study, images = house.send(3, "MG")
        (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
        assert (delivery.proof, delivery.attempts) == ("committed", 1)
        assert set(images) <= set(keeper.has)
        stranger = Dataset()
        stranger.TransactionUID = generate_uid()
        assert keeper.report_to(stranger, 1, "ZAMBEZI_SC", house.gateway.environment.ports.mpps) == 0x0112


def test_another_orthanc_gets_images_over_http_and_is_asked_whether_it_has_them(house: House):
    study, _ = house.send(3, "XA")
    (delivery,) = eventually(lambda: house.deliveries(study, "delivered"))
    assert delivery.proof == "found"
    assert {one[0] for one in delivery.instances} <= house.other.instances()


def test_killed_in_the_middle_of_deliveries_it_goes_on_and_none_is_doubled(house: House):
    studies = [house.send(4, "CT") for _ in range(4)]
    eventually(lambda: any(house.deliveries(study, "sending") for study, _ in studies))
    house.gateway.kill()
    house.gateway.start()
    for study, images in studies:
        (delivery,) = eventually(lambda study=study: house.deliveries(study, "delivered"), 45)
        assert house.qr.holds(study) == images
        assert delivery.fence >= delivery.attempts
    with house.gateway.sessions() as session:
        assert audit.verify(session) == []


def test_an_archive_that_is_away_is_no_fault_of_the_destination(house: House):
    house.archive.kill()
    id, study = outbox.delivery_id("test", "away"), generate_uid()
    nothing = "-".join(["00000000"] * 5)  # an instance that the archive never had
    with house.gateway.sessions.begin() as session:
        outbox.add(
            session, id=id, kind="dicom", rule="ct", destination="qr", because="test", now=clock.now(), writer="test",
            study_uid=study, instances=[[nothing, f"{study}.1", f"{study}.1.1"]],
        )  # fmt: skip
    eventually(lambda: [d for d in house.deliveries(study) if d.fence >= 3])
    assert house.deliveries(study)[0].attempts <= 1
    house.archive.start()
    (tried,) = eventually(lambda: house.deliveries(study, "retrying"))
    assert "the archive no longer has it" in tried.outcome
    with house.gateway.sessions.begin() as session:
        assert outbox.cancel(session, id, now=clock.now(), writer="test", who="test")


def test_the_central_table_has_the_whole_journal_and_the_same_counts(house: House):
    study, _ = house.send(3, "CT")
    eventually(lambda: house.deliveries(study, "delivered"))
    journal = house.archive.entries()
    name = journal[0]["journal"]
    eventually(lambda: house.gateway.count(AuditEntry, AuditEntry.journal == name) >= len(journal))
    (row,) = house.gateway.all(Study, Study.study_uid == study)
    assert (row.instances, row.patient_id, row.modalities, row.cause) == (3, "P1", "CT", "modality")
    with house.gateway.sessions() as session:
        assert audit.verify(session) == []
