"""The migration process: wakes a sweep every few seconds; the sweep works on running projects inside their windows.

APScheduler only wakes; what there is to do lies in the ledger. Killed at any moment, it goes on from there.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from migration import jumps, lanes, ledger, pace, plans, predecessors, rollback, sampling, turns, worker
from migration.desk import Closed, Desk, no_room
from migration.lanes import Lane
from migration.office import PROCESS, Office, open_office
from migration.records import archiving
from zambezi import clock, processes, waking, windows
from zambezi.config import ConfigurationFaults
from zambezi.database.tables import MigrationProject
from zambezi.environment import EnvironmentFault
from zambezi.leases import Fenced
from zambezi.orthanc_client import OrthancError
from zambezi.study_documents import NotAnnounced

log = logging.getLogger(__name__)
BaseTrigger.register(waking.Every)

SWEEP_SECONDS = 2
HEARTBEAT_SECONDS = 5
#: Migrations in these states have studies that a plan may decide.
_LIVING = ("planned", "running", "paused", "finished")
TIDY_SECONDS = 60
DOCUMENTS_SECONDS = 30
#: A worker that found every slot of its source in use looks again.
SLOT_SECONDS = 0.3
#: A wake-up that comes late, however late, is one.
_JOBS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}


class Migrations:
    """All running projects of one installation, each with as many workers as its source may bear at once."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.stop = threading.Event()
        self._last_error = ""
        self._waits = ""
        self._is_set_right = False  # a clock may have been put back while nobody looked
        # By project and lane; touched by the sweep alone.
        self._workers: dict[tuple[int, str], list[threading.Thread]] = {}

    def sweep(self) -> None:
        """Give every running project whose source may be asked now its workers, and end what is done."""
        waits, self._waits = self._waits, no_room(self._office.room())
        if self._waits:
            if not waits:
                log.warning("%s", self._waits)
            return
        try:
            self._set_right()
            with self._office.sessions.begin() as session:
                rollback.settle(session, clock.now())
                projects = session.scalars(select(MigrationProject).where(MigrationProject.state.in_(_LIVING))).all()
                for project in projects:  # before anything of it moves, whoever let it run
                    if project.state == "running":
                        sampling.draw(session, project, "the migration itself", clock.now())
            for project in projects:
                self._decide(project)
                if project.state == "running":
                    self._project(project)
        except SQLAlchemyError as error:
            self._say(f"the database can't be used: {type(error).__name__}; trying again")

    def take_over(self) -> None:
        """Before the first sweep: what workers of this machine held when they died is free at once."""
        try:
            with self._office.sessions.begin() as session:
                ended = predecessors.end_leases(session, socket.gethostname(), clock.now())
        except SQLAlchemyError as error:  # they run out by themselves
            self._say(f"the database can't be used: {type(error).__name__}; trying again")
            return
        if ended:
            log.warning("%s studies were held by workers of this machine that died; they go on", ended)

    def clock_was_put_back(self, by: timedelta) -> None:
        """What waits for moments of before is set right by the next sweep."""
        self._say(f"the clock was put back by {by}; what waited for moments of before is due now")
        self._is_set_right = False

    def tidy(self) -> None:
        """Put studies of expected patients first, and announce no more what is settled."""
        try:
            with self._office.sessions.begin() as session:
                projects = session.scalars(select(MigrationProject).where(MigrationProject.state != "inventory")).all()
                expected = turns.expected_patients(session, clock.now())
            for project in projects:
                with self._office.sessions.begin() as session:
                    if project.state == "running" and project.plan.get("Order") != "newest":
                        turns.prioritise(session, project, expected)
                    turns.forget(session, project, clock.now())
        except SQLAlchemyError as error:
            self._say(f"the database can't be used: {type(error).__name__}; trying again")

    def documents(self) -> None:
        """Put documents of old reports into the archive whose studies are here; what can't be now waits."""

        def may_go_on() -> bool:
            return not self.stop.is_set() and not no_room(self._office.room())

        office, zone = self._office, self._office.configuration.zambezi.site.zone
        try:
            archiving.store_all(office.sessions, office.reading or office.sessions, office.client(), zone, may_go_on)
        except (OrthancError, NotAnnounced) as error:
            self._say(f"documents of old reports wait: {error}")
        except SQLAlchemyError as error:
            self._say(f"the database can't be used: {type(error).__name__}; trying again")

    def wait(self) -> None:
        """Until every worker has let go of its study."""
        for worker_thread in [one for threads in self._workers.values() for one in threads]:
            worker_thread.join()

    def heartbeat(self) -> None:
        """Say that this process lives, and how much there is to do."""
        try:
            with self._office.sessions.begin() as session:
                projects = session.scalars(select(MigrationProject)).all()
                details = {
                    project.name: {"state": project.state, **ledger.states(session, project.id)}
                    for project in projects
                    if project.state == "running"
                }
                said, told = {"projects": details, **({"note": self._waits} if self._waits else {})}, self._last_error
                processes.heartbeat(session, PROCESS, clock.now(), self._office.configuration.hash, said, told)
            if self._last_error == told:
                self._last_error = ""
        except SQLAlchemyError as error:
            log.warning("no heartbeat: the database can't be used: %s", type(error).__name__)

    def _set_right(self) -> None:
        """Once at the start, and whenever the clock was put back."""
        if self._is_set_right:
            return
        self._is_set_right = True  # before: what is said meanwhile holds for the next sweep
        known = self._office.configuration.zambezi.migration.sources
        try:
            with self._office.sessions.begin() as session:
                for project in session.scalars(select(MigrationProject).where(MigrationProject.source.in_(known))):
                    jumps.set_right(session, project, known[project.source], clock.now())
        except SQLAlchemyError:
            self._is_set_right = False
            raise

    def _decide(self, project: MigrationProject) -> None:
        """Let the plan in force decide what it hasn't decided; stopped in the middle, it goes on after a start."""

        def go_on(_done: int, _total: int) -> None:
            if self.stop.is_set():
                raise Closed("the process is stopping")

        try:
            decided = plans.catch_up(self._office.sessions, project.id, clock.now(), go_on, self._office.reading)
        except Closed:
            return
        except ConfigurationFaults as faults:
            self._say(f"project {project.name}: its plan can't be used any more, take another one: {faults}")
            return
        if decided:
            log.info("project %s: the plan has decided %s studies", project.name, decided)

    def _project(self, project: MigrationProject) -> None:
        source = self._office.configuration.zambezi.migration.sources.get(project.source)
        if source is None:
            self._say(f"project {project.name}: the configuration has no source {project.source} any more")
            return
        site = self._office.configuration.zambezi.site
        if not windows.is_open(source.windows, clock.now(), site.zone, site.holidays):
            return
        ways = lanes.of_source(source)
        living = {
            lane: [one for one in self._workers.get((project.id, lane.name), []) if one.is_alive()] for lane in ways
        }
        self._workers |= {(project.id, lane.name): threads for lane, threads in living.items()}
        with (self._office.reading or self._office.sessions).begin() as session:
            due = {lane for lane in ways if ledger.is_due(session, project.id, clock.now(), lane)}
            is_over = not any(living.values()) and not ledger.is_under_way(session, project.id)
        if is_over:
            with self._office.sessions.begin() as session:
                if worker.finish_project(session, project.id, self._office.desk(project.source)):
                    log.info("project %s: all studies are at rest", project.name)
        for lane in due if not self.stop.is_set() else ():
            most = source.near_line_at_once if lane.is_near_line else pace.ceiling(source, site, clock.now())
            for _ in range(most - len(living[lane])):
                thread = threading.Thread(target=self._work, args=(project, lane), name=project.name, daemon=True)
                living[lane].append(thread)
                thread.start()

    def _work(self, project: MigrationProject, lane: Lane) -> None:
        try:
            desk = self._office.desk(project.source, self.stop)
            while self._is_running(desk, project):
                if worker.work(desk, project, lane):
                    continue
                if not worker.is_full(desk, project, lane):
                    return
                desk.pause(SLOT_SECONDS)
        except Closed as closed:
            log.info("project %s: %s", project.name, closed)
        except Fenced as fenced:
            log.warning("project %s: %s", project.name, fenced)
        except SQLAlchemyError as error:
            self._say(f"the database can't be used: {type(error).__name__}; trying again")
        except Exception as error:  # the edge of a worker's thread: the next sweep tries again, and the reason is seen
            log.exception("project %s: a worker failed", project.name)
            self._say(f"project {project.name}: {type(error).__name__}: {error}")

    def _is_running(self, desk: Desk, project: MigrationProject) -> bool:
        desk.check_open()
        with desk.looking.begin() as session:
            return session.get_one(MigrationProject, project.id).state == "running"

    def _say(self, error: str) -> None:
        log.warning("%s", error)
        self._last_error = error


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("apscheduler", "pynetdicom"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        office = open_office()
    except (ConfigurationFaults, EnvironmentFault) as faults:
        log.error("the configuration can't be used: %s", faults)
        sys.exit(2)
    except FileNotFoundError as error:
        log.error("%s is not there; `zambezi up` makes it", error.filename)
        sys.exit(2)
    migrations = Migrations(office)
    signal.signal(signal.SIGTERM, lambda *_: migrations.stop.set())
    signal.signal(signal.SIGINT, lambda *_: migrations.stop.set())
    migrations.take_over()
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults=_JOBS)
    at_once = datetime.now(UTC)
    scheduler.add_job(migrations.sweep, "interval", seconds=SWEEP_SECONDS, next_run_time=at_once)
    scheduler.add_job(migrations.heartbeat, "interval", seconds=HEARTBEAT_SECONDS, next_run_time=at_once)
    scheduler.add_job(migrations.documents, "interval", seconds=DOCUMENTS_SECONDS, next_run_time=at_once)
    scheduler.add_job(migrations.tidy, "interval", seconds=TIDY_SECONDS, next_run_time=at_once)
    waking.steady(scheduler)
    scheduler.start()
    waking.until(migrations.stop, scheduler, migrations.clock_was_put_back)
    scheduler.shutdown(wait=True)
    migrations.wait()
