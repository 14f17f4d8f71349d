"""Associations of our own with a destination (PS3.8), watched: silence and a stop end them, whatever the peer does.

pynetdicom's own timeouts count from the moment at which a message is handed over, so a large image on a thin line
would never arrive. Here an association ends when nothing has gone over it in either direction for a while.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE

from gateway.sending import AttemptFailed, Closed, Interrupted
from zambezi import retries, retrieving
from zambezi.retries import ErrorClass
from zambezi.retrieving import LARGE_PDU, Ended, Rung

log = logging.getLogger("zambezi.associations")

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2)
COMMITMENT = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model (PS3.4 J.3)
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known SOP Instance
#: Transfer syntaxes for questions.
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
CONNECT_S = 15.0
#: So long nothing may go over an association, and so long a peer may take to answer.
SILENCE_S = 60.0
_LOOK_S = 0.1
_PENDING = (0xFF00, 0xFF01)
#: A-ASSOCIATE-RJ (PS3.8 9.3.4), rejected by the service user for good: what is to be put right.
_REJECTED = {
    2: "it doesn't know the application context",
    3: "it doesn't know our AE title",
    7: "its AE title is another one",
}
#: Octets may go over the line; says how many seconds to wait then.
Owes = Callable[[int], float]


@dataclass(frozen=True)
class Address:
    """Whom to call, as whom, and how."""

    name: str  # ours, for words
    aet: str
    host: str
    port: int
    our_aet: str
    tls: Callable[[], ssl.SSLContext] | None = None  # made anew each time, so that a renewed certificate counts
    server_name: str = ""


@dataclass(frozen=True)
class Inbound:
    """What comes to us on an association that we have made, by C-GET."""

    sop_classes: Collection[str]
    stored: Callable[[Any], int]  # answers the C-STORE of each
    owes: Owes
    may_go_on: Callable[[], bool]  # where not, the association is cut in the middle of an object


class Talk:
    """An association that was accepted."""

    def __init__(self, address: Address, association: Any, watch: _Watch) -> None:
        self._address = address
        self._association = association
        self._watch = watch
        self._number = 0
        self._is_alone = False

    def accepted(self, sop_class: str) -> dict[str, int]:
        """The transfer syntaxes in which the peer takes a SOP class, and the presentation context of each."""
        return {
            str(context.transfer_syntax[0]): context.context_id
            for context in self._association.accepted_contexts
            if context.abstract_syntax == sop_class
        }

    def store(self, context_id: int, sop_class: str, sop_uid: str, body: bytes) -> int:
        """C-STORE of a data set that is encoded as the context asks; the status. AttemptFailed where none came."""
        self._alone()
        self._number = self._number % 0xFFFF + 1
        request = C_STORE()
        request.MessageID, request.Priority = self._number, 0
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_uid
        request.DataSet = BytesIO(body)
        self._association.dimse.send_msg(request, context_id)
        _, answer = self._association.dimse.get_msg(block=True)
        if answer is None or not answer.is_valid_response:
            raise self._lost("in mid-study")
        return int(answer.Status)

    def find(self, query: Dataset) -> list[Dataset]:
        """C-FIND on the study root; the answers. AttemptFailed where they don't end with success."""
        self._settled()
        found = []
        for status, identifier in self._association.send_c_find(query, FIND):
            if "Status" not in status:
                raise self._lost("while it was asked what it has")
            if status.Status in _PENDING and identifier is not None:
                found.append(identifier)
            elif (kind := retries.of_dimse("query", status.Status)) is not None:
                words = f"{self._address.name} does not answer to a query: status 0x{status.Status:04X}"
                raise AttemptFailed(kind, words)
        return found

    def get(self, rung: Rung, keys: Mapping[str, str]) -> Ended:
        """C-GET; how it ended. AttemptFailed where it didn't, Closed where it may not go on."""
        self._settled()
        try:
            ended = retrieving.ask(self._association, rung, keys)
        except ValueError as error:
            raise AttemptFailed(ErrorClass.CONFIGURATION, f"{self._address.name} takes no C-GET from us") from error
        except RuntimeError as error:
            raise self._lost("before it was asked") from error
        if ended.status == -1 or ended.status in _PENDING:
            raise self._lost("while it was sending to us")
        return ended

    def ask_commitment(self, information: Dataset) -> int:
        """N-ACTION, request storage commitment (PS3.4 J.3.2); the status. AttemptFailed where none came."""
        self._settled()
        status, _ = self._association.send_n_action(information, 1, COMMITMENT, _COMMITMENT_INSTANCE)
        if "Status" not in status:
            raise self._lost("while it was asked to commit itself")
        return int(status.Status)

    def _alone(self) -> None:
        """From now on answers are ours: pynetdicom's own thread, which would serve what the peer asks, rests."""
        if not self._is_alone:
            self._settled()
            self._association._reactor_checkpoint.clear()
            while not self._association._is_paused:
                time.sleep(0.001)
            self._is_alone = True

    def _settled(self) -> None:
        # pynetdicom's thread, when it wakes late from the last exchange, would take this one's answer away.
        while self._association._is_paused and self._association.is_alive() and self._association.is_established:
            time.sleep(0.0005)

    def _lost(self, when: str) -> AttemptFailed | Interrupted:
        if self._watch.stopped:
            return Interrupted("the gateway stops")
        if self._watch.was_ended:
            return Closed()
        why = f"was silent for {self._watch.silence_s:g} s" if self._watch.was_silent else "ended the association"
        return AttemptFailed(ErrorClass.TRANSIENT, f"{self._address.name} {why} {when}")


