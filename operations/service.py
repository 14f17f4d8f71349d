"""The process `operations`: looks after the house by the clock (APScheduler).

Every few seconds a sign of life with the queues' depths; every minute the disk and the rules that decide
exceptions; every night the whole audit trail and every file of the hold; and the alert channels. What a person must
know becomes an item that waits for a decision, and an `incident` in the audit trail.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations import alert_channels, alerting, auditing, status
from operations.certificate_keeping import Keeper
from operations.certificates import CertificateFault
from operations.custody import integrity, worker
from zambezi import audit, clock, config, exception_rules, exceptions, keys
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ExceptionRule
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient
from zambezi.processes import heartbeat

log = logging.getLogger("operations")

PROCESS = "operations"
#: Below so much free space a person must act while there is still time: a modality's week, at a small hospital.
LOW_FREE_SHARE = 0.10
LOW_FREE_BYTES = 20 * 2**30


@dataclass
class Findings:
    """What the last looks found; it goes out with each sign of life."""

    details: dict[str, Any] = field(default_factory=dict)
    last_error: str = ""


@dataclass(frozen=True)
class Concern:
    """Something for a person: `reference` keeps the same thing from being said twice in its room."""

    room: str
    kind: str
    reference: str
    what: str
    suggestion: str
    facts: dict[str, str | int]


def disk_concern(total: int, free: int, today: str) -> Concern | None:
    """Whether the data folder's disk is getting full; once a day."""
    if free >= LOW_FREE_BYTES or free >= total * LOW_FREE_SHARE:
        return None
    return Concern(
        "disk",
        "disk-low",
        f"disk {today}",
        f"The disk of the data folder is getting full: {free / 2**30:.1f} GB of {total / 2**30:.0f} GB are free.",
        "Give it more space before it is full: then the archive refuses images, and modalities must keep them.",
        {"free": f"{free / 2**30:.1f}", "total": f"{total / 2**30:.0f}"},
    )


def audit_concerns(verdict: auditing.Verdict) -> list[Concern]:
    """Every broken place of the audit trail."""
    return [
        Concern(
            "audit",
            "audit-broken",
            f"audit {place.journal} {place.seq}",
            f"The audit trail doesn't hold: {place}",
            "Keep the machine's state as it is and find out who or what wrote there; `zambezi audit verify` says more.",
            {"source": place.journal, "place": place.seq, "reason": place.why},
        )
        for place in verdict.broken
    ]


def raise_item(session: Session, concern: Concern, now: datetime) -> bool:
    """Put the concern before a person, with an `incident` in the audit trail; False where it was said before."""
    if exceptions.is_known(session, concern.room, concern.reference):
        return False
    exceptions.wait(
        session, concern.room, concern.reference, what=concern.what, suggestion=concern.suggestion, now=now,
        kind=concern.kind, facts=concern.facts,
    )  # fmt: skip
    audit.append(session, PROCESS, "incident", now, reason=concern.what)
    return True


