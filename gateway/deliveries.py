"""Images out: the threads that carry deliveries out, one or more for each destination.

A destination that hangs keeps no other waiting. The delivery's row is the queue: an attempt (gateway.courier) may end
in any way, with the process or without it, and the row says what is still to be done.
"""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from gateway import alternates, commitments_asked
from gateway.courier import Progress, Waits
from gateway.sending import AttemptFailed, Closed, CutShort, Instance, Interrupted, Overtaken, Shipment
from zambezi import breakers, clock, exceptions, leases, outbox, windows
from zambezi.breakers import Pass
from zambezi.config.settings import Destination, PriorSource, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import Delivery
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.retries import ErrorClass

log = logging.getLogger("zambezi.deliveries")

WRITER = "gateway"
#: Its breaker pauses all destinations while a disk of ours is full.
QUEUE = "queue:dicom"
LEASE = timedelta(seconds=20)
POLL_S = 1.0
#: So many attempts that were cut short are made again without waiting.
PARDONED = 3


class Brings(Protocol):
    """What carries one delivery out: gateway.courier away from here, gateway.fetching to here."""

    def bring(self, shipment: Shipment, again: bool, progress: Progress) -> str:
        """The outcome in words; AttemptFailed, CutShort, Interrupted or Waits where there is none."""


class DicomSender(threading.Thread):
    """Carries out the deliveries to one destination until `stop` is set: inside its windows, unless it is paused."""

    def __init__(
        self, sessions: Sessions, courier: Brings, name: str, destination: Destination | PriorSource, site: Site,
        owner: str,
        stop: threading.Event, now: Callable[[], datetime] = clock.now, draw: Callable[[], float] = random.random,
        number: int = 1, kind: str = "dicom",
    ) -> None:  # fmt: skip
        """`number`: which one of the destination's Parallel threads; `kind`: of the deliveries that it carries out."""
        way = "dicom-out" if kind == "dicom" else kind
        super().__init__(name=f"{way}-{name}" + (f"-{number}" if number > 1 else ""))
        self._kind = kind
        self._sessions = sessions
        self._destination_name = name
        self._destination = destination
        self._site = site
        self._courier = courier
        self._policy = destination.policy
        # What isn't due yet may go to another destination, once this one is paused.
        self._look = outbox.look(kind, name, early=isinstance(destination, Destination) and bool(destination.alternate))
        self._neighbour = breakers.Neighbour(
            f"{kind}:{name}", QUEUE, breakers.Rule(destination.break_after, destination.policy), WRITER
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
        """Carry out the delivery that goes first; False where none is due or could be tried.

        One whose window closes meanwhile waits for the next, and goes on with what is missing then.
        """
        now = self._now()
        if not windows.is_open(self._destination.windows, now, self._site.zone, self._site.holidays):
            return False
        if not self._look(self._sessions, now):
            return False
        with self._sessions.begin() as session:
            entry = self._neighbour.enter(session, now, LEASE)
            claimed = None
            if entry is not None:
                claimed = outbox.claim(
                    session, self._kind, now=now, owner=self._owner, lease=LEASE, writer=WRITER,
                    destination=self._destination_name,
                )  # fmt: skip
            if claimed is None:
                session.rollback()  # nothing to do: a probe isn't taken for it
        if entry is None or claimed is None:
            return self._divert(now) if entry is None else False
        row, held = claimed
        self.taken_over += bool(held.taken_from)
        shipment = Shipment(row.study_uid or "", tuple(Instance(*one) for one in row.instances), row.body or b"")
        progress = Progress(row.id, set(row.acknowledged), lambda: self._save(held, row, progress))
        again = row.attempts > 1 or bool(row.acknowledged)
        try:
            with Keeper(self._sessions, held, self._now, LEASE, partial(self._hold, entry)):
                outcome = self._courier.bring(shipment, again, progress)
        except AttemptFailed as failed:
            self._settle(held, progress, partial(self._failed, held, entry, failed.kind, str(failed)))
        except CutShort as why:
            self._settle(held, progress, partial(self._cut_short, held, entry, row.attempts, str(why)))
        except Waits as waits:
            self.error = ""
            self._settle(held, progress, partial(self._waits, held, entry, waits))
        except Interrupted as why:
            log.info("%s: delivery %s put back: %s", self._destination_name, held.id, why)
            self._settle(held, progress, partial(self._put_back, held, entry, why))
            return isinstance(why, Overtaken)
        except Fenced as why:
            log.warning("%s", why)
        except DBAPIError:
            raise
        except Exception as odd:  # noqa: BLE001  edge of the attempt: it must count, or it is made again for ever
            # Its own words stay out of the log: they may tell what stands in an image.
            place = traceback.extract_tb(odd.__traceback__)[-1]
            words = f"{type(odd).__name__} in {place.name} ({Path(place.filename).name}:{place.lineno})"
            self._settle(held, progress, partial(self._failed, held, entry, ErrorClass.OBJECT, words))
        else:
            self.error = ""
            progress.acknowledged.clear()
            self._settle(held, progress, partial(self._delivered, held, entry, outcome))
            log.info("%s: delivery %s: %s", self._destination_name, held.id, outcome)
        return True

    def _divert(self, now: datetime) -> bool:
        """The destination is paused: what waits may go to another one; always False, for nothing was carried out."""
        if isinstance(self._destination, Destination) and self._destination.alternate:
            with self._sessions.begin() as session:
                alternates.divert(session, self._destination_name, self._destination, now=now, writer=WRITER)
        return False

    def _save(self, held: Lease, row: Delivery, progress: Progress) -> None:
        """Between two parts: how far it came, and whether something goes first."""
        if self._stop_asked.is_set():
            raise Interrupted("the gateway stops")
        with self._sessions.begin() as session:
            leases.write(session, held, {"acknowledged": sorted(progress.acknowledged)})
            overtaken = outbox.goes_first(session, row, now=self._now())
        if overtaken:
            raise Overtaken("a delivery of higher priority goes first")

    def _hold(self, entry: Pass, session: Session) -> None:
        breakers.hold(session, entry, now=self._now(), lasting=LEASE)

    def _delivered(self, held: Lease, entry: Pass, outcome: str, session: Session) -> None:
        now = self._now()
        self._neighbour.answered(session, entry, now)
        proof = self._destination.proof if isinstance(self._destination, Destination) else "found"
        outbox.delivered(session, held, proof=proof, outcome=outcome, now=now, writer=WRITER)

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

    def _waits(self, held: Lease, entry: Pass, waits: Waits, session: Session) -> None:
        """Sent, and nobody stands by: the destination's report makes it due at once."""
        now = self._now()
        self._neighbour.answered(session, entry, now)
        outbox.wait(session, held, until=waits.until, outcome=str(waits), now=now)
        if commitments_asked.is_answered(session, held.id):  # while it was being put down
            outbox.due_now(session, held.id, now=now)

    def _put_back(self, held: Lease, entry: Pass, why: Interrupted, session: Session) -> None:
        now = self._now()
        breakers.give_back(session, entry, now=now)
        if isinstance(why, Closed):
            outbox.wait(session, held, until=now, outcome=str(why), now=now)
        else:
            outbox.let_go(session, held, now=now)

    def _settle(self, held: Lease, progress: Progress, act: Callable[[Session], None]) -> None:
        try:
            with self._sessions.begin() as session:
                act(session)
                session.execute(
                    update(Delivery)
                    .where(Delivery.id == held.id, Delivery.fence == held.fence)
                    .values(acknowledged=sorted(progress.acknowledged))
                )
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
