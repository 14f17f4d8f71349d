"""Images out: deliveries by Orthanc's own sender, with the proof that each destination asks for.

One thread a destination, so that one that hangs keeps no other waiting. Orthanc's jobs are not a queue (they
end with the process and know no retry): the delivery row is, and a job is one attempt.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from zambezi import clock, exceptions, outbox
from zambezi.config.settings import Destination
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancRefused, OrthancUnreachable

log = logging.getLogger("zambezi.deliveries")

WRITER = "gateway"
LEASE = timedelta(seconds=20)
RENEW_S = 5.0
POLL_S = 1.0
JOB_POLL_S = 0.3
#: So many attempts that were cut short are made again without waiting.
PARDONED = 3
#: States of Orthanc's jobs that are over.
_OVER = ("Success", "Failure")


class AttemptFailed(Exception):
    """The destination doesn't have everything; the text says why, for a person."""


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

    def __init__(self, orthanc: OrthancClient, name: str, proof: str, stop: threading.Event) -> None:
        self._orthanc = orthanc
        self._name = name
        self._proof = proof
        self._stop_asked = stop

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
                    f"{self._name} acknowledged everything, but {len(left)} of {len(shipment.instances)} instances "
                    f"are not found there, such as {left[0][2]}"
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
                raise AttemptFailed(f"{self._name} does not answer to a query: {_reason(refused)}") from refused
            except OrthancUnreachable as away:
                raise Interrupted(str(away)) from away
            there = {answer.get("SOPInstanceUID", "") for answer in answers}
            lacking += [one for one in instances if one[2] not in there]
        return tuple(lacking)

    def _send(self, instances: tuple[tuple[str, str, str], ...]) -> None:
        try:
            job_id = self._orthanc.start_store(self._name, [one[0] for one in instances])
        except OrthancRefused as refused:
            if refused.status == 404:
                raise AttemptFailed("the archive no longer has some of the instances") from refused
            raise AttemptFailed(f"the archive can't send to {self._name}: {_reason(refused)}") from refused
        except OrthancUnreachable as away:
            raise Interrupted(str(away)) from away
        job = self._ended(job_id)
        if job["State"] != "Success":
            said = job.get("ErrorDetails") or job.get("ErrorDescription") or "no reason given"
            raise AttemptFailed(f"sending {len(instances)} instances to {self._name} failed: {said}")

    def _ended(self, job_id: str) -> dict[str, Any]:
        try:
            while (job := self._orthanc.job(job_id))["State"] not in _OVER:
                if self._stop_asked.wait(JOB_POLL_S):
                    raise Interrupted("the gateway stops")
        except OrthancRefused as refused:
            if refused.status == 404:  # jobs end with the process
                raise CutShort("the archive was restarted while it was sending") from refused
            raise AttemptFailed(f"the archive can't send to {self._name}: {_reason(refused)}") from refused
        except OrthancUnreachable as away:
            raise CutShort(f"the archive went away while it was sending ({away})") from away
        return job


class DicomSender(threading.Thread):
    """Carries out the deliveries to one destination until `stop` is set."""

    def __init__(
        self, sessions: Sessions, orthanc: OrthancClient, name: str, destination: Destination, owner: str,
        stop: threading.Event, now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        super().__init__(name=f"dicom-out-{name}")
        self._sessions = sessions
        self._destination_name = name
        self._proof = destination.proof
        self._courier = Courier(orthanc, name, destination.proof, stop)
        self._patience = outbox.Patience(
            destination.retry_seconds, destination.retry_multiplier, destination.retry_cap_seconds, destination.attempts
        )
        self._owner = f"{owner}/{self.name}"[:80]
        self._stop_asked = stop
        self._now = now
        self.error = ""

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if not self.deliver_one():
                    self._stop_asked.wait(POLL_S)
            except DBAPIError as error:
                self.error = f"the database is away ({type(error.orig).__name__})"
                log.warning("%s: %s", self._destination_name, self.error)
                self._stop_asked.wait(POLL_S * 5)
            except Exception as error:  # edge of the thread: one odd delivery must not end all of them
                self.error = f"{type(error).__name__} while delivering"
                log.exception("%s: a delivery could not be carried out", self._destination_name)
                self._stop_asked.wait(POLL_S * 5)

    def deliver_one(self) -> bool:
        """Carry out the delivery that has waited longest; False where none is due or could be tried."""
        with self._sessions.begin() as session:
            claimed = outbox.claim(
                session, "dicom", now=self._now(), owner=self._owner, lease=LEASE, destination=self._destination_name
            )
        if claimed is None:
            return False
        row, held = claimed
        instances = tuple((orthanc_id, series, sop) for orthanc_id, series, sop in row.instances)
        try:
            with _kept(self._sessions, held, self._now):
                outcome = self._courier.bring(Shipment(row.study_uid or "", instances), again=row.attempts > 1)
        except AttemptFailed as failed:
            self._failed(held, str(failed), self._patience)
        except CutShort as why:
            pardoned = replace(self._patience, retry_seconds=0, cap_seconds=0)
            self._failed(held, str(why), pardoned if row.attempts <= PARDONED else self._patience)
        except Interrupted as why:
            log.info("%s: delivery %s put back: %s", self._destination_name, held.delivery_id, why)
            self._settle(held, lambda session: outbox.let_go(session, held, now=self._now()))
            return False
        else:
            self.error = ""
            self._settle(
                held,
                lambda session: outbox.delivered(
                    session, held, proof=self._proof, outcome=outcome, now=self._now(), writer=WRITER
                ),
            )
            log.info("%s: delivery %s: %s", self._destination_name, held.delivery_id, outcome)
        return True

    def _failed(self, held: outbox.Claim, words: str, patience: outbox.Patience) -> None:
        self.error = words
        self._settle(
            held,
            lambda session: outbox.failed(
                session, held, outcome=words, patience=patience, now=self._now(), writer=WRITER
            ),
        )
        log.warning("%s: delivery %s: %s", self._destination_name, held.delivery_id, words)

    def _settle(self, held: outbox.Claim, act: Callable[[Session], object]) -> None:
        try:
            with self._sessions.begin() as session:
                act(session)
        except outbox.Fenced as error:
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


@contextmanager
def _kept(sessions: Sessions, held: outbox.Claim, now: Callable[[], datetime]) -> Iterator[None]:
    """Renew the lease while the block runs, however long a destination takes to answer."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(RENEW_S):
            try:
                with sessions.begin() as session:
                    outbox.renew(session, held, now=now(), lease=LEASE)
            except outbox.Fenced:
                return
            except DBAPIError as error:
                log.warning("the lease of %s could not be renewed: %s", held.delivery_id, type(error.orig).__name__)

    keeper = threading.Thread(target=keep, name=f"lease-{held.delivery_id[:8]}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _reason(error: OrthancError) -> str:
    # Orthanc's answer is JSON with the DICOM error in words; the whole of it is more than a page can show.
    return str(error).partition("HTTP")[2][:200] or str(error)[:200]