@contextmanager
def calling(
    address: Address, contexts: Sequence[tuple[str, Sequence[str]]], stop: threading.Event,
    owes: Owes = lambda size: 0, silence_s: float = SILENCE_S, report: Callable[[Any], Any] | None = None,
    inbound: Inbound | None = None,
) -> Iterator[Talk]:  # fmt: skip
    """An association with these presentation contexts (SOP class, transfer syntaxes), at most 128 of them.

    `report` answers an N-EVENT-REPORT that comes on this association, `inbound` what is sent to us there.
    AttemptFailed where none is made.
    """
    context = _tls(address)
    entity = AE(address.our_aet)
    entity.connection_timeout, entity.acse_timeout = min(CONNECT_S, silence_s), silence_s
    entity.dimse_timeout = entity.network_timeout = None  # _Watch
    watch = _Watch(stop, owes, silence_s, inbound)
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, watch.opened), (evt.EVT_DATA_SENT, watch.sent), (evt.EVT_DATA_RECV, watch.received),
    ]  # fmt: skip
    if report is not None:
        handlers.append((evt.EVT_N_EVENT_REPORT, report))
    if inbound is not None:
        handlers.append((evt.EVT_C_STORE, inbound.stored))
        entity.maximum_pdu_size = LARGE_PDU
    tls: Any = (context, address.server_name or None) if context else None
    association: Any = entity.associate(
        address.host, address.port, ae_title=address.aet, evt_handlers=handlers,
        contexts=[build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts],
        tls_args=tls, ext_neg=[build_role(one, scp_role=True) for one in inbound.sop_classes] if inbound else None,
    )  # fmt: skip
    try:
        if not association.is_established:
            raise _refused(address, association, context, stop)
        watch.start()
        yield Talk(address, association, watch)
    finally:
        if watch.is_alive() or watch.has_cut:
            if association.is_established and not watch.has_cut:
                association.release()
            watch.end()
            association._reactor_checkpoint.set()
        if association.is_alive() and not association.is_released:
            watch.cut()
            association.abort()


class _Watch(threading.Thread):
    """Ends an association that is silent, or when the process stops; slows it where its line has a cap."""

    def __init__(
        self, stop: threading.Event, owes: Owes, silence_s: float, inbound: Inbound | None = None
    ) -> None:  # fmt: skip
        super().__init__(name="association", daemon=True)
        self.silence_s = silence_s
        self.was_silent = self.was_ended = False
        self._inbound = inbound
        self._stop_asked = stop
        self._owes = owes
        self._over = threading.Event()
        self._socket: socket.socket | None = None
        self._last = time.monotonic()
        self._is_owing = False

    @property
    def stopped(self) -> bool:
        return self._stop_asked.is_set()

    @property
    def has_cut(self) -> bool:
        return self.was_silent or self.stopped or self.was_ended

    def run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.was_silent = not self._is_owing and time.monotonic() - self._last > self.silence_s
            self.was_ended = self._inbound is not None and not self._inbound.may_go_on()
            if self.has_cut:
                self.cut()
                return

    def cut(self) -> None:
        """pynetdicom may hang in a send to a peer that reads no more; this lets it go."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection was gone already")

    def end(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join()

    def opened(self, event: evt.Event) -> None:
        connection: Any = event.assoc.dul.socket
        self._socket = made = connection.socket
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last = time.monotonic()

    def sent(self, event: evt.Event) -> None:
        """Called by the thread that sends, which therefore waits as long as this does."""
        self._wait(self._owes(len(event.data)))

    def received(self, event: evt.Event) -> None:
        """Called by the thread that reads: while it waits, so must the peer."""
        self._wait(self._inbound.owes(len(event.data)) if self._inbound else 0)

    def _wait(self, seconds: float) -> None:
        self._is_owing = True
        self._stop_asked.wait(seconds)
        self._last = time.monotonic()
        self._is_owing = False


def _tls(address: Address) -> ssl.SSLContext | None:
    try:
        return address.tls() if address.tls else None
    except OSError as error:
        why = error.strerror or type(error).__name__
        what = f"{address.name}: the files of Tls can't be used ({error.filename or 'certificate or key'}: {why})"
        raise AttemptFailed(ErrorClass.CONFIGURATION, what) from error


def _refused(
    address: Address, association: Any, context: ssl.SSLContext | None, stop: threading.Event
) -> AttemptFailed | Interrupted:
    """Why there is no association, in words."""
    name = address.name
    if stop.is_set():
        return Interrupted("the gateway stops")
    if association.is_rejected:
        answer = association.acceptor.primitive
        for_good = answer.result == 1 and answer.result_source == 1 and answer.diagnostic in _REJECTED
        kind = ErrorClass.CONFIGURATION if for_good else ErrorClass.TRANSIENT
        why = _REJECTED[answer.diagnostic] if for_good else f"{answer.reason_str}".lower()
        return AttemptFailed(kind, f"{name} refuses the association: {why}")
    if association.rejected_contexts and not association.accepted_contexts:
        classes = sorted({context.abstract_syntax.name for context in association.rejected_contexts})
        return AttemptFailed(ErrorClass.OBJECT, f"{name} takes none of: {', '.join(classes)}")
    return _no_way(address, context)


def _no_way(address: Address, context: ssl.SSLContext | None) -> AttemptFailed:
    """pynetdicom doesn't say why a connection failed, so it is tried once more for the reason alone."""
    place = f"{address.name} at {address.host}:{address.port}"
    try:
        with socket.create_connection((address.host, address.port), timeout=CONNECT_S) as plain:
            if context is not None:
                context.wrap_socket(plain, server_hostname=address.server_name or None).close()
    except OSError as error:
        why = getattr(error, "verify_message", "") or error.strerror or type(error).__name__
        return AttemptFailed(retries.of_os(error), f"no connection with {place}: {why}")
    return AttemptFailed(ErrorClass.TRANSIENT, f"{place} ended the association before it began")
