"""Images out: deliveries by Orthanc's own sender, with the proof that each destination asks for.

One thread a destination, so that one that hangs keeps no other waiting. Orthanc's jobs are not a queue (they
end with the process and know no retry): the delivery row is, and a job is one attempt.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from zambezi import breakers, clock, exceptions, outbox, retries, windows
from zambezi.bandwidth import Line
from zambezi.breakers import Pass
from zambezi.config.settings import Destination, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

log = logging.getLogger("zambezi.deliveries")

WRITER = "gateway"
#: Its breaker pauses all destinations while a disk of ours is full.
QUEUE = "queue:dicom"
LEASE = timedelta(seconds=20)
POLL_S = 1.0
JOB_POLL_S = 0.3
#: So many attempts that were cut short are made again without waiting.
PARDONED = 3
#: States of Orthanc's jobs that are over.
_OVER = ("Success", "Failure")


class AttemptFailed(Exception):
    """The destination doesn't have everything; the text says why, for a person, and `kind` what helps."""

    def __init__(self, kind: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Interrupted(Exception):
    """The process stops, or Orthanc is away: no fault of the destination, and no attempt of it."""


class CutShort(Exception):
    """Orthanc went away while it was sending. Most often that is a restart, and the attempt is made again at once.

    But an image whose sending brings Orthanc down must not do so for ever: it counts, and soon waits grow.
    """


@dataclass(frozen=True)
class Shipment:
    """What one delivery is about: instances as (orthanc_id, series_uid, sop_uid) of one study."""

    study_uid: str
    instances: tuple[tuple[str, str, str], ...]


class Courier:
    """Brings shipments to one destination, called by its name in DicomModalities."""

    def __init__(
        self, orthanc: OrthancClient, name: str, proof: str, stop: threading.Event,
        owes: Callable[[int], float | None],
    ) -> None:  # fmt: skip
        """`owes` takes the bytes that went over the line, and says how long to wait then; None where it has no cap."""
        self._orthanc = orthanc
        self._name = name
        self._proof = proof
        self._stop_asked = stop
        self._owes = owes

    def bring(self, shipment: Shipment, again: bool) -> str:
        """Send what the destination lacks and prove that it has all; the outcome in words.

        Raises AttemptFailed, CutShort or Interrupted. `again`: an attempt was made before, so ask first what is there.
        """
        if self._proof == "acknowledged":
            self._send(shipment.instances)
            return f"{self._name} acknowledged each of {len(shipment.instances)} instances"
        lacking = self._lacking(shipment) if again else shipment.instances
        if lacking:
            self._send(lacking)
            left = self._lacking(shipment)
            if left:
                raise AttemptFailed(
                    ErrorClass.TRANSIENT,
                    f"{self._name} acknowledged everything, but {len(left)} of {len(shipment.instances)} instances "
                    f"are not found there, such as {left[0][2]}",
                )
        sent = f"{len(lacking)} sent" if lacking else "none had to be sent"
        return f"{self._name} answers to a query for each of {len(shipment.instances)} instances ({sent})"

    def _lacking(self, shipment: Shipment) -> tuple[tuple[str, str, str], ...]:
        by_series: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        for one in shipment.instances:
            by_series[one[1]].append(one)
        lacking: list[tuple[str, str, str]] = []
        for series_uid, instances in by_series.items():
            query = {"StudyInstanceUID": shipment.study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
            try:
                answers = self._orthanc.query(self._name, "Instance", query)
            except OrthancRefused as refused:
                raise _refused(refused, "query", f"{self._name} does not answer to a query") from refused
            except OrthancUnreachable as away:
                raise Interrupted(str(away)) from away
            there = {answer.get("SOPInstanceUID", "") for answer in answers}
            lacking += [one for one in instances if one[2] not in there]
        return tuple(lacking)

    def _send(self, instances: tuple[tuple[str, str, str], ...]) -> None:
        if self._owes(0) is None:
            self._send_at_once(instances)
            return
        # A job of Orthanc goes as fast as the line does; so on a line with a cap each instance is a job of its own.
        for one in instances:
            self._send_at_once((one,))
            if self._stop_asked.wait(self._owes(self._size(one)) or 0):
                raise Interrupted("the gateway stops")

    def _size(self, instance: tuple[str, str, str]) -> int:
        try:
            return self._orthanc.size(instance[0])
        except OrthancRefused:
            return 0  # deleted in this moment: it was sent, and costs nothing more
        except OrthancUnreachable as away:
            raise CutShort(f"the archive went away while it was sending ({away})") from away

    def _send_at_once(self, instances: tuple[tuple[str, str, str], ...]) -> None:
        try:
            job_id = self._orthanc.start_store(self._name, [one[0] for one in instances])
        except OrthancRefused as refused:
            if refused.status == 404:
                raise AttemptFailed(ErrorClass.OBJECT, "the archive no longer has some of the instances") from refused
            raise _refused(refused, "store", f"the archive can't send to {self._name}") from refused
        except OrthancUnreachable as away:
            raise Interrupted(str(away)) from away
        job = self._ended(job_id)
        if job["State"] != "Success":
            said = job.get("ErrorDetails") or job.get("ErrorDescription") or "no reason given"
            kind = retries.of_orthanc(str(said), "store", job.get("ErrorCode"))
            raise AttemptFailed(kind, f"sending {len(instances)} instances to {self._name} failed: {said}")

    def _ended(self, job_id: str) -> dict[str, Any]:
        try:
            while (job := self._orthanc.job(job_id))["State"] not in _OVER:
                if self._stop_asked.wait(JOB_POLL_S):
                    raise Interrupted("the gateway stops")
        except OrthancRefused as refused:
            if refused.status == 404:  # jobs end with the process
                raise CutShort("the archive was restarted while it was sending") from refused
            raise _refused(refused, "store", f"the archive can't send to {self._name}") from refused
        except OrthancUnreachable as away:
            raise CutShort(f"the archive went away while it was sending ({away})") from away
        return job


class DicomSender(threading.Thread):
    """Carries out the deliveries to one destination until `stop` is set: inside its windows, unless it is paused."""

    def __init__(
        self, sessions: Sessions, orthanc: OrthancClient, name: str, destination: Destination, site: Site, owner: str,
        stop: threading.Event, now: Callable[[], datetime] = clock.now, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        super().__init__(name=f"dicom-out-{name}")
        self._sessions = sessions
        self._destination_name = name
        self._destination = destination
        self._site = site
        self._line = Line()
        self._courier = Courier(orthanc, name, destination.proof, stop, self._owes)
        self._policy = destination.policy
        self._neighbour = breakers.Neighbour(
            f"dicom:{name}", QUEUE, breakers.Rule(destination.break_after, destination.policy), WRITER
        )
        self._owner = f"{owner}/{self.name}"[:80]
        self._stop_asked = stop
        self._now = now
        self._draw = draw
        self.error = ""
        self.taken_over = 0

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if not self.deliver_one():
                    self._stop_asked.wait(POLL_S)
            except DBAPIError as error:
                self.error = outbox.database_trouble(error)
                log.warning("%s: %s", self._destination_name, self.error)
                self._stop_asked.wait(POLL_S * 5)
            except Exception as error:  # edge of the thread: one odd delivery must not end all of them
                self.error = f"{type(error).__name__} while delivering"
                log.exception("%s: a delivery could not be carried out", self._destination_name)
                self._stop_asked.wait(POLL_S * 5)

    def deliver_one(self) -> bool:
        """Carry out the delivery that has waited longest; False where none is due or could be tried.

        What has begun is brought to its end, though its window closes meanwhile.
        """
        now = self._now()
        if not windows.is_open(self._destination.windows, now, self._site.zone, self._site.holidays):
            return False
        with self._sessions.begin() as session:
            entry = self._neighbour.enter(session, now, LEASE)
            if entry is None:
                return False
            claimed = outbox.claim(
                session, "dicom", now=now, owner=self._owner, lease=LEASE, writer=WRITER,
                destination=self._destination_name,
            )  # fmt: skip
            if claimed is None:
                session.rollback()  # nothing to do: a probe isn't taken for it
                return False
        row, held = claimed
        self.taken_over += bool(held.taken_from)
        shipment = Shipment(
            row.study_uid or "", tuple((orthanc_id, series, sop) for orthanc_id, series, sop in row.instances)
        )
        try:
            with Keeper(self._sessions, held, self._now, LEASE, partial(self._hold, entry)):
                outcome = self._courier.bring(shipment, again=row.attempts > 1)
        except AttemptFailed as failed:
            self._settle(held, partial(self._failed, held, entry, failed.kind, str(failed)))
        except CutShort as why:
            self._settle(held, partial(self._cut_short, held, entry, row.attempts, str(why)))
        except Interrupted as why:
            log.info("%s: delivery %s put back: %s", self._destination_name, held.id, why)
            self._settle(held, partial(self._put_back, held, entry))
            return False
        else:
            self.error = ""
            self._settle(held, partial(self._delivered, held, entry, outcome))
            log.info("%s: delivery %s: %s", self._destination_name, held.id, outcome)
        return True

    def _owes(self, size: int) -> float | None:
        cap = windows.cap_at(self._destination.windows, self._now(), self._site.zone, self._site.holidays)
        return None if cap is None else self._line.used(size, cap, self._now())

    def _hold(self, entry: Pass, session: Session) -> None:
        breakers.hold(session, entry, now=self._now(), lasting=LEASE)

    def _delivered(self, held: Lease, entry: Pass, outcome: str, session: Session) -> None:
        now = self._now()
        self._neighbour.answered(session, entry, now)
        outbox.delivered(session, held, proof=self._destination.proof, outcome=outcome, now=now, writer=WRITER)

    def _failed(self, held: Lease, entry: Pass, kind: ErrorClass, words: str, session: Session) -> None:
        self.error = words
        now, draw = self._now(), self._draw()
        self._neighbour.failed(session, entry, kind, words, now, draw)
        outbox.failed(
            session, held, kind=kind, outcome=words, policy=self._policy, draw=draw, now=now, writer=WRITER,
            is_probe=self._neighbour.name in entry.probes,
        )  # fmt: skip
        log.warning("%s: delivery %s: %s: %s", self._destination_name, held.id, kind, words)

    def _cut_short(self, held: Lease, entry: Pass, attempts: int, words: str, session: Session) -> None:
        """Our archive's own fault: an attempt of these images, and no word about the destination."""
        self.error = words
        now = self._now()
        policy = replace(self._policy, first=timedelta(), cap=timedelta()) if attempts <= PARDONED else self._policy
        breakers.give_back(session, entry, now=now)
        outbox.failed(
            session, held, kind=ErrorClass.TRANSIENT, outcome=words, policy=policy, draw=self._draw(), now=now,
            writer=WRITER,
        )  # fmt: skip
        log.warning("%s: delivery %s: %s", self._destination_name, held.id, words)

    def _put_back(self, held: Lease, entry: Pass, session: Session) -> None:
        breakers.give_back(session, entry, now=self._now())
        outbox.let_go(session, held, now=self._now())

    def _settle(self, held: Lease, act: Callable[[Session], None]) -> None:
        try:
            with self._sessions.begin() as session:
                act(session)
        except Fenced as error:
            log.warning("%s", error)


def park_strangers(session: Session, kind: str, known: set[str], *, now: datetime) -> int:
    """Deliveries to destinations that the configuration no longer names wait for a person; how many."""
    lost = session.scalars(
        select(Delivery).where(
            Delivery.kind == kind, Delivery.state.in_(("due", "retrying")), Delivery.destination.not_in(known)
        )
    ).all()
    for row in lost:
        row.state, row.fence, row.updated_at = "parked", row.fence + 1, clock.text(now)
        row.outcome = f"the configuration names no {row.destination} to deliver to"
        exceptions.wait(
            session, "delivery", row.id, what=row.outcome, now=now, kind="delivery-stranger", study_uid=row.study_uid,
            actions=outbox.actions(row.id), facts={"source": row.destination},
            suggestion=f"Name it in orthanc-config/ again, then: zambezi route retry {row.id}",
        )  # fmt: skip
    return len(lost)


def _refused(refused: OrthancRefused, service: retries.Service, what: str) -> AttemptFailed:
    return AttemptFailed(retries.of_orthanc(str(refused), service), f"{what}: {_reason(refused)}")


def _reason(error: OrthancError) -> str:
    # Orthanc's answer is JSON with the DICOM error in words; the whole of it is more than a page can show.
    return str(error).partition("HTTP")[2][:200] or str(error)[:200]
