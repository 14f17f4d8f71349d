"""From a storage commitment request to its answer, through a durable queue: looked into, decided, told.

Each step is committed before the next one: a worker that dies is followed by one that goes on where it was. A
station that can't be reached is left alone for a while with all that it asked; the others are told meanwhile.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from gateway import ways
from gateway.commitment import reporting, requests, verdicts
from gateway.commitment.reporting import Askers, Busy, ReportFailed
from gateway.commitment.requests import ROOM
from gateway.commitment.verdicts import Copy, Verdict
from zambezi import clock, exceptions, leases, outbox, retries, windows
from zambezi.config.safety import Modality
from zambezi.config.settings import DestinationTls, Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import CommitmentRequest, Held
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.orthanc_client import OrthancClient, OrthancError
from zambezi.retries import ErrorClass

log = logging.getLogger("zambezi.commitment")

LEASE = timedelta(seconds=20)
POLL_S = 1.0
#: What isn't there yet is looked for again after so long, while it may still come.
LOOK_AGAIN = timedelta(seconds=5)
#: The archive is away: its restart takes about so long.
AWAY = timedelta(seconds=5)
CHUNK = 50
#: States of what is held in which nobody has decided yet whether it belongs into the archive.
_UNDECIDED = ("comparing", "waiting", "releasing", "discard-asked")
_IN_DOUBT = ("conflict", "quarantine")

_REQUESTS = leases.Look(CommitmentRequest, ready=("due", "retrying"), working="working")

#: A study of which everything that a station asked about is safe: (session, Study UID, by, now).
Ready = Callable[[Session, str, Literal["commitment"], datetime], None]


class Worker(threading.Thread):
    """Works through the requests until `stop` is set; several of them, on several hosts, share the queue."""

    def __init__(
        self, sessions: Sessions, orthanc: OrthancClient, settings: Zambezi, stations: Mapping[str, Modality],
        askers: Askers, owner: str, stop: threading.Event, home: Path, ready: Ready = lambda *_: None,
        now: Callable[[], datetime] = clock.now, draw: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        super().__init__(name="commitment")
        self._sessions = sessions
        self._orthanc = orthanc
        self._settings = settings.storage_commitment
        self._site = settings.site
        self._stations = {one.aet: one for one in stations.values()}
        self._calls, self._home = settings.dicom_tls.calls, home
        self._askers = askers
        self._owner = f"{owner}/{self.name}"[:80]
        self._stop_asked = stop
        self._ready = ready
        self._now = now
        self._draw = draw
        self.error = ""

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if not self.work_one():
                    self._stop_asked.wait(POLL_S)
            except DBAPIError as error:
                self.error = outbox.database_trouble(error)
                log.warning("%s", self.error)
                self._stop_asked.wait(POLL_S * 5)
            except Exception as error:  # edge of the thread: one odd request must not end all answers
                self.error = f"{type(error).__name__} while answering for images"
                log.exception("a storage commitment request could not be worked on")
                self._stop_asked.wait(POLL_S * 5)

    def work_one(self) -> bool:
        """Take the request that has waited longest as far as it goes now; False where none is due."""
        if not _REQUESTS(self._sessions, self._now()):
            return False
        with self._sessions.begin() as session:
            claimed = leases.claim(
                session, CommitmentRequest, ready=("due", "retrying"), working="working", now=self._now(),
                owner=self._owner, lease=LEASE, counts_abandoned=False,
            )  # fmt: skip
        if claimed is None:
            return False
        row, held = claimed
        try:
            with Keeper(self._sessions, held, self._now, LEASE):
                if row.checked_at is None:
                    checked = self._checked(row, held)
                    if checked is None:
                        return True
                    row = checked
                self._told(row, held)
        except Fenced as error:
            log.warning("%s", error)
        return True

    # --- looking

    def _checked(self, row: CommitmentRequest, held: Lease) -> CommitmentRequest | None:
        """The request with what was found, committed; None where it must be looked into again later."""
        asked = [(sop_class, sop_uid) for sop_class, sop_uid in row.instances]
        try:
            copies = self._copies([sop_uid for _, sop_uid in asked])
        except OrthancError as error:
            self.error = f"the archive can't be asked: {error}"
            self._later(held, self._now() + AWAY, self.error)
            return None
        self.error = ""
        now = self._now()
        with self._sessions.begin() as session:
            verdict = verdicts.decide(asked, copies, _held(session, list(copies)))
            patience = timedelta(seconds=self._settings.wait_seconds)
            if verdict.may_come and now < clock.parse(row.asked_at) + patience:
                again = min(now + LOOK_AGAIN, clock.parse(row.asked_at) + patience)
                self._put_back(session, held, again, f"not all is there yet: {verdict.why}")
                return None
            return self._noted(session, held, verdict, now)

    def _copies(self, uids: Sequence[str]) -> dict[str, list[Copy]]:
        found: dict[str, list[Copy]] = {}
        left = list(dict.fromkeys(uids))
        while left:
            if self._stop_asked.is_set():
                raise OrthancError("the gateway stops")
            for one in self._orthanc.verify(left[:CHUNK]):
                found[one["sop_uid"]] = [Copy(**copy) for copy in one["copies"]]
            left = [uid for uid in left if uid not in found]
        return found

    def _noted(self, session: Session, held: Lease, verdict: Verdict, now: datetime) -> CommitmentRequest:
        row: CommitmentRequest = leases.write(session, held, {
            "checked_at": clock.text(now), "updated_at": clock.text(now), "study_uids": list(verdict.study_uids),
            "failed": [one.told for one in verdict.failed], "outcome": verdict.why,
        })  # fmt: skip
        # Rows before chains, as everywhere: what appends to the audit comes last.
        if verdict.failed:
            exceptions.wait(
                session, ROOM, requests.failed_reference(row), now=now, kind="commitment-failed",
                study_uid=verdict.study_uids[0] if len(verdict.study_uids) == 1 else None,
                facts={"source": row.aet, "asked": len(row.instances), "failed": len(verdict.failed),
                       "number": row.id, "reason": verdict.why},
                what=f"{row.aet} asked about {len(row.instances)} images; {len(verdict.failed)} of them are not safe",
                suggestion=f"Send them again from {row.aet}; zambezi commitment show {row.id}",
            )  # fmt: skip
        else:
            for study_uid in verdict.study_uids:
                self._ready(session, study_uid, "commitment", now)
        requests.safe_now(session, row, [sop_uid for _, sop_uid in verdict.safe], now)
        requests.tell(
            session, row, now, state="checked", count=len(row.instances), failed=len(verdict.failed),
            digest=verdict.digest, reason=verdict.why or "all of them are safe",
        )  # fmt: skip
        log.info("request %s of %s: %d of %d safe", row.id, row.aet, len(verdict.safe), len(row.instances))
        return row

    # --- telling

    def _told(self, row: CommitmentRequest, held: Lease) -> None:
        event, told = reporting.information(row.transaction_uid, row.instances, row.failed)
        try:
            with self._askers.waiting(row.aet, row.transaction_uid) as waiting:
                is_told = waiting is not None and reporting.on_its_own(waiting, event, told)
        except Busy:
            self._later(held, self._now() + timedelta(seconds=POLL_S), "the station's association is in use")
            return
        if is_told:
            self._settle(partial(self._reported, held, "told on its own association"))
            return
        opens = windows.next_opening(self._settings.windows, self._now(), self._site.zone, self._site.holidays)
        if opens is None or opens > self._now():
            outcome = "outside the hours in which stations may be called"
            self._later(held, opens or self._now() + timedelta(days=1), outcome)
            return
        until = self._left_alone(row)
        if until:
            self._later(held, until, "the station was not reached with an earlier answer", "retrying")
            return
        station = self._stations.get(row.aet)
        try:
            if station is None:
                raise ReportFailed(ErrorClass.CONFIGURATION, f"the configuration names no {row.aet} to be told")
            called = ways.called(station, row.called_aet, self._calls.get(station.name, DestinationTls()), self._home)
            reporting.call(called, event, told)
        except ReportFailed as failed:
            self._settle(partial(self._failed, held, failed))
        else:
            self._settle(partial(self._reported, held, f"told at {called.host}:{called.port}"))

    def _left_alone(self, row: CommitmentRequest) -> datetime | None:
        """Until when its station isn't called, because an earlier answer could not be brought to it."""
        others = (CommitmentRequest.aet == row.aet, CommitmentRequest.id != row.id)
        waits = (CommitmentRequest.state == "retrying", CommitmentRequest.next_at > clock.text(self._now()))
        with self._sessions() as session:
            found = session.scalar(select(func.min(CommitmentRequest.next_at)).where(*others, *waits))
        return clock.parse(found) if found else None

    def _reported(self, held: Lease, outcome: str, session: Session) -> None:
        now = self._now()
        row = leases.finish(session, held, "reported", outcome=outcome, updated_at=clock.text(now))
        requests.release(session, row.aet, now)
        requests.decided(session, row, who="the request itself", decision="the station was told", now=now)
        requests.tell(session, row, now, state="reported", failed=len(row.failed), reason=outcome)
        log.info("request %s of %s: %s", row.id, row.aet, outcome)

    def _failed(self, held: Lease, failed: ReportFailed, session: Session) -> None:
        now, words = self._now(), str(failed)
        row = leases.write(session, held, {"outcome": words, "updated_at": clock.text(now)})
        decided = retries.decide(failed.kind, row.attempts, self._settings.policy, self._draw())
        row = leases.finish(session, held, decided.state, next_at=clock.text(now + decided.wait))
        if decided.state == "parked":
            exceptions.wait(
                session, ROOM, requests.parked_reference(row), now=now, kind="commitment-parked",
                facts={"source": row.aet, "attempts": row.attempts, "number": row.id, "reason": words},
                what=f"{row.aet} can't be told whether its images are safe: {words}",
                suggestion=f"zambezi commitment retry {row.id}",
            )  # fmt: skip
        requests.tell(session, row, now, state=decided.state, attempts=row.attempts, reason=words)
        log.warning("request %s of %s: %s: %s", row.id, row.aet, decided.state, words)

    # --- the row

    def _later(self, held: Lease, at: datetime, outcome: str, state: str = "due") -> None:
        self._settle(lambda session: self._put_back(session, held, at, outcome, state))

    def _put_back(self, session: Session, held: Lease, at: datetime, outcome: str, state: str = "due") -> None:
        """No attempt at telling the station: it isn't counted as one."""
        leases.finish(
            session, held, state, attempts=CommitmentRequest.attempts - 1, next_at=clock.text(at), outcome=outcome,
            updated_at=clock.text(self._now()),
        )  # fmt: skip

    def _settle(self, act: Callable[[Session], None]) -> None:
        with self._sessions.begin() as session:
            act(session)


def release_predecessors(session: Session, place: str, run: str) -> int:
    """End the leases that earlier workers of this place left when they died (as outbox.release_predecessors)."""
    ours = CommitmentRequest.lease_owner.startswith(f"{place}/", autoescape=True)
    living = CommitmentRequest.lease_owner.startswith(f"{place}/{run}/", autoescape=True)
    found = session.execute(
        update(CommitmentRequest)
        .where(CommitmentRequest.state == "working", ours, ~living)
        .values(state="due", fence=CommitmentRequest.fence + 1, lease_owner=None, lease_until=None,
                attempts=CommitmentRequest.attempts - 1)
        .returning(CommitmentRequest.id)
    ).all()  # fmt: skip
    return len(found)


def _held(session: Session, uids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for first in range(0, len(uids), 500):  # engines limit how many values a statement holds
        chunk = uids[first : first + 500]
        query = select(Held.sop_uid).where(Held.sop_uid.in_(chunk), Held.state.in_(_UNDECIDED), Held.why.in_(_IN_DOUBT))
        found |= {uid for uid in session.scalars(query) if uid}
    return found
