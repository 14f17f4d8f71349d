"""The trail goes to a collector: nothing is left out, whatever the collector does; what was handed over was read."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operations.trail import collector as module
from operations.trail import shipping, standing
from operations.trail.collector import Collector, CollectorFailed
from operations.trail.shipping import Shipper
from tests import authority
from zambezi import audit, checkpoints, signing
from zambezi.audit_message import Source
from zambezi.config.settings import Audit, AuditCollector
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
FRAME = re.compile(rb"(\d+) (<\d+>1 .*?)(?=\d+ <\d+>1 |\Z)", re.DOTALL)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = authority.make(tmp_path_factory.mktemp("authority"))
    made.issue("collector", "serverAuth")
    made.issue("zambezi", "clientAuth")
    authority.make(made.folder / "strangers").issue("stranger", "clientAuth")
    return made.folder


@dataclass
class Peer:
    """A collector on loopback, in the ways in which one may behave."""

    folder: Path
    behaves: str = "well"
    got: bytearray = field(default_factory=bytearray)
    port: int = 0

    def settings(self, name: str = "zambezi", folder: str = "") -> AuditCollector:
        own = self.folder / folder / name
        return AuditCollector(
            host="localhost", port=self.port, ca_file=str(self.folder / "ca.crt"), certificate_file=f"{own}.crt",
            key_file=f"{own}.key",
        )  # fmt: skip

    @property
    def records(self) -> list[str]:
        found = FRAME.findall(bytes(self.got))
        assert all(int(length) == len(record) for length, record in found)
        return [record.decode() for _, record in found]

    @property
    def entries(self) -> list[tuple[str, int]]:
        found = [re.search(r"urn:zambezi:audit:([a-z]+):(\d+):", record) for record in self.records]
        return [(one[1], int(one[2])) for one in found if one]

    def serve(self, listening: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # newer Pythons want more of an authority than ours has
        context.load_cert_chain(self.folder / "collector.crt", self.folder / "collector.key")
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as tls:
                    self._take(tls)
            except OSError:
                plain.close()

    def _take(self, tls: ssl.SSLSocket) -> None:
        if self.behaves == "ends at once":
            return
        if self.behaves == "dies in the middle":
            self.got += tls.recv(1000)
            return
        while piece := tls.recv(65536):
            self.got += piece
        if self.behaves == "says goodbye":
            tls.unwrap()


@pytest.fixture
def peer(certificates: Path) -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Peer(certificates, port=listening.getsockname()[1])
        thread = threading.Thread(target=made.serve, args=(listening,), daemon=True)
        thread.start()
        yield made
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_S", 3.0)


class House:
    def __init__(self, url: str, peer: Peer) -> None:
        self.now = NOW
        self.engine = connect(url, "test")
        Base.metadata.create_all(self.engine)
        self.sessions = sessions(self.engine, "test")
        self.peer = peer
        self.name = f"localhost:{peer.port}"

    def record(self, number: int, chain: str = "ris") -> None:
        with self.sessions.begin() as session:
            for _ in range(number):
                audit.append(session, chain, "viewed", self.now, who="ana", study_uid="1.2.3")

    def shipper(self, settings: AuditCollector | None = None) -> Shipper:
        collector = Collector(settings or self.peer.settings(), Path("/nowhere"))
        return Shipper(self.sessions, self.sessions, collector, Source("Hospital", "pacs"), lambda: self.now)

    def state(self) -> shipping.State:
        with self.sessions() as session:
            return shipping.state(session, self.name)


@pytest.fixture
def house(tmp_path: Path, peer: Peer) -> Iterator[House]:
    made = House(f"sqlite:///{tmp_path}/z.db", peer)
    yield made
    made.engine.dispose()


@pytest.mark.parametrize("goodbye", ["well", "says goodbye"])
def test_every_entry_of_every_chain_arrives_once_and_in_order(house: House, goodbye: str, tmp_path: Path):
    house.peer.behaves = goodbye
    house.record(5)
    house.record(3, "gateway")
    with house.sessions.begin() as session:
        made = checkpoints.make(session, signing.current(tmp_path, "audit", "test", NOW), NOW)
    assert house.shipper().round() == 9
    assert house.peer.entries == [("gateway", n) for n in (1, 2, 3)] + [("ris", n) for n in (1, 2, 3, 4, 5)]
    assert house.peer.records[-1].endswith(made.to_json().decode())
    assert " ZAMBEZI+CHECKPOINT - " in house.peer.records[-1]
    assert (house.state().backlog, house.state().error, house.shipper().round()) == (0, "", 0)
    house.record(1)
    assert house.shipper().round() == 1
    assert house.peer.entries[-1] == ("ris", 6)


@pytest.mark.parametrize("fault", ["ends at once", "dies in the middle"])
def test_what_a_collector_did_not_read_is_sent_again(house: House, fault: str):
    house.record(400)
    house.peer.behaves = fault
    shipper = house.shipper()
    assert shipper.round() == 0
    assert (house.state().backlog, bool(house.state().error)) == (400, True)
    house.peer.behaves = "well"
    house.peer.got.clear()
    assert shipper.round() == 0, "a moment after a failure it is left alone"
    house.now += timedelta(minutes=1)
    assert shipper.round() == 400
    assert house.peer.entries == [("ris", n) for n in range(1, 401)]
    assert (house.state().backlog, house.state().error) == (0, "")


def _stranger(peer: Peer) -> AuditCollector:
    return peer.settings("stranger", "strangers")


def _nobody(peer: Peer) -> AuditCollector:
    return peer.settings().model_copy(update={"certificate_file": "", "key_file": ""})


def _another_authority(peer: Peer) -> AuditCollector:
    return peer.settings().model_copy(update={"ca_file": str(peer.folder / "strangers" / "ca.crt")})


def _another_name(peer: Peer) -> AuditCollector:
    return peer.settings().model_copy(update={"server_name": "somebody.else"})


def _nobody_listens(peer: Peer) -> AuditCollector:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return peer.settings().model_copy(update={"port": port})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (_stranger, "TLS|ended the connection|reset"), (_nobody, "TLS|ended the connection|reset"),
        (_another_authority, "its certificate can't be trusted"), (_another_name, "its certificate can't be trusted"),
        (_nobody_listens, "refused"),
    ],
)  # fmt: skip
def test_without_trust_on_both_sides_nothing_counts_as_handed_over(
    peer: Peer, settings: Callable[[Peer], AuditCollector], why: str
):
    with pytest.raises(CollectorFailed, match=f"(?i)^localhost:\\d+: .*({why})"):
        Collector(settings(peer), Path("/nowhere")).send([b"<85>1 - - - - - - x"])
    assert not peer.got


def test_a_key_that_others_may_read_is_refused(peer: Peer, tmp_path: Path):
    key = tmp_path / "own.key"
    key.write_bytes((peer.folder / "zambezi.key").read_bytes())
    key.chmod(0o644)
    with pytest.raises(CollectorFailed, match="others may read it"):
        Collector(peer.settings().model_copy(update={"key_file": str(key)}), tmp_path).send([])


def test_a_collector_that_is_away_is_a_condition_with_what_waits_and_over_when_it_is_back(house: House):
    house.record(3)
    settings = Audit(collector=house.peer.settings())
    shipper = house.shipper()
    house.peer.behaves = "ends at once"
    shipper.round()
    (found,) = standing.conditions(house.sessions, settings)
    assert (found.kind, found.source, found.facts["backlog"]) == ("collector-away", house.name, 3)
    with house.sessions() as session:
        said = standing.look(session, settings)
    assert f"collector {house.name}, told nothing yet, 3 entries wait" in said.lines[0]
    assert said.trouble.startswith("the audit collector got nothing since 2026-03-01T08:30:00, 3 entries wait: ")
    house.peer.behaves = "well"
    house.now += timedelta(minutes=1)
    shipper.round()
    assert standing.conditions(house.sessions, settings) == []
