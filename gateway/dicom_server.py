"""The RIS node for modalities, on the mpps port, for AE titles from their own addresses.

MPPS, worklist, storage commitment and echo. Destinations that were asked for storage commitment report here, to
whatever AE title they were asked by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from gateway import modality_worklist, mpps
from gateway.associations import COMMITMENT
from gateway.callers import Callers
from gateway.commitment import requests
from gateway.commitment.reporting import Askers
from gateway.commitments_asked import Commitments
from gateway.refusals import CALLED_UNKNOWN, CALLER_UNKNOWN, Refusals, reject
from zambezi import audit, clock, worklist
from zambezi.config.safety import Modality
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions

log = logging.getLogger("zambezi.modalities")

WRITER = "gateway"

#: SOP classes offered (PS3.6): Verification, Modality Performed Procedure Step, Modality Worklist - FIND, Storage
#: Commitment Push Model.
OFFERED = ("1.2.840.10008.1.1", "1.2.840.10008.3.1.2.3.3", worklist.FIND_SOP_CLASS, requests.SOP_CLASS)

#: Uncompressed ones; not the deflated one, of which a few bytes become gigabytes.
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")

AE_TITLE = "ZAMBEZI"
PENDING = 0xFF00
CANCELLED = 0xFE00
UNABLE_TO_PROCESS = 0xC001
_TIMEOUT_S = 60
_ASSOCIATIONS = 100


class DicomServer:
    """Listens from `start` to `stop`; pynetdicom gives each association a thread."""

    def __init__(
        self, sessions: Sessions, settings: Zambezi, modalities: Mapping[str, Modality], port: int,
        commitments: Commitments, ae_title: str = AE_TITLE, now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._settings = settings
        self._hosts = {peer.aet: peer.host for peer in modalities.values()}
        self._now = now
        self._refusals = Refusals()
        #: Who waits on its own association to be told whether its images are safe.
        self.askers = Askers()
        #: When each modality called last, for MPPS, its worklist or an echo; since we started.
        self.seen: dict[str, str] = {}
        self.callers = Callers()
        self._ae = AE(ae_title=ae_title)
        self._called = {ae_title, *(one.aet for one in settings.destinations.values() if one.aet)}
        self._commitments = commitments
        self._ae.maximum_associations = _ASSOCIATIONS
        self._ae.network_timeout = self._ae.dimse_timeout = self._ae.acse_timeout = _TIMEOUT_S
        for sop_class in OFFERED:
            roles = {"scu_role": True, "scp_role": True} if sop_class == COMMITMENT else {}
            self._ae.add_supported_context(sop_class, list(SYNTAXES), **roles)
        self.port = port
        self._server: Any = None

    def start(self) -> None:
        """Listen; OSError where the port is taken."""
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested), (evt.EVT_N_CREATE, self._created), (evt.EVT_N_SET, self._changed),
            (evt.EVT_C_FIND, self._asked), (evt.EVT_C_ECHO, self._echoed), (evt.EVT_N_ACTION, self._commitment_asked),
            (evt.EVT_N_EVENT_REPORT, self._commitments.reported),
        ]  # fmt: skip
        self._server = self._ae.start_server(("0.0.0.0", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._ae.shutdown()

    def _requested(self, event: evt.Event) -> None:
        primitive: Any = event.assoc.requestor.primitive
        caller, called = (str(one).strip() for one in (primitive.calling_ae_title, primitive.called_ae_title))
        address = str(event.assoc.requestor.address)
        at = clock.text(self._now())
        if self._hosts.get(caller) == address and called in self._called:
            self.seen[caller] = at
            self.callers.note(caller, address, "associated", at, called_aet=called)
            return
        rejection, reason = CALLER_UNKNOWN, "the AE title belongs to another address"
        if caller not in self._hosts:
            reason = "the AE title is unknown"
        elif self._hosts[caller] == address:
            rejection, reason = CALLED_UNKNOWN, "it calls an AE title that is not ours"
        reject(event, rejection)
        self.callers.note(caller, address, "refused", at, called_aet=called, reason=reason)
        log.warning("%s at %s refused: %s", caller, address, reason)
        times = self._refusals.due(f"{caller} {address}", self._now())
        if times:
            facts = {"aet": caller, "ip": address, "door": "mpps", "reason": reason, "times": times}
            self._commit(lambda session: audit.append(session, WRITER, "refused", self._now(), **facts))

    def _sign(self, event: evt.Event, sign: str) -> None:
        self.callers.note(_caller(event), str(event.assoc.requestor.address), sign, clock.text(self._now()))

    def _echoed(self, event: evt.Event) -> int:
        self._sign(event, "echo")
        return mpps.SUCCESS

    def _created(self, event: evt.Event) -> tuple[int, Dataset | None]:
        self._sign(event, "mpps")
        request: Any = event.request
        sop_uid = str(request.AffectedSOPInstanceUID or "")
        if not sop_uid:
            return mpps.MISSING_ATTRIBUTE, None
        attributes, caller = event.attribute_list, _caller(event)
        status = self._commit(lambda session: mpps.create(session, sop_uid, attributes, caller, self._now()))
        log.info("MPPS %s begun by %s: 0x%04x", sop_uid, caller, status)
        return status, attributes if status == mpps.SUCCESS else None

    def _changed(self, event: evt.Event) -> tuple[int, Dataset | None]:
        self._sign(event, "mpps")
        request: Any = event.request
        sop_uid = str(request.RequestedSOPInstanceUID or "")
        changes = event.modification_list
        status = self._commit(lambda session: mpps.change(session, sop_uid, changes, self._now()))
        log.info("MPPS %s changed by %s: 0x%04x", sop_uid, _caller(event), status)
        return status, changes if status == mpps.SUCCESS else None

    def _commitment_asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        request: Any = event.request
        association: Any = event.assoc.requestor.primitive
        caller, called = _caller(event), str(association.called_ae_title).strip()
        self._sign(event, "commitment")
        try:
            information = event.action_information
            asked = requests.read(request.ActionTypeID, str(request.RequestedSOPInstanceUID or ""), information)
        except requests.Unacceptable as fault:
            log.warning("storage commitment asked by %s can't be taken: %s", caller, fault)
            return fault.status, None
        except Exception as error:  # noqa: BLE001  edge of the request: pydicom reads late and raises what it likes
            log.warning("storage commitment asked by %s can't be read (%s)", caller, type(error).__name__)
            return requests.INVALID_ARGUMENT, None
        status = self._commit(lambda session: requests.take(session, asked, caller, called, self._now()))
        if status == requests.SUCCESS:
            self.askers.asked(caller, asked.transaction_uid, event.assoc)
        log.info("storage commitment of %d instances asked by %s: 0x%04x", len(asked.instances), caller, status)
        return status, None

    def _asked(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self._sign(event, "worklist")
        caller, query, now = _caller(event), event.identifier, self._now()
        try:
            with self._sessions.begin() as session:
                zone = self._settings.site.zone
                entries = worklist.entries(session, self._settings.worklist, zone, now)
                found = modality_worklist.answers(entries, query, caller)
                audit.append(
                    session, WRITER, "queried", now,
                    aet=caller, ip=str(event.assoc.requestor.address), kind="worklist", answers=len(found),
                )  # fmt: skip
        except DBAPIError as error:
            # An empty list would be a lie: the station is told that the question failed.
            log.warning("%s asked for its worklist; the database is away (%s)", caller, type(error.orig).__name__)
            yield UNABLE_TO_PROCESS, None
            return
        for answer in found:
            if event.is_cancelled:
                yield CANCELLED, None
                return
            yield PENDING, answer

    def _commit(self, act: Callable[[Session], Any]) -> int:
        """Run `act` in a transaction; its status once that is committed, else Processing Failure."""
        for last in (False, True):
            try:
                with self._sessions.begin() as session:
                    status = act(session)
                return status if isinstance(status, int) else mpps.SUCCESS
            except IntegrityError as error:
                # Two of the same at once: the second look finds the first's.
                if last:
                    log.warning("not committed: %s", type(error.orig).__name__)
            except DBAPIError as error:
                log.warning("not committed, the database is away: %s", type(error.orig).__name__)
                break
        return mpps.PROCESSING_FAILURE


def _caller(event: evt.Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()
