"""Telling a station what is safe (N-EVENT-REPORT, DICOM PS3.4 J.3.3), on its own association or on one of ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.association import Association

from gateway.associations import Address
from gateway.commitment.requests import SOP_CLASS, SOP_INSTANCE
from zambezi.retries import ErrorClass

#: Event types (PS3.4 J.3.3.1): all instances are safe; there are some that aren't.
ALL_SAFE, SOME_FAILED = 1, 2

_CONNECT_S = 10
_ANSWER_S = 30
#: A station that asked something on its association a moment ago may be about to ask more: it is not interrupted.
_QUIET_S = 0.8
#: A-ASSOCIATE-RJ (PS3.8 9.3.4): rejected-permanent.
_PERMANENT = 0x01


class ReportFailed(Exception):
    """The station wasn't told; the text says why, for a person, and `kind` what helps."""

    def __init__(self, kind: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def information(
    transaction_uid: str, instances: Iterable[Sequence[str]], failed: Sequence[Sequence[Any]]
) -> tuple[int, Dataset]:
    """Event type and Event Information (PS3.4 table J.3-2).

    `instances` are all that were asked for as (SOP class, SOP instance); `failed` those of them that aren't safe, with
    the Failure Reason third.
    """
    told = Dataset()
    told.TransactionUID = transaction_uid
    lost = {(one[0], one[1]): int(one[2]) for one in failed}
    safe = [_reference(one[0], one[1]) for one in instances if (one[0], one[1]) not in lost]
    if safe:
        told.ReferencedSOPSequence = safe
    if not lost:
        return ALL_SAFE, told
    told.FailedSOPSequence = [_reference(*one, reason) for one, reason in lost.items()]
    return SOME_FAILED, told


class Busy(Exception):
    """The station's own association is in use: try again in a moment."""


class Askers:
    """The associations on which stations asked, as long as they keep them open; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Association] = {}
        self._used: dict[Association, float] = {}
        self._telling: set[Association | None] = set()

    def asked(self, aet: str, transaction_uid: str, association: Association) -> None:
        """A request came on this association."""
        with self._lock:
            self._open = {key: one for key, one in self._open.items() if one.is_established}
            self._used = {one: at for one, at in self._used.items() if one.is_established}
            self._open[aet, transaction_uid] = association
            self._used[association] = time.monotonic()

    @contextmanager
    def waiting(self, aet: str, transaction_uid: str) -> Iterator[Association | None]:
        """The association that still waits for this answer, for one attempt and one thread; None where there is none.

        Busy while something else goes over it, and for a moment after: who sends there at once loses answers.
        """
        key = (aet, transaction_uid)
        with self._lock:
            found = self._open.get(key)
            if found is not None and not found.is_established:
                found = None
            if found is not None and (found in self._telling or time.monotonic() - self._used[found] < _QUIET_S):
                raise Busy
            self._open.pop(key, None)
            self._telling |= {found} if found else set()
        try:
            yield found
        finally:
            with self._lock:
                self._telling.discard(found)
                if found is not None:
                    self._used[found] = time.monotonic()


def on_its_own(association: Association, event: int, told: Dataset) -> bool:
    """Tell it on the association on which it asked; whether it took it."""
    try:
        status, _ = association.send_n_event_report(told, event, SOP_CLASS, SOP_INSTANCE)
    except (RuntimeError, ValueError):  # it was closed in this moment
        return False
    return bool(status.get("Status") == 0)


def call(station: Address, event: int, told: Dataset) -> None:
    """Tell it on a new association to its address, on which we are the SCP; ReportFailed where it isn't told."""
    try:
        context = station.tls() if station.tls else None
    except OSError as error:
        why = f"{error.filename or 'certificate or key'}: {error.strerror or type(error).__name__}"
        raise ReportFailed(ErrorClass.CONFIGURATION, f"DicomTls.Calls.{station.name} can't be used ({why})") from error
    ae = AE(ae_title=station.our_aet)
    ae.connection_timeout = _CONNECT_S
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _ANSWER_S
    ae.add_requested_context(SOP_CLASS)
    # Stations that say nothing about roles are told all the same: many do, and take the report.
    role = build_role(SOP_CLASS, scp_role=True)
    tls: Any = (context, station.server_name or None) if context else None
    made = ae.associate(station.host, station.port, ae_title=station.aet, ext_neg=[role], tls_args=tls)
    place = f"{station.aet} at {station.host}:{station.port}{' over TLS' if context else ''}"
    if not made.is_established:
        raise _unreachable(made, place)
    try:
        status, _ = made.send_n_event_report(told, event, SOP_CLASS, SOP_INSTANCE)
    except (RuntimeError, ValueError) as error:
        raise ReportFailed(ErrorClass.TRANSIENT, f"{place} closed the association before it was told") from error
    finally:
        if made.is_established:
            made.release()
    answered = status.get("Status")
    if answered is None:
        raise ReportFailed(ErrorClass.TRANSIENT, f"{place} did not answer within {_ANSWER_S} s, or closed")
    if answered != 0:
        raise ReportFailed(ErrorClass.OBJECT, f"{place} answered 0x{answered:04X} to what it was told")


def _unreachable(made: Association, place: str) -> ReportFailed:
    if made.is_rejected:
        said: Any = made.acceptor.primitive
        words = f"{place} rejects our association: {said.reason_str}" if said else f"{place} rejects our association"
        lasting = said is not None and said.result == _PERMANENT
        return ReportFailed(ErrorClass.OBJECT if lasting else ErrorClass.TRANSIENT, words)
    if made.acceptor.primitive is not None and not made.accepted_contexts:
        return ReportFailed(ErrorClass.OBJECT, f"{place} takes no storage commitment reports")
    return ReportFailed(ErrorClass.TRANSIENT, f"{place} can't be reached")


def _reference(sop_class: str, sop_uid: str, reason: int | None = None) -> Dataset:
    one = Dataset()
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, sop_uid
    if reason is not None:
        one.FailureReason = reason
    return one
