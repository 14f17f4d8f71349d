"""Bringing one shipment to one destination, with the proof that the destination is to give.

Only what is missing goes: what the receiver acknowledged is remembered from attempt to attempt, and at *found* and
*committed* its own word about what it has decides, whatever it acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.associations import COMMITMENT, PLAIN
from gateway.commitments_asked import Asked, Commitments, question
from gateway.own_sender import OwnSender
from gateway.sending import AttemptFailed, Carrier, Fault, Instance, Interrupted, Shipment
from zambezi import clock, retries
from zambezi.config.settings import Destination
from zambezi.orthanc_client import OrthancError
from zambezi.retries import ErrorClass

#: So long a report is waited for on the association of the question; after that it comes on one of its own.
LINGER_S = 2.0


class Waits(Exception):
    """Everything was sent; the receiver's word is waited for until this moment, and nobody needs to stand by."""

    def __init__(self, until: datetime, text: str) -> None:
        super().__init__(text)
        self.until = until


@dataclass
class Progress:
    """What the receiver acknowledged so far (SOP Instance UIDs).

    `save`, between two parts and before a commitment is asked for, writes it down; it raises Overtaken where something
    goes first.
    """

    delivery_id: str
    acknowledged: set[str]
    save: Callable[[], None]


class Courier:
    """Brings shipments to one destination. Of several threads each has its own."""

    def __init__(
        self, name: str, destination: Destination, carrier: Carrier, own: OwnSender | None, commitments: Commitments,
        now: Callable[[], datetime] = clock.now, linger_s: float = LINGER_S,
    ) -> None:  # fmt: skip
        """`own` is a sender of our own to the same destination; a peer has none, and no commitment either."""
        self._name = name
        self._proof = destination.proof
        self._lasting = timedelta(minutes=destination.commitment_minutes)
        self._carrier = carrier
        self._own = own
        self._commitments = commitments
        self._now = now
        self._linger_s = linger_s

    def bring(self, shipment: Shipment, again: bool, progress: Progress) -> str:
        """Send what the destination lacks and prove that it has all; the outcome in words.

        Raises AttemptFailed, CutShort, Interrupted and Waits. `again`: an attempt was made before, so ask first what
        is there.
        """
        match self._proof:
            case "acknowledged":
                return self._acknowledged(shipment, progress)
            case "found":
                return self._found(shipment, again, progress)
            case _:
                return self._committed(shipment, progress)

    def _acknowledged(self, shipment: Shipment, progress: Progress) -> str:
        missing = _not_in(shipment.instances, progress.acknowledged)
        fault, remarks = self._send(shipment, missing, progress)
        if fault is not None:
            raise fault
        return f"{self._name} acknowledged each of {len(shipment.instances)} instances{remarks}"

    def _found(self, shipment: Shipment, again: bool, progress: Progress) -> str:
        count = len(shipment.instances)
        lacking = self._carrier.lacking(shipment) if again else shipment.instances
        remarks = ""
        if lacking:
            progress.acknowledged.difference_update(one.sop_uid for one in lacking)
            fault, remarks = self._send(shipment, lacking, progress)
            left = self._carrier.lacking(shipment)
            if left and fault is not None:
                raise fault
            if left:
                raise AttemptFailed(
                    ErrorClass.TRANSIENT,
                    f"{self._name} acknowledged everything, but {len(left)} of {count} instances "
                    f"are not found there, such as {left[0].sop_uid}",
                )
        sent = f"{len(lacking)} sent" if lacking else "none had to be sent"
        return f"{self._name} answers to a query for each of {count} instances ({sent}{remarks})"

    def _committed(self, shipment: Shipment, progress: Progress) -> str:
        asked = self._commitments.open(progress.delivery_id)
        if asked is None:
            missing = _not_in(shipment.instances, progress.acknowledged)
            fault, _ = self._send(shipment, missing, progress)
            if fault is not None:
                raise fault
            progress.save()  # who dies while it is asked has sent everything, and says so
            asked = self._ask(shipment, progress)
        if not asked.is_answered and self._now() < asked.until:
            raise Waits(asked.until, f"everything was sent; {self._name} has yet to commit itself to it")
        self._commitments.close(asked.transaction_uid)
        if not asked.is_answered:
            minutes = f"{self._lasting.total_seconds() / 60:g}"
            what = f"{self._name} has not committed itself to what it acknowledged within {minutes} minutes"
            raise AttemptFailed(ErrorClass.TRANSIENT, what)
        return self._judged(shipment, progress, asked)

    def _judged(self, shipment: Shipment, progress: Progress, asked: Asked) -> str:
        """What a commitment report means: all, or what has to be sent again."""
        count = len(shipment.instances)
        left = [one for one in shipment.instances if self._there(one) not in asked.committed]
        if not left:
            return f"{self._name} committed itself to each of {count} instances"
        progress.acknowledged.difference_update(one.sop_uid for one in left)
        why = asked.failures.get(self._there(left[0]), "it doesn't name it")
        raise AttemptFailed(
            ErrorClass.TRANSIENT,
            f"{self._name} does not commit itself to {len(left)} of {count} instances, "
            f"such as {left[0].sop_uid}: {why}",
        )

    def _ask(self, shipment: Shipment, progress: Progress) -> Asked:
        own = self._sender
        try:
            stored = own.stored(shipment.instances)
        except OrthancError as away:
            raise Interrupted(str(away)) from away
        if gone := [one for one in shipment.instances if one.orthanc_id not in stored]:
            raise AttemptFailed(ErrorClass.OBJECT, f"the archive no longer has {len(gone)} of the instances")
        named = [(stored[one.orthanc_id].sop_class, self._there(one)) for one in shipment.instances]
        with own.calling([(COMMITMENT, PLAIN)], self._commitments.reported) as talk:
            uid = self._commitments.begin(progress.delivery_id, own.address.aet, self._lasting)
            try:
                status = talk.ask_commitment(question(uid, named))
            except AttemptFailed:
                self._commitments.close(uid)
                raise
            if status != 0:
                self._commitments.close(uid)
                what = f"{self._name} can't be asked to commit itself: status 0x{status:04X}"
                raise AttemptFailed(retries.of_dimse("query", status) or ErrorClass.OBJECT, what)
            return self._answered(progress.delivery_id)

    def _answered(self, delivery_id: str) -> Asked:
        """The question as it is after a moment, in which many answer."""
        end = time.monotonic() + self._linger_s
        while True:
            reports = self._commitments.reports
            asked = self._commitments.open(delivery_id)
            if asked is None:
                raise Interrupted("the question was closed by another")
            left = end - time.monotonic()
            if asked.is_answered or left <= 0:
                return asked
            self._commitments.wait(reports, left)

    def _send(
        self, shipment: Shipment, instances: tuple[Instance, ...], progress: Progress
    ) -> tuple[Fault | None, str]:
        """Offer these, part by part; the fault that is about single ones, and remarks. Another fault is raised."""
        fault: Fault | None = None
        remarks: list[str] = []
        part = self._carrier.part
        for begin in range(0, len(instances), part):
            if begin:
                progress.save()
            sent = self._carrier.store(shipment.study_uid, instances[begin : begin + part])
            progress.acknowledged.update(one.sop_uid for one in sent.acknowledged)
            remarks += sent.remarks
            if sent.fault is not None and not sent.fault.is_about_objects:
                raise sent.fault
            fault = fault or sent.fault
        return fault, "".join(f", {one}" for one in dict.fromkeys(remarks))

    def _there(self, instance: Instance) -> str:
        return self._sender.names.uid(instance.sop_uid)

    @property
    def _sender(self) -> OwnSender:
        if self._own is None:
            raise AttemptFailed(ErrorClass.CONFIGURATION, f"{self._name} can't be asked for storage commitment")
        return self._own


def _not_in(instances: tuple[Instance, ...], sop_uids: set[str]) -> tuple[Instance, ...]:
    return tuple(one for one in instances if one.sop_uid not in sop_uids)
