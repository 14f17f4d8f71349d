"""The process `operations`: looks after the house by the clock (APScheduler).

Every few seconds a sign of life with the queues' depths; every minute the disk and the rules that decide
exceptions; every night the whole audit trail and every file of the hold; what begins and ends by itself, and the alert
channels. What a person must know becomes an item that waits for a decision, and an `incident` in the audit trail.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations import alert_channels, alerting, auditing, self_check, status, watching
from operations.backup import schedule, standstill
from operations.certificate_keeping import Keeper
from operations.certificates import CertificateFault
from operations.custody import integrity, worker
from operations.recovery import die_with_parent
from operations.trail import keeping, mailing, shipping
from operations.trail.collector import Collector
from zambezi import audit, clock, config, exception_rules, exceptions, keys, segments, signing, waking
from zambezi.config.settings import Audit, Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ExceptionRule
from zambezi.disk import LEVELS, Gauge, Room, gigabytes
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient
from zambezi.processes import heartbeat

log = logging.getLogger("operations")
BaseTrigger.register(waking.Every)

PROCESS = "operations"

_EXECUTOR = {"class": "apscheduler.executors.pool:ThreadPoolExecutor", "max_workers": "20"}


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


def disk_concern(room: Room) -> Concern | None:
    """Whether a disk lacks room: an item for as long as that goes on."""
    if room.level == "plenty":
        return None
    worst = max(room.volumes, key=lambda one: LEVELS.index(one.level)).volume
    return Concern(
        "disk",
        "disk-low",
        "disk",
        f"The disk is getting full. {room.reason}",
        "Give it more room: with less, migration stops, and then the archive refuses images.",
        {"source": worst.name, "free": gigabytes(worst.free), "total": gigabytes(worst.total)},
    )


def backup_concern(known: schedule.Last, today: str) -> Concern:
    """A backup of the day that failed; once a day."""
    reason = known.error or "it ended without a reason; the log of operations may have one"
    return Concern(
        "backup",
        "backup-failed",
        f"backup {today}",
        f"The backup failed: {reason}",
        "Do what the reason names, then: zambezi backup",
        {"reason": reason},
    )


def doors_concern(faults: str) -> Concern:
    """A door that the self-check found open."""
    return Concern(
        "access",
        "door-open",
        "doors",
        f"A door of this installation stands open: {faults}",
        "Put right what the reason names, and try again: zambezi self-check",
        {"reason": faults},
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
    put_before_a_person(session, concern, now)
    return True


def put_before_a_person(session: Session, concern: Concern, now: datetime) -> None:
    """The item, and the `incident`."""
    exceptions.wait(
        session, concern.room, concern.reference, what=concern.what, suggestion=concern.suggestion, now=now,
        kind=concern.kind, facts=concern.facts,
    )  # fmt: skip
    audit.append(session, PROCESS, "incident", now, reason=concern.what)


class Caretaker:
    """The jobs; each stands for itself and takes no other down."""

    def __init__(
        self, environment: Environment, writing: Sessions, reading: Sessions, configuration: str, zone: tzinfo,
        gauge: Gauge, audit_settings: Audit | None = None,
    ) -> None:  # fmt: skip
        self._environment = environment
        self._audit = audit_settings or Audit()
        self._writing = writing
        self._reading = reading
        self._configuration = configuration
        self._zone = zone
        self._gauge = gauge
        self._backup: subprocess.Popen[bytes] | None = None
        self._findings = Findings()

    def sign_of_life(self) -> None:
        """Write our row in process_state."""
        with self._writing.begin() as session:
            details = {**self._findings.details, **status.queues(session, clock.now())}
            told = self._findings.last_error
            heartbeat(session, PROCESS, clock.now(), self._configuration, details, told)
        if self._findings.last_error == told:
            self._findings.last_error = ""

    def look_at_disk(self) -> None:
        """An item while there is too little room, settled by itself once there is more."""
        now, room = clock.now(), self._gauge.look()
        free = min((one.volume.free for one in room.volumes), default=0)
        self._findings.details["disk free GB"] = gigabytes(free)
        concern = disk_concern(room)
        with self._writing.begin() as session:
            if concern is None:
                exceptions.decide(
                    session, "disk", "disk", who=PROCESS, decision="There is room again.", now=now, writer=PROCESS
                )
            elif not exceptions.is_waiting(session, concern.room, concern.reference):
                put_before_a_person(session, concern, now)
                log.warning(concern.what)
        if concern:
            self._findings.last_error = concern.what

    def verify_audit(self) -> None:
        """Walk the whole audit trail; a broken place becomes an item."""
        with self._reading() as session:
            verdict = auditing.verify(session, self._environment.journal_file, self._environment.home)
        now = clock.now()
        self._findings.details["audit verified"] = clock.text(now)
        self._warn(audit_concerns(verdict), now)
        if verdict.broken:
            return
        try:
            for why in keeping.retain(self._writing, self._environment, self._audit, now):
                log.warning("the audit trail: %s", why)
        except (signing.SigningFault, segments.SegmentFault) as fault:
            raise OSError(str(fault)) from fault

    def sign_audit(self) -> None:
        """A signed checkpoint of the audit trail, when it is time."""
        try:
            made = keeping.checkpoint(self._writing, self._environment, self._audit, PROCESS, clock.now())
        except signing.SigningFault as fault:
            raise OSError(str(fault)) from fault
        if made:
            self._findings.details["audit signed"] = made.body["at"]

    def check_hold(self) -> None:
        """Look at every file of the hold; a damaged one becomes an item of its own."""
        now = clock.now()
        looked = integrity.look(self._writing, self._environment.hold_dir, now)
        self._findings.details["hold checked"] = f"{clock.text(now)}: {looked}"
        log.info("the hold: %s", looked)

    def try_doors(self) -> None:
        """Ask this installation what a stranger would; a door that stands open becomes an item, until it is shut."""
        now = clock.now()
        found = self_check.look(self._environment, keys.load(self._environment.keys_file))
        faults = "; ".join(one.fault for one in found if one.fault)
        self._findings.details["doors tried"] = clock.text(now)
        with self._writing.begin() as session:
            if not faults:
                exceptions.decide(
                    session, "access", "doors", who=PROCESS, decision="Each door is shut.", now=now, writer=PROCESS
                )
            elif not exceptions.is_waiting(session, "access", "doors"):
                put_before_a_person(session, doors_concern(faults), now)
                log.error("a door stands open: %s", faults)

    def decide_by_rules(self) -> None:
        """Carry out the rules that persons made for exceptions, batch by batch."""
        with self._writing.begin() as session:
            rules = session.scalars(select(ExceptionRule.id).where(ExceptionRule.ended_at.is_(None))).all()
        for rule in rules:
            decided = exceptions.BATCH
            while decided == exceptions.BATCH:
                with self._writing.begin() as session:
                    decided = exception_rules.carry_out(session, rule, clock.now(), self._zone, PROCESS)

    def back_up(self, settings: Zambezi) -> None:
        """Start the backup of the day, as a process of its own, when it is due; what failed becomes an item."""
        now = clock.now()
        known = schedule.last(self._environment.backup_dir)
        if self._backup is not None:
            if self._backup.poll() is None:
                return
            if self._backup.returncode:
                self._warn([backup_concern(known, now.date().isoformat())], now)
            self._backup = None
        why = schedule.due(settings.backup, known, now, settings.site.zone, settings.site.holidays)
        if why and not standstill.is_running(self._environment):
            log.info("the backup of the day begins: %s", why)
            command = [sys.executable, "-P", "-m", "operations.backup"]
            self._backup = subprocess.Popen(command, preexec_fn=die_with_parent)

    def stop(self) -> None:
        """End the backup that runs; the next one goes on with what was sent."""
        if self._backup is not None and self._backup.poll() is None:
            self._backup.terminate()
            self._backup.wait(10)

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

    def guarded(self, job: Callable[[], object], name: str = "") -> Callable[[], None]:
        """The job, with its faults said in the log and in our row instead of ending anything."""
        called, logged = name or job.__name__.replace("_", " "), ""

        def run() -> None:
            nonlocal logged
            try:
                job()
                logged = ""
            except (SQLAlchemyError, OSError) as error:
                sentence = f"{called}: {str(error).splitlines()[0]}"
                if sentence != logged:
                    log.error(sentence)
                logged = self._findings.last_error = sentence

        return run


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    environment = Environment.read()
    loaded = config.load(environment.config_dir, os.environ)
    writing = sessions(connect(environment.database_url, PROCESS), PROCESS)
    reading = sessions(connect(environment.database_url, PROCESS, reading=True), PROCESS)
    gauge = Gauge.of(environment, loaded.zambezi.disk)
    caretaker = Caretaker(
        environment, writing, reading, loaded.hash, loaded.zambezi.site.zone, gauge, loaded.zambezi.audit
    )
    asking = OrthancClient(environment, keys.load(environment.keys_file), PROCESS, timeout_s=5)
    watch = watching.Watch(watching.House(environment, writing, reading, asking, gauge), loaded.zambezi)
    # A thread for each job: whatever hangs in the database, persons are told.
    scheduler = BackgroundScheduler({"apscheduler.executors.default": _EXECUTOR}, timezone=loaded.zambezi.site.zone)
    soon = clock.now() + timedelta(seconds=2)
    at = {"max_instances": 1, "coalesce": True, "misfire_grace_time": 3600}
    scheduler.add_job(caretaker.guarded(caretaker.sign_of_life), "interval", seconds=5, next_run_time=clock.now(), **at)
    scheduler.add_job(caretaker.guarded(caretaker.look_at_disk), "interval", minutes=1, next_run_time=soon, **at)
    scheduler.add_job(caretaker.guarded(caretaker.renew_certificate), "interval", hours=6, next_run_time=soon, **at)
    doors = clock.now() + timedelta(seconds=40)
    scheduler.add_job(caretaker.guarded(caretaker.try_doors), "interval", hours=6, next_run_time=doors, **at)
    scheduler.add_job(caretaker.guarded(caretaker.verify_audit), "cron", hour=3, minute=30, **at)
    scheduler.add_job(caretaker.guarded(caretaker.sign_audit), "interval", minutes=1, next_run_time=soon, **at)
    scheduler.add_job(caretaker.guarded(caretaker.check_hold), "cron", hour=2, minute=30, **at)
    scheduler.add_job(caretaker.guarded(caretaker.decide_by_rules), "interval", minutes=1, next_run_time=soon, **at)
    settings = loaded.zambezi

    def back_up() -> None:
        caretaker.back_up(settings)

    scheduler.add_job(caretaker.guarded(back_up), "interval", minutes=1, next_run_time=soon, **at)
    every = alerting.EVERY.total_seconds()
    for job in (watch.look, watch.audit_what_was_told):
        scheduler.add_job(caretaker.guarded(job), "interval", seconds=every, next_run_time=soon, **at)
    ways = alert_channels.ways(loaded.zambezi.alerts, environment.home)
    watch.only([way.name for way in ways])
    tellers: list[Callable[[], object]] = [partial(watch.tell, way) for way in ways]
    for teller in tellers + _tellers(environment, loaded, ways):
        scheduler.add_job(caretaker.guarded(teller, "tell"), "interval", seconds=every, next_run_time=soon, **at)
    shipper = _shipper(environment, loaded, writing, reading)
    if shipper:
        ship = caretaker.guarded(shipper.round, "collector")
        scheduler.add_job(ship, "interval", seconds=5, next_run_time=soon, **at)
    if settings.audit.checkpoint_mail_to:
        mailer = mailing.Mailer(writing, reading, settings, environment.home)
        mail = caretaker.guarded(mailer.round, "checkpoint mail")
        scheduler.add_job(mail, "interval", seconds=every, next_run_time=soon, **at)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    custody = worker.Custody(worker.steps(_desk(environment, loaded)), lambda: standstill.may_move(environment))
    waking.steady(scheduler)
    scheduler.start()
    custody.start()
    log.info("operations runs, configuration %s", loaded.hash[:12])
    waking.until(ended, scheduler)
    if shipper:
        shipper.stop()
    scheduler.shutdown(wait=False)
    caretaker.stop()
    custody.stop()


def _shipper(
    environment: Environment, loaded: config.Configuration, writing: Sessions, reading: Sessions
) -> shipping.Shipper | None:
    """What brings the audit trail to the collector, where there is one."""
    wanted = loaded.zambezi.audit.collector
    if not wanted.host:
        return None
    source = keeping.source(loaded)
    return shipping.Shipper(writing, reading, Collector(wanted, environment.home), source)


def _tellers(
    environment: Environment, loaded: config.Configuration, ways: list[alert_channels.Way]
) -> list[Callable[[], object]]:  # fmt: skip
    """A job for each way by which persons are told, so that one that hangs keeps no other waiting."""
    settings = loaded.zambezi
    opened = sessions(connect(environment.database_url, PROCESS), PROCESS)
    try:
        with opened.begin() as session:
            alerting.forget_others(session, [way.name for way in ways])
    except SQLAlchemyError as error:  # it is away while we start: that is what persons are told of, so we start
        log.warning("the database is away: %s", type(error).__name__)

    return [alerting.Teller(opened, way, settings.alerts, settings.site).round for way in ways]


def _desk(environment: Environment, loaded: config.Configuration) -> worker.Desk:
    return worker.Desk(
        environment,
        loaded.zambezi,
        sessions(connect(environment.database_url, worker.WRITER), worker.WRITER),
        OrthancClient(environment, keys.load(environment.keys_file), worker.WRITER, timeout_s=120),
        clock.now,
        f"{socket.gethostname()}/{os.getpid()}",
    )
