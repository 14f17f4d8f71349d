"""Storage commitment as a user (PS3.4 J): destinations are asked, and their reports come whenever they like.

A question is in the database before it is asked, and so is a report before it is answered: neither end of it
depends on a process living. A report comes on the association of the question or on one of the destination's own, to
the gateway's DICOM port.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.config.safety import Modality
from zambezi.database.engine import Sessions
from zambezi.database.tables import CommitmentAsked, Delivery

log = logging.getLogger("zambezi.commitments")

_SUCCESS, _PROCESSING_FAILURE, _NO_SUCH_INSTANCE = 0x0000, 0x0110, 0x0112
#: Failure Reason (PS3.3 C.14.1.1).
_REASONS = {
    0x0110: "processing failure",
    0x0112: "it has no such instance",
    0x0119: "another SOP class than it knows",
    0x0122: "it doesn't take this SOP class",
    0x0131: "it has had this request before",
    0x0213: "it has no room",
}


@dataclass(frozen=True)
class Asked:
    """An open question: until when it is waited for, and what was answered, if it was."""

    transaction_uid: str
    until: datetime
    is_answered: bool
    committed: frozenset[str]
    failures: Mapping[str, str]  # SOP Instance UID -> why not


class Commitments:
    """The questions to destinations, and their answers."""

    def __init__(
        self, sessions: Sessions, modalities: Mapping[str, Modality], now: Callable[[], datetime] = clock.now
    ) -> None:
        self._sessions = sessions
        self._hosts = {peer.aet: peer.host for peer in modalities.values()}
        self._now = now
        self._told = threading.Condition()
        self._reports = 0

    @property
    def reports(self) -> int:
        """How many came to this process."""
        return self._reports

    def wait(self, reports: int, seconds: float) -> None:
        """Until more than `reports` have come, or so long."""
        with self._told:
            self._told.wait_for(lambda: self._reports > reports, seconds)

    def open(self, delivery_id: str) -> Asked | None:
        """The question about a delivery that was not closed yet."""
        with self._sessions.begin() as session:
            row = session.scalars(
                select(CommitmentAsked)
                .where(CommitmentAsked.delivery_id == delivery_id, CommitmentAsked.closed_at.is_(None))
                .order_by(CommitmentAsked.asked_at.desc())
                .limit(1)
            ).first()
            if row is None:
                return None
            return Asked(
                row.transaction_uid, clock.parse(row.until), row.answered_at is not None, frozenset(row.committed),
                dict(row.failures),
            )  # fmt: skip

    def begin(self, delivery_id: str, aet: str, lasting: timedelta) -> str:
        """Write a question down; its Transaction UID."""
        uid, now = str(generate_uid(prefix=None)), self._now()
        with self._sessions.begin() as session:
            session.add(
                CommitmentAsked(
                    transaction_uid=uid, delivery_id=delivery_id, aet=aet, asked_at=clock.text(now),
                    until=clock.text(now + lasting), committed=[], failures=[],
                )
            )  # fmt: skip
        return uid

    def close(self, transaction_uid: str) -> None:
        """The answer was taken, or isn't waited for any more."""
        with self._sessions.begin() as session:
            row = session.get_one(CommitmentAsked, transaction_uid)
            row.closed_at = clock.text(self._now())

    def reported(self, event: Any) -> tuple[int, Dataset | None]:
        """N-EVENT-REPORT (PS3.4 J.3.3): write the answer down, then say so; the status."""
        association = event.assoc
        other = association.requestor if association.is_acceptor else association.acceptor
        aet = str(other.ae_title).strip()
        try:
            with self._sessions.begin() as session:
                status = take(session, aet, event.event_information, self._hosts, self._now())
        except DBAPIError as error:
            log.warning("%s reported a commitment; the database is away (%s)", aet, type(error.orig).__name__)
            status = _PROCESSING_FAILURE
        log.info("%s reported a commitment: 0x%04x", aet, status)
        with self._told:
            self._reports += 1
            self._told.notify_all()
        return status, None


def question(transaction_uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    """Action Information of the request for (SOP class, SOP Instance UID)s (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for sop_class, sop_uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
        information.ReferencedSOPSequence.append(item)
    return information


def take(session: Session, aet: str, report: Dataset, hosts: Mapping[str, str], now: datetime) -> int:
    """Write a report down and let its delivery go on; the status to answer.

    Only who was asked may answer, or another AE title of the same machine.
    """
    row = session.get(CommitmentAsked, str(report.get("TransactionUID", "")))
    if row is None or (aet != row.aet and (aet not in hosts or hosts[aet] != hosts.get(row.aet))):
        return _NO_SUCH_INSTANCE
    if row.answered_at is not None:
        return _SUCCESS  # told twice: the first word was taken
    at = clock.text(now)
    row.committed = [str(one.ReferencedSOPInstanceUID) for one in report.get("ReferencedSOPSequence", [])]
    row.failures = [
        [str(one.ReferencedSOPInstanceUID), _reason(int(one.get("FailureReason", 0)))]
        for one in report.get("FailedSOPSequence", [])
    ]
    row.answered_at = at
    session.flush()
    session.execute(update(Delivery).where(Delivery.id == row.delivery_id, Delivery.state == "due").values(next_at=at))
    return _SUCCESS


def is_answered(session: Session, delivery_id: str) -> bool:
    """Whether an open question about a delivery has its answer."""
    query = select(CommitmentAsked.transaction_uid).where(
        CommitmentAsked.delivery_id == delivery_id, CommitmentAsked.closed_at.is_(None),
        CommitmentAsked.answered_at.is_not(None),
    )  # fmt: skip
    return session.scalars(query.limit(1)).first() is not None


def _reason(code: int) -> str:
    return f"0x{code:04X}" + (f", {_REASONS[code]}" if code in _REASONS else "")
