"""Messages out, to a peer on loopback that answers what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from gateway.hl7.mllp import Framer, frame
from gateway.hl7.sender import Sender
from zambezi import breakers, outbox
from zambezi.config.settings import Hl7Peer, Site
from zambezi.database.tables import Delivery, ExceptionItem
from zambezi.hl7.read import read


class Peer:
    """Listens on a port of its own and acknowledges with `code` (and `error`, an ERR-3.1); hangs up where it is ""."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.code, self.error = "AA", ""
        self.got: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._talk, args=[self.server.accept()[0]], daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        framer = Framer(1 << 20)
        with line, suppress(OSError):
            while data := line.recv(65536):
                for message in framer.feed(data):
                    control = read(message).control_id
                    self.got.append(control)
                    if not self.code:
                        return
                    error = f"ERR|||{self.error}^x^HL70357|E\r" if self.error else ""
                    line.sendall(
                        frame(f"MSH|^~\\&|HIS||Z||||ACK|1|P|2.5.1\rMSA|{self.code}|{control}\r{error}".encode())
                    )


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.server.close()


@pytest.fixture
def watch(now) -> list[datetime]:
    return [now]


@pytest.fixture
def sender(made, peer, watch, now) -> Sender:
    with made.begin() as session:
        for n in range(8):
            id = f"{n}".ljust(32, "0")
            outbox.add(
                session, id=id, kind="hl7", rule="tell", destination="his", because="it must", now=now,
                writer="gateway", study_uid=f"1.2.{n}",
                body=f"MSH|^~\\&|Z||HIS||||ORM^O01|{outbox.control_id(id)}|P|2.5.1\r".encode(),
            )  # fmt: skip
    settings = Hl7Peer(application="HIS", host="127.0.0.1", port=peer.port, refusals=2, break_after=3)
    return Sender(made, "his", settings, Site(), "host:1/run", threading.Event(), lambda: watch[0], lambda: 0.0)


def states(made) -> list[str]:
    with made.begin() as session:
        return [row.state for row in session.query(Delivery).order_by(Delivery.id)]


def send_all(sender) -> None:
    while sender.send_one():
        pass


def test_what_is_acknowledged_is_delivered(made, sender, peer):
    send_all(sender)
    assert states(made) == ["delivered"] * 8
    assert len(peer.got) == 8


def test_a_message_that_the_peer_refuses_is_tried_twice_and_parked_while_the_others_go_on(made, sender, peer, watch):
    peer.code = "AE"
    sender.send_one()
    peer.code = "AA"
    send_all(sender)
    assert states(made) == ["retrying", *["delivered"] * 7]
    peer.code = "AE"
    watch[0] += timedelta(minutes=1)
    send_all(sender)
    assert states(made) == ["parked", *["delivered"] * 7]
    with made.begin() as session:
        assert session.query(ExceptionItem).one().facts["error"] == "object"
        assert breakers.paused(session) == []


def test_a_peer_that_hangs_up_is_paused_and_the_rest_waits_without_an_attempt(made, sender, peer, watch):
    peer.code = ""
    send_all(sender)
    assert len(peer.got) == 3
    assert states(made) == [*["retrying"] * 3, *["due"] * 5]
    watch[0] += timedelta(seconds=15)
    peer.code = "AA"
    send_all(sender)
    assert states(made) == ["delivered"] * 8


def test_a_peer_that_knows_no_version_of_ours_is_paused_at_once_with_one_item_for_a_person(made, sender, peer, watch):
    peer.code, peer.error = "AR", "203"
    for _ in range(5):
        send_all(sender)
        watch[0] += timedelta(minutes=10)
    assert sorted(states(made)) == [*["due"] * 3, "parked", *["retrying"] * 4]
    with made.begin() as session:
        assert sorted(item.room for item in session.query(ExceptionItem)) == ["delivery", "neighbour"]


def test_what_a_dead_worker_was_sending_is_taken_over_and_counted(made, sender, peer, watch, now):
    with made.begin() as session:
        outbox.claim(
            session, "hl7", now=now, owner="dead", lease=timedelta(seconds=5), writer="gateway", destination="his"
        )
    watch[0] = now + timedelta(seconds=5)
    send_all(sender)
    assert states(made) == ["delivered"] * 8
    assert sender.taken_over == 1
