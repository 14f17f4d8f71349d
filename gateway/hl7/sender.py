"""HL7 out: one thread a peer takes messages from the outbox and waits for each one's acknowledgement.

In the order in which they were made, as far as they are about the same study. A message that is sent twice
(the process died between ACK and commit) carries the same control id, by which the peer knows it.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from gateway.hl7.mllp import FrameFault, Framer, frame
from zambezi import breakers, clock, outbox, retries, windows
from zambezi.breakers import Pass
from zambezi.config.settings import Hl7Peer, Site
from zambezi.database.engine import Sessions
from zambezi.hl7.ack import Answer, answer
from zambezi.hl7.read import Unreadable, read
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.retries import ErrorClass

log = logging.getLogger("zambezi.hl7.out")

WRITER = "gateway"
CONNECT_S = 5.0
ANSWER_S = 20.0
#: Its breaker pauses all peers while a disk of ours is full.
QUEUE = "queue:hl7"
LEASE = timedelta(seconds=60)
POLL_S = 1.0
LARGEST_ANSWER = 1024 * 1024


class PeerAway(Exception):
    """No acknowledgement came: the peer is down, or what answers there isn't HL7. The text says which."""

    def __init__(self, text: str, kind: ErrorClass = ErrorClass.TRANSIENT) -> None:
        super().__init__(text)
        self.kind = kind


class Line:
    """A connection to a peer, opened when needed and kept while messages go out."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._socket: socket.socket | None = None
        self._framer = Framer(LARGEST_ANSWER)

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def ask(self, message: bytes) -> bytes:
        """Send a message and give back the answer; PeerAway (and a closed connection) where none comes."""
        try:
            connected = self._socket or self._connected()
            connected.settimeout(ANSWER_S)
            connected.sendall(frame(message))
            while True:
                data = connected.recv(65536)
                if not data:
                    raise PeerAway("it closed the connection without an acknowledgement")
                for one in self._framer.feed(data):
                    return one
        except TimeoutError:
            self.close()
            raise PeerAway("no acknowledgement within the time") from None
        except OSError as error:
            self.close()
            raise PeerAway(error.strerror or type(error).__name__, retries.of_os(error)) from None
        except (FrameFault, PeerAway) as error:
            self.close()
            raise PeerAway(str(error)) from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        self._socket = socket.create_connection(self._place, timeout=CONNECT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._framer = Framer(LARGEST_ANSWER)
        return self._socket


class Sender(threading.Thread):
    """Sends what is due to one peer until `stop` is set."""

    def __init__(
        self, sessions: Sessions, name: str, peer: Hl7Peer, site: Site, owner: str, stop: threading.Event,
        now: Callable[[], datetime] = clock.now, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        super().__init__(name=f"hl7-out-{name}")
        self._sessions = sessions
        self._peer_name = name
        self._peer = peer
        self._owner = f"{owner}/{self.name}"[:80]
        self._stop_asked = stop
        self._now = now
        self._site = site
        self._draw = draw
        self._look = outbox.look("hl7", name)
        self._line = Line(peer.host, peer.port)
        self._neighbour = breakers.Neighbour(f"hl7:{name}", QUEUE, breakers.Rule(peer.break_after, peer.policy), WRITER)
        self.error = ""
        self.taken_over = 0

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if not self.send_one():
                    self._line.close()
                    self._stop_asked.wait(POLL_S)
            except DBAPIError as error:
                self.error = outbox.database_trouble(error)
                log.warning("%s: %s", self._peer_name, self.error)
                self._stop_asked.wait(POLL_S * 5)
            except Exception as error:  # edge of the thread: one odd message must not end all sending
                self.error = f"{type(error).__name__} while sending"
                log.exception("%s: a message could not be sent", self._peer_name)
                self._stop_asked.wait(POLL_S * 5)
        self._line.close()

    def send_one(self) -> bool:
        """Send the message that has waited longest; False where none is due, or the peer isn't asked now."""
        now = self._now()
        if not windows.is_open(self._peer.windows, now, self._site.zone, self._site.holidays):
            return False
        if not self._look(self._sessions, now):
            return False
        with self._sessions.begin() as session:
            entry = self._neighbour.enter(session, now, LEASE)
            if entry is None:
                return False
            claimed = outbox.claim(
                session, "hl7", now=now, owner=self._owner, lease=LEASE, writer=WRITER, destination=self._peer_name
            )
            if claimed is None:
                session.rollback()  # nothing to do: a probe isn't taken for it
                return False
        delivery, held = claimed
        self.taken_over += bool(held.taken_from)
        try:
            with Keeper(self._sessions, held, self._now, LEASE, partial(self._hold, entry)):
                said = self._asked(delivery.body or b"", outbox.control_id(delivery.id))
        except PeerAway as error:
            words = f"no acknowledgement from {self._peer.host}:{self._peer.port}: {error}"
            self._settle(held, partial(self._failed, held, entry, error.kind, words))
            return True
        kind = retries.of_ack(said.code, said.error)
        if kind is None:
            self._settle(held, partial(self._delivered, held, entry, said.code))
        else:
            words = f"{self._peer_name} answered {said.code or 'without MSA-1'}: {said.text or '(no reason)'}"
            self._settle(held, partial(self._failed, held, entry, kind, words))
        return True

    def _hold(self, entry: Pass, session: Session) -> None:
        breakers.hold(session, entry, now=self._now(), lasting=LEASE)

    def _asked(self, body: bytes, control: str) -> Answer:
        try:
            said = answer(read(self._line.ask(body)))
        except Unreadable as error:
            self._line.close()
            raise PeerAway(f"its acknowledgement can't be read: {error}") from None
        if said.control_id and said.control_id != control:
            self._line.close()
            raise PeerAway("it acknowledged another message")
        return said

    def _delivered(self, held: Lease, entry: Pass, code: str, session: Session) -> None:
        now = self._now()
        self._neighbour.answered(session, entry, now)
        outcome = f"{self._peer_name} answered {code}"
        outbox.delivered(session, held, proof="acknowledged", outcome=outcome, now=now, writer=WRITER)
        self.error = ""

    def _failed(self, held: Lease, entry: Pass, kind: ErrorClass, words: str, session: Session) -> None:
        self.error = words
        now, draw = self._now(), self._draw()
        self._neighbour.failed(session, entry, kind, words, now, draw)
        decided = outbox.failed(
            session, held, kind=kind, outcome=words, policy=self._peer.policy, draw=draw, now=now, writer=WRITER,
            is_probe=self._neighbour.name in entry.probes,
        )  # fmt: skip
        log.warning("%s: delivery %s: %s: %s (%s)", self._peer_name, held.id, kind, words, decided.state)

    def _settle(self, held: Lease, act: Callable[[Session], None]) -> None:
        try:
            with self._sessions.begin() as session:
                act(session)
        except Fenced as error:
            log.warning("%s", error)
