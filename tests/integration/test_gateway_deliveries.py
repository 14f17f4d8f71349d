"""Images out, with a real Orthanc and its plugin.

To dcmtk's dcmqrscp and storescp (TLS, too), to another Orthanc, and to receivers that lie or are picky.
"""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, generate_uid
from pynetdicom import AE, StoragePresentationContexts, evt

from demo.neighbours import free_port, free_ports
from gateway.orthanc_jobs import Jobs, end_left_behind
from gateway.sending import Closed, Instance
from tests import misbehaving
from tests.gateway_alone import Alone, FakePlugin, eventually
from tests.integration.archive_fixture import PEERS, Archive, image, until
from tests.misbehaving_sources import LegacyArchive
from tests.schema import upgraded
from zambezi import audit, clock, orders, outbox
from zambezi.config.settings import Site
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
    counter: misbehaving.Receiver
    legacy: LegacyArchive

    def send(self, count: int, modality: str, study: str | None = None) -> tuple[str, list[str]]:
        """Store a study's images from CT1; its UID and theirs."""
        study = study or generate_uid()
        images = [image(study, Modality=modality) for _ in range(count)]
        assert self.archive.send(*images) == [0] * count
        return study, sorted(str(one.SOPInstanceUID) for one in images)

    def deliveries(self, study: str, state: str = "", kind: str = "dicom") -> list[Delivery]:
        wanted = [Delivery.kind == kind, Delivery.study_uid == study, *([Delivery.state == state] if state else [])]
        return self.gateway.all(Delivery, *wanted)


