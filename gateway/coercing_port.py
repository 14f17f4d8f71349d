"""The coercing port: C-STORE for senders that must be treated by their AE title, which Orthanc's hooks can't see.

Each image goes on to Orthanc by HTTP, byte by byte as it was received, in a file whose meta header names the sender
(zambezi.coercion.envelope). The plugin coerces it there by the same rules, so that what is changed, held, refused and
recorded is decided in one place. The sender gets Success once Orthanc has answered that it holds the image, never
before; whatever else happens is A700, and the sender sends again. Nothing is kept here.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from sqlalchemy.exc import DBAPIError

from gateway.coercing_admission import Gate
from gateway.handing_over import file_of
from gateway.refusals import CALLER_UNKNOWN, Refusals, reject
from zambezi import audit, clock
from zambezi.config.safety import Modality
from zambezi.database.engine import Sessions
from zambezi.orthanc_client import OrthancClient, OrthancError

log = logging.getLogger("zambezi.coercing")

WRITER = "gateway"

_VERIFICATION = "1.2.840.10008.1.1"
#: PS3.4 table B.2-1.
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, NOT_AUTHORIZED = 0x0000, 0xA700, 0xC000, 0x0124
#: So many images are given to Orthanc at once; a sender waits for its turn so long, then is told to send again.
AT_ONCE, TURN_S = 4, 60.0
#: Each holds an image in memory while it is received.
_ASSOCIATIONS = 20
_TIMEOUT_S = 60


class CoercingPort:
    """Listens from `start` to `stop`. `client` makes a connection to Orthanc at each call."""

    def __init__(
        self, sessions: Sessions, peers: Mapping[str, Modality], client: Callable[[], OrthancClient], ae_title: str,
        port: int, gate: Gate, now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        self._gate = gate
        self._sessions = sessions
        self._hosts = {peer.aet: peer.host for peer in peers.values()}
        self._storing = {peer.aet for peer in peers.values() if peer.may_store}
        self._now = now
        self._refusals = Refusals()
        self._clients: queue.Queue[OrthancClient] = queue.Queue()
        for _ in range(AT_ONCE):
            self._clients.put(client())
        self._ae = AE(ae_title=ae_title)
        self._ae.require_called_aet = True
        self._ae.maximum_associations = _ASSOCIATIONS
        self._ae.network_timeout = self._ae.dimse_timeout = self._ae.acse_timeout = _TIMEOUT_S
        self._ae.add_supported_context(_VERIFICATION)
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        self.port = port
        self._server: Any = None

    def start(self) -> None:
        """Listen; OSError where the port is taken."""
        handlers: list[Any] = [(evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._stored)]
        self._server = self._ae.start_server(("0.0.0.0", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._ae.shutdown()

    def _requested(self, event: evt.Event) -> None:
        primitive: Any = event.assoc.requestor.primitive
        caller = str(primitive.calling_ae_title).strip()
        address = str(event.assoc.requestor.address)
        if self._hosts.get(caller) == address:
            return
        reason = "the AE title is unknown" if caller not in self._hosts else "the AE title belongs to another address"
        reject(event, CALLER_UNKNOWN)
        self._refused(caller, address, reason)

    def _stored(self, event: evt.Event) -> int:
        caller, address = str(event.assoc.requestor.ae_title).strip(), str(event.assoc.requestor.address)
        if caller not in self._storing:
            self._refused(caller, address, "the peer may not store (AllowStore)")
            return NOT_AUTHORIZED
        content = file_of(event, caller, str(self._ae.ae_title).strip(), address)
        if not content:
            return CANNOT_UNDERSTAND
        verdict = self._gate.judge(content, caller)
        if verdict.action != "accept":
            self._refused(caller, address, verdict.reason)
            return verdict.status
        try:
            client = self._clients.get(timeout=TURN_S)
        except queue.Empty:
            log.warning("%s: no turn within %.0f s, the archive is slow; it is told to send again", caller, TURN_S)
            return OUT_OF_RESOURCES
        try:
            answer = client.store(content)
        except OrthancError as error:
            log.warning("%s: an image was not stored (%s); it is told to send again", caller, str(error)[:200])
            return OUT_OF_RESOURCES
        finally:
            self._clients.put(client)
        if answer.get("Status") not in ("Success", "AlreadyStored"):
            log.warning("%s: the archive answered %s; it is told to send again", caller, answer.get("Status"))
            return OUT_OF_RESOURCES
        return SUCCESS

    def _refused(self, caller: str, address: str, reason: str) -> None:
        log.warning("%s at %s refused: %s", caller, address, reason)
        times = self._refusals.due(f"{caller} {address} {reason}", self._now())
        if not times:
            return
        facts = {"aet": caller, "ip": address, "door": "coercing", "reason": reason, "times": times}
        try:
            with self._sessions.begin() as session:
                audit.append(session, WRITER, "refused", self._now(), **facts)
        except DBAPIError as error:
            log.warning("the refusal is not in the audit trail, the database is away: %s", type(error.orig).__name__)