class Caretaker:
    """The jobs; each stands for itself and takes no other down."""

    def __init__(
        self, environment: Environment, writing: Sessions, reading: Sessions, configuration: str, zone: tzinfo
    ) -> None:
        self._environment = environment
        self._writing = writing
        self._reading = reading
        self._configuration = configuration
        self._zone = zone
        self._findings = Findings()

    def sign_of_life(self) -> None:
        """Write our row in process_state."""
        with self._writing.begin() as session:
            details = {**self._findings.details, **status.queues(session, clock.now())}
            heartbeat(session, PROCESS, clock.now(), self._configuration, details, self._findings.last_error)

    def look_at_disk(self) -> None:
        """Measure free space; warn in time."""
        usage = shutil.disk_usage(self._environment.home)
        self._findings.details["disk free GB"] = round(usage.free / 2**30, 1)
        now = clock.now()
        concern = disk_concern(usage.total, usage.free, now.date().isoformat())
        if concern:
            self._warn([concern], now)

    def verify_audit(self) -> None:
        """Walk the whole audit trail; a broken place becomes an item."""
        with self._reading() as session:
            verdict = auditing.verify(session, self._environment.journal_file)
        now = clock.now()
        self._findings.details["audit verified"] = clock.text(now)
        self._warn(audit_concerns(verdict), now)

    def check_hold(self) -> None:
        """Look at every file of the hold; a damaged one becomes an item of its own."""
        now = clock.now()
        looked = integrity.look(self._writing, self._environment.hold_dir, now)
        self._findings.details["hold checked"] = f"{clock.text(now)}: {looked}"
        log.info("the hold: %s", looked)

    def decide_by_rules(self) -> None:
        """Carry out the rules that persons made for exceptions, batch by batch."""
        with self._writing.begin() as session:
            rules = session.scalars(select(ExceptionRule.id).where(ExceptionRule.ended_at.is_(None))).all()
        for rule in rules:
            decided = exceptions.BATCH
            while decided == exceptions.BATCH:
                with self._writing.begin() as session:
                    decided = exception_rules.carry_out(session, rule, clock.now(), self._zone, PROCESS)

    def _warn(self, concerns: list[Concern], now: datetime) -> None:
        for concern in concerns:
            with self._writing.begin() as session:
                if raise_item(session, concern, now):
                    log.warning(concern.what)
            self._findings.last_error = concern.what

    def renew_certificate(self) -> None:
        """Renew the front door's certificate a month before its end, where it is from our own authority."""
        try:
            made = Keeper(self._environment, self._writing).renew_if_due(os.environ, clock.now())
        except (CertificateFault, EnvironmentFault) as fault:
            raise OSError(str(fault)) from fault
        if made:
            log.info("the front door's certificate was renewed")

    def guarded(self, job: Callable[[], None]) -> Callable[[], None]:
        """The job, with its faults said in the log and in our row instead of ending anything."""

        def run() -> None:
            try:
                job()
            except (SQLAlchemyError, OSError) as error:
                sentence = f"{job.__name__.replace('_', ' ')}: {str(error).splitlines()[0]}"
                if sentence != self._findings.last_error:
                    log.error(sentence)
                self._findings.last_error = sentence

        return run


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    environment = Environment.read()
    loaded = config.load(environment.config_dir, os.environ)
    caretaker = Caretaker(
        environment,
        sessions(connect(environment.database_url, PROCESS), PROCESS),
        sessions(connect(environment.database_url, PROCESS, reading=True), PROCESS),
        loaded.hash,
        loaded.zambezi.site.zone,
    )
    scheduler = BackgroundScheduler(timezone=loaded.zambezi.site.zone)
    soon = clock.now() + timedelta(seconds=2)
    at = {"max_instances": 1, "coalesce": True, "misfire_grace_time": 3600}
    scheduler.add_job(caretaker.guarded(caretaker.sign_of_life), "interval", seconds=5, next_run_time=clock.now(), **at)
    scheduler.add_job(caretaker.guarded(caretaker.look_at_disk), "interval", minutes=1, next_run_time=soon, **at)
    scheduler.add_job(caretaker.guarded(caretaker.renew_certificate), "interval", hours=6, next_run_time=soon, **at)
    scheduler.add_job(caretaker.guarded(caretaker.verify_audit), "cron", hour=3, minute=30, **at)
    scheduler.add_job(caretaker.guarded(caretaker.check_hold), "cron", hour=2, minute=30, **at)
    scheduler.add_job(caretaker.guarded(caretaker.decide_by_rules), "interval", minutes=1, next_run_time=soon, **at)
    for teller in _tellers(environment, loaded):
        every = alerting.EVERY.total_seconds()
        scheduler.add_job(caretaker.guarded(teller), "interval", seconds=every, next_run_time=soon, **at)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    custody = worker.Custody(worker.steps(_desk(environment, loaded)))
    scheduler.start()
    custody.start()
    log.info("operations runs, configuration %s", loaded.hash[:12])
    ended.wait()
    scheduler.shutdown(wait=False)
    custody.stop()


def _tellers(environment: Environment, loaded: config.Configuration) -> list[Callable[[], None]]:
    """A job for each way by which persons are told, so that one that hangs keeps no other waiting."""
    settings, ways = loaded.zambezi, alert_channels.ways(loaded.zambezi.alerts, environment.home)
    opened = sessions(connect(environment.database_url, PROCESS), PROCESS)
    with opened.begin() as session:
        alerting.forget_others(session, [way.name for way in ways])

    def job(way: alert_channels.Way) -> Callable[[], None]:
        teller = alerting.Teller(opened, way, settings.alerts, settings.site)

        def tell() -> None:
            teller.round()

        return tell

    return [job(way) for way in ways]


def _desk(environment: Environment, loaded: config.Configuration) -> worker.Desk:
    return worker.Desk(
        environment,
        loaded.zambezi,
        sessions(connect(environment.database_url, worker.WRITER), worker.WRITER),
        OrthancClient(environment, keys.load(environment.keys_file), worker.WRITER, timeout_s=120),
        clock.now,
        f"{socket.gethostname()}/{os.getpid()}",
    )


if __name__ == "__main__":
    main()