#: Destinations that are named after their level of proof, and the modality whose images go there.
FETCHING = ("by-move", "by-get")
PROOFS = {"acknowledged": "RF", "found": "DX", "committed": "IO"}


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
            **{proof: {"Proof": proof, **patient, "CommitmentMinutes": 0.03} for proof in PROOFS},
        },
        "PriorSources": {"qr": patient, "by-move": patient, "by-get": {**patient, "Retrieve": "get"}},
        "Routing": [
            {"Name": "priors", "When": {"StudyID": "NEW"}, "Priors": {"FetchFrom": ["qr"], "Years": 3}},
            *({"Name": by, "When": {"StudyID": by.upper()}, "Priors": {"FetchFrom": [by]}} for by in FETCHING),
            {"Name": "ahead", "When": {"Modality": "BI"}, "Priors": {"FetchFrom": ["by-get"], "AheadHours": 24}},
            {"Name": "ct", "When": {"Modality": ["CT"]}, "SendTo": ["qr"]},
            {"Name": "mr", "When": {"Modality": ["MR"]}, "SendTo": ["sto"]},
            {"Name": "us", "When": {"Modality": ["US"]}, "SendTo": ["liar"]},
            {"Name": "cr", "When": {"Modality": ["CR"]}, "SendTo": ["tls"]},
            {"Name": "pt", "When": {"Modality": ["PT"]}, "SendTo": ["capped"]},
            {"Name": "nm", "When": {"Modality": ["NM"]}, "SendTo": ["picky"]},
            {"Name": "mg", "When": {"Modality": ["MG"]}, "SendTo": ["keeper"]},
            {"Name": "xa", "When": {"Modality": ["XA"]}, "SendTo": ["other"]},
            *({"Name": proof, "When": {"Modality": modality}, "SendTo": [proof]} for proof, modality in PROOFS.items()),
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
    counter = misbehaving.Receiver(aet="")
    legacy = LegacyArchive(free_port(), ("127.0.0.1", archive.environment.ports.dicom))
    peers = {
        **PEERS, "qr": ["QR", "127.0.0.1", qr.port], "sto": ["STO", "127.0.0.1", sto.port],
        "liar": ["LIAR", "127.0.0.1", liar.port], "tls": ["TLS", "127.0.0.1", 1],
        "capped": ["QR2", "127.0.0.1", qr.port],
        "by-move": ["LEGACY", "127.0.0.1", legacy.port],
        "by-get": {"AET": "LEGACY_GET", "Host": "127.0.0.1", "Port": legacy.port, "AllowStore": False},
        "picky": ["PACS", "127.0.0.1", picky.port], "keeper": ["KEEPER", "127.0.0.1", picky.port],
        **{proof: [proof.upper(), "127.0.0.1", counter.port] for proof in PROOFS},
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
        yield House(archive, gateway, qr, sto, liar, tls, picky, other, counter, legacy)
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
        # On a busy machine the last ones may come late, and go by a delivery of their own.
        eventually(lambda: sum(len(one.instances) for one in house.deliveries(study, "delivered")) == 5)
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


def test_deaths_of_archive_and_gateway_at_each_step_lose_nothing_and_repeat_only_what_was_not_proven(
    house: House, say: Callable[[str], None]
):
    gateway, archive, counter = house.gateway, house.archive, house.counter
    deaths = {"store": [gateway, archive], "find": [gateway], "commit": [gateway]}
    dead: queue.Queue[Any] = queue.Queue()
    met, one_by_one, all_are_here = Counter[str](), threading.Lock(), threading.Event()

    def meets(request: str) -> None:
        all_are_here.wait(20)
        time.sleep(0.03)  # so that all three are under way
        with one_by_one:
            met[request] += 1
            if dead.unfinished_tasks or not deaths[request] or (request == "store" and met["store"] < 4):
                return
            met.clear()
            victim = deaths[request].pop()
            victim.kill()
            dead.put(victim)

    counter.meets = meets
    with counter.listening():
        sent = {proof: house.send(8, modality) for proof, modality in PROOFS.items()}
        all_are_here.set()
        for _ in range(4):
            victim = dead.get(timeout=30)
            victim.start()
            dead.task_done()
        for proof, (study, images) in sent.items():
            eventually(
                lambda study=study: sum(len(one.instances) for one in house.deliveries(study, "delivered")) == 8, 30
            )
            done = house.deliveries(study)
            assert {(one.state, one.proof) for one in done} == {("delivered", proof)}
            assert set(images) <= set(counter.has)
            told = house.gateway.all(AuditEntry, AuditEntry.event == "delivery-changed", AuditEntry.study_uid == study)
            assert [json.loads(one.payload)["state"] for one in told].count("delivered") == len(done)
        proven = dict(counter.offered)
        gateway.kill()
        gateway.start()
        study, _ = house.send(1, PROOFS["acknowledged"])
        eventually(lambda: house.deliveries(study, "delivered"))
    again = {proof: sum(counter.offered[one] - 1 for one in images) for proof, (_, images) in sent.items()}
    say(f"4 deaths under 3 deliveries of 8 images each; sent again: {again}")
    assert {uid: times for uid, times in counter.offered.items() if uid in proven} == proven
    # Who can be asked is asked first; whose word alone counts gets again what nobody can know about.
    assert again["found"] <= 8
    assert max(proven.values()) <= 1 + 4
    with gateway.sessions() as session:
        assert audit.verify(session) == []


def test_a_job_ends_with_its_window_and_what_it_had_sent_is_known(house: House):
    counter, client = house.counter, house.archive.as_service()
    study, goes_on = generate_uid(), threading.Event()
    images = [image(study, Modality="OT") for _ in range(6)]
    assert house.archive.send(*images) == [0] * 6
    wanted = sorted(str(each.SOPInstanceUID) for each in images)
    named = [Instance(i["ID"], "", i["MainDicomTags"]["SOPInstanceUID"]) for i in stored(house.archive, study)]
    begun = len(counter.has)
    counter.meets = lambda request: time.sleep(0.1)
    jobs = Jobs(client, "modalities", "acknowledged", goes_on, lambda: len(counter.has) < begun + 3)
    with counter.listening():
        sent = jobs.store(named)
        assert isinstance(sent.fault, Closed)
        assert 2 <= len(sent.acknowledged) < 6
        assert {each.sop_uid for each in sent.acknowledged} <= set(counter.has)
        time.sleep(0.5)
        had = len(set(counter.has) & set(wanted))
        assert had < 6, "the job went on"
        assert jobs.store(named).acknowledged == ()
        # So does one that a gateway left behind which died.
        sent_before = counter.offered.total()
        client.start_store("acknowledged", [each.orthanc_id for each in named])
        eventually(lambda: counter.offered.total() > sent_before)
        assert end_left_behind(client) == 1
        assert counter.offered.total() < sent_before + 6
        assert end_left_behind(client) == 0


def test_a_patients_earlier_studies_are_fetched_from_another_archive_and_go_nowhere(house: House):
    who = {"PatientID": "P7", "PatientBirthDate": "19700101", "Modality": "OT"}
    earlier = [image("1.2.7.1", StudyDate="20250101", **who) for _ in range(3)]
    others = {
        "too old": image("1.2.7.2", StudyDate="20190101", **who),
        "somebody else's": image("1.2.7.3", StudyDate="20250101", **{**who, "PatientBirthDate": "19710101"}),
        "of another modality": image("1.2.7.4", StudyDate="20250101", **{**who, "Modality": "PX"}),
        "here in part": image("1.2.7.5", StudyDate="20250301", **who),
    }
    here = image("1.2.7.5", StudyDate="20250301", **who)
    sender = AE("OTHER")
    sender.add_requested_context(earlier[0].SOPClassUID)
    association = sender.associate("127.0.0.1", house.qr.port, ae_title="QR")
    for one in (*earlier, *others.values()):
        assert association.send_c_store(one).Status == 0
    association.release()
    assert house.archive.send(here) == [0]
    new = image(StudyDate="20260301", StudyID="NEW", **who)
    assert house.archive.send(new) == [0]
    (fetch,) = eventually(lambda: house.deliveries(new.StudyInstanceUID, "delivered", "fetch"), 30)
    assert (fetch.destination, fetch.rule, fetch.proof, fetch.attempts) == ("qr", "priors", "found", 1)
    assert fetch.outcome == "qr has 2 earlier studies that are wanted; 1.2.7.5 is here; 1.2.7.1 came with 3 images"
    # It is delivered when the archive has everything; the archive's follower may be a moment behind.
    came = until(lambda: len(found := house.archive.events("stored", patient_id="P7", cause="prefetch")) > 2 and found)
    assert {one["sop_uid"] for one in came} == {one.SOPInstanceUID for one in earlier}
    assert {one["reference"] for one in came} == {f"prior of {new.StudyInstanceUID}"}
    until(lambda: house.archive.events("study-completed", study_uid="1.2.7.1"))
    assert not house.archive.events("routed", study_uid="1.2.7.1")
    assert not house.archive.events("hl7-triggered", study_uid="1.2.7.1")
    assert len(stored(house.archive, "1.2.7.5")) == 1


@pytest.mark.parametrize("by", FETCHING)
def test_deaths_of_gateway_and_archive_under_a_fetch_lose_nothing_and_fetch_little_twice(
    house: House, by: str, say: Callable[[str], None]
):
    who = {"PatientID": f"P {by}", "PatientBirthDate": "19700101", "Modality": "OT"}
    study = generate_uid()
    series = [generate_uid(), generate_uid()]
    earlier = [image(study, series[n % 2], StudyDate="20250101", **who) for n in range(8)]
    offered, dead = Counter[str](), queue.Queue[Any]()
    deaths = {3: house.gateway, 6: house.archive}

    def under_way(event: Any, dataset: Dataset) -> None:
        offered[dataset.SOPInstanceUID] += 1
        victim = deaths.pop(len(offered), None)
        if victim is None:
            return
        victim.kill()
        dead.put(victim)
        if (victim is house.archive) == (by == "by-move"):
            raise ConnectionAbortedError  # who asked is gone, or whom it sends to
        if by == "by-move":  # its successor comes, asks what there is, and finds this job under way
            asked = len(house.legacy.asked)
            until(lambda: len(house.legacy.asked) > asked + 1)
            time.sleep(0.5)

    house.legacy.holds = earlier
    house.legacy.before_sending = under_way
    with house.legacy.listening():
        new = image(StudyDate="20260301", StudyID=by.upper(), **who)
        assert house.archive.send(new) == [0]
        for _ in range(2):
            dead.get(timeout=30).start()
        (fetch,) = eventually(lambda: house.deliveries(new.StudyInstanceUID, "delivered", "fetch"), 40)
    assert fetch.outcome == f"{by} has 1 earlier studies that are wanted; {study} came with 8 images"
    came = until(lambda: len(found := house.archive.events("stored", study_uid=study, cause="prefetch")) > 7 and found)
    assert sorted(one["sop_uid"] for one in came) == sorted(one.SOPInstanceUID for one in earlier)
    assert {one["remote_aet"] for one in came} == {"LEGACY" if by == "by-move" else "LEGACY_GET"}
    again = {uid: times - 1 for uid, times in offered.items() if times > 1}
    say(f"{by}: 2 deaths under 8 images; sent again: {sum(again.values())}")
    # Orthanc goes on with a C-MOVE whose gateway has died; a C-GET ends with its own, and, a tenth of a second after
    # nothing more can be stored, with the archive.
    assert sum(again.values()) <= (1 if by == "by-move" else 4)
    assert set(again.values()) <= {1}
    with house.gateway.sessions() as session:
        assert audit.verify(session) == []


def test_an_ordered_exam_has_the_patients_earlier_studies_here_before_its_images_come(house: House):
    who = {"PatientID": "P10", "PatientBirthDate": "19700101", "Modality": "BI"}
    yesterday = clock.now() - timedelta(days=1)
    house.legacy.holds = [image("1.2.10.1", StudyDate=f"{yesterday:%Y%m%d}", **who) for _ in range(3)]
    house.legacy.before_sending = lambda event, dataset: None
    with house.legacy.listening(), house.gateway.sessions.begin() as session:
        patient = orders.register_patient(
            session, patient_id="P10", issuer="HOSPITAL", family_name="Teste", birth_date="19700101", now=clock.now(),
            writer="ris",
        )  # fmt: skip
        wanted = orders.NewOrder(scheduled_at=clock.now() + timedelta(hours=3), modality="BI")
        order = orders.place_order(session, patient, wanted, now=clock.now(), site=Site(), writer="ris")
        study, order_id = order.study_uid, order.id
        session.commit()
        (fetch,) = eventually(lambda: house.deliveries(study, "delivered", "fetch"), 30)
    assert (fetch.rule, fetch.order_id) == ("ahead", order_id)
    assert fetch.outcome == "by-get has 1 earlier studies that are wanted; 1.2.10.1 came with 3 images"
    came = until(lambda: len(found := house.archive.events("stored", study_uid="1.2.10.1")) > 2 and found)
    assert {(one["cause"], one["reference"]) for one in came} == {("prefetch", f"prior of {study}")}


def stored(archive: Archive, study: str) -> list[dict[str, Any]]:
    return until(lambda: archive.as_service().find("Instance", {"StudyInstanceUID": study}, expand=True))


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
