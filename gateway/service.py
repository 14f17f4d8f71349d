"""The gateway process: its threads, their signs of life, and its end.

    journal      follows the archive's journal into the central database
    pushes       worklist, announced studies and revocations to the plugin
    nodes        of several nodes: who records, and what the others are brought (journal and pushes are one a node)
    dicom-out-*  deliveries of images, for each destination as many threads as its Parallel says
    fetch-*      earlier studies of patients, from other archives, one thread each
    hl7-out-*    messages out, one thread a peer
    ahead        earlier studies that are fetched because an exam is ordered
    triggers     HL7 messages about exams, deliveries and rejections
    hl7-in       the MLLP server
    modalities   MPPS, worklist, storage commitment; and what destinations report that were asked for it
    commitment   looks whether images are safe and tells the stations that asked; and whether Orthanc's port was asked

Every thread survives the absence of its neighbours: it says so once in the log and goes on when they are back.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.exc import DBAPIError

from gateway import ahead, fetching, ready, transcoding, ways
from gateway.callers import Callers
from gateway.coercing_admission import Gate
from gateway.coercing_port import CoercingPort
from gateway.commitment import elsewhere
from gateway.commitment.worker import Worker, release_predecessors
from gateway.commitments_asked import Commitments
from gateway.deliveries import DicomSender, park_strangers
from gateway.dicom_server import DicomServer
from gateway.hl7.inbox import Inbox
from gateway.hl7.sender import Sender
from gateway.hl7.server import MllpServer
from gateway.journal import Follower
from gateway.nodes import Nodes
from gateway.orthanc_jobs import end_left_behind
from gateway.pushes import Pushes
from gateway.triggers import Watcher
from zambezi import audit, clock, config, keys, outbox
from zambezi.bandwidth import Line
from zambezi.config import Configuration, ConfigurationFaults
from zambezi.database import engine
from zambezi.database.engine import Sessions
from zambezi.database.tables import ProcessState
from zambezi.environment import Environment, EnvironmentFault, Node
from zambezi.orthanc_client import OrthancClient, OrthancError
from zambezi.processes import heartbeat

log = logging.getLogger("zambezi.gateway")

PROCESS = "gateway"
HEARTBEAT_S = 5.0
PUSH_S = 1.0
AWAY_S = 2.0
#: The archive may start together with us, and look through its files first: until then it's no error that it is away.
COMING_UP_S = 60.0
#: One station that hangs must not keep the others from being told.
COMMITMENT_WORKERS = 2
#: An attempt's C-FIND may take as long as Orthanc's own DicomScuTimeout, and then some.
DELIVERY_TIMEOUT_S = 150
#: One large object on a slow disk.
STORE_TIMEOUT_S = 120


@dataclass
class Repeated(threading.Thread):
    """A thread that does one thing again and again until `stop` is set, whatever its neighbours do."""

    label: str
    act: Callable[[], float]  # returns the seconds to wait before the next time
    stop_asked: threading.Event
    error: str = ""
    patience_s: float | None = None  # how long a stop waits for it; None: until it is through with what it does
    has_acted: bool = False

    def __post_init__(self) -> None:
        super().__init__(name=self.label, daemon=self.patience_s is not None)
        self._made = time.monotonic()

    def __hash__(self) -> int:
        return id(self)  # threads are kept in sets by their identity

    @property
    def is_coming_up(self) -> bool:
        """Whether its error is no more than that what it works with has not come up yet, either."""
        return not self.has_acted and time.monotonic() - self._made < COMING_UP_S

    def run(self) -> None:
        while not self.stop_asked.is_set():
            try:
                wait = self.act()
                if self.error:
                    log.info("%s: goes on", self.label)
                self.error, self.has_acted = "", True
            except (OrthancError, DBAPIError, ValueError) as error:
                wait = AWAY_S
                self._say(_in_words(error))
            except Exception as error:  # edge of the thread: it must not end while the process lives
                wait = AWAY_S * 5
                self._say(f"{type(error).__name__}")
                log.exception("%s: unexpected", self.label)
            self.stop_asked.wait(wait)

    def _say(self, words: str) -> None:
        if words != self.error:
            log.warning("%s: %s; trying again", self.label, words)
        self.error = words


class Gateway:
    """All of it for one installation."""

    def __init__(self, environment: Environment, configuration: Configuration, sessions: Sessions) -> None:
        self._sessions = sessions
        self._configuration = configuration
        settings = configuration.zambezi
        self.stop_asked = threading.Event()
        known = keys.load(environment.keys_file)

        def orthanc(timeout_s: float = 30, only: Node | None = None) -> OrthancClient:
            return OrthancClient(environment, known, PROCESS, timeout_s, only)

        # Whoever holds this machine's MLLP port is the only gateway here, so it may end its predecessors' leases.
        self._place = f"{socket.gethostname()[:32]}:{environment.ports.mllp}"
        self._run = uuid.uuid4().hex[:8]
        owner = f"{self._place}/{self._run}"
        several = environment.nodes
        self._archives = [orthanc(only=node) for node in several or (None,)]
        self._followers = {
            node.name: Follower(sessions, settings, orthanc(only=node), node=node.name, is_first=node == several[0])
            for node in several
        } or {"": Follower(sessions, settings, orthanc())}
        pushes = {node.name: Pushes(sessions, settings, orthanc(only=node)) for node in several}
        self._nodes = Nodes(sessions, {node.name: orthanc(only=node) for node in several}) if several else None
        self.mllp = MllpServer(sessions, settings.hl7, Inbox(sessions, settings), environment.ports.mllp)
        commitments = Commitments(sessions, configuration.modalities)
        self.modalities = DicomServer(sessions, settings, configuration.modalities, environment.ports.mpps, commitments)
        gate = Gate(sessions, settings.admission, configuration.modalities, environment.hold_dir, clock.now)
        self.coercing: CoercingPort | None = None
        if environment.coercing_port is not None:
            self.coercing = CoercingPort(
                sessions, configuration.modalities, partial(orthanc, STORE_TIMEOUT_S),
                str(configuration.orthanc.get("DicomAet", "ZAMBEZI")), environment.coercing_port, gate,
            )  # fmt: skip
        self._threads: list[Any] = []
        for name, follower in self._followers.items():
            following = Repeated(f"journal {name}".strip(), partial(_follow, follower), self.stop_asked, patience_s=1)
            self._threads.append(following)
        for name, pushing in (pushes or {"": Pushes(sessions, settings, orthanc())}).items():
            self._threads.append(Repeated(f"pushes {name}".strip(), partial(_push, pushing), self.stop_asked))
        if self._nodes:
            self._threads.append(Repeated("nodes", self._nodes.round, self.stop_asked))
        self._threads.append(Repeated("ahead", ahead.Looker(sessions, settings).round, self.stop_asked))
        self._threads.append(Repeated("triggers", Watcher(sessions, configuration).round, self.stop_asked))
        shutil.rmtree(environment.home / transcoding.FOLDER, ignore_errors=True)  # what a killed one left half done
        there = ways.Neighbourhood(
            configuration.modalities, configuration.orthanc_peers, settings.site,
            str(configuration.orthanc.get("DicomAet", "ORTHANC")), environment.home,
            str(configuration.orthanc.get("HttpsCACertificates", "")),
        )  # fmt: skip
        for name, to in settings.destinations.items():
            line = Line()
            for number in range(1, to.parallel + 1):
                way = ways.courier(
                    sessions, orthanc(DELIVERY_TIMEOUT_S), name, to, there, commitments, line, self.stop_asked
                )
                self._threads.append(
                    DicomSender(sessions, way, name, to, settings.site, owner, self.stop_asked, number=number)
                )
        for name, source in settings.prior_sources.items():
            fetcher = ways.fetcher(sessions, orthanc(DELIVERY_TIMEOUT_S), name, source, there, gate, self.stop_asked)
            kind = fetching.KIND
            self._threads.append(
                DicomSender(sessions, fetcher, name, source, settings.site, owner, self.stop_asked, kind=kind)
            )
        stations, askers = configuration.modalities, self.modalities.askers
        self._threads += [
            Worker(
                sessions, orthanc(), settings, stations, askers, owner, self.stop_asked, environment.home, ready.signal
            )
            for _ in range(COMMITMENT_WORKERS)
        ]
        for node in several or (None,):
            watch = elsewhere.Watch(sessions, orthanc(only=node), environment.ports.mpps)
            name = f"archive's own port {node.name if node else ''}".strip()
            self._threads.append(Repeated(name, watch.look, self.stop_asked))
        self._threads += [
            Sender(sessions, name, peer, settings.site, owner, self.stop_asked)
            for name, peer in settings.hl7.peers.items()
            if peer.host
        ]

    def run(self) -> None:
        """Until `stop_asked` is set. OSError where a port is taken."""
        self.mllp.start()
        try:
            self.modalities.start()
            if self.coercing:
                self.coercing.start()
                log.info("ready: the coercing port on %s", self.coercing.port)
            self._release_predecessors()
            self._remember_callers()
            for thread in self._threads:
                thread.start()
            log.info("ready: MLLP on %s, DICOM on %s", self.mllp.port, self.modalities.port)
            while not self.stop_asked.is_set():
                self._beat()
                self.stop_asked.wait(HEARTBEAT_S)
            if self.modalities.callers.due(clock.now(), all_of_it=True):
                self._beat()
        finally:
            self.stop_asked.set()
            self.mllp.stop()
            self.modalities.stop()
            if self.coercing:
                self.coercing.stop()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(getattr(thread, "patience_s", None))

    def _release_predecessors(self) -> None:
        try:
            with self._sessions.begin() as session:
                released = outbox.release_predecessors(session, self._place, self._run, now=clock.now())
                released += release_predecessors(session, self._place, self._run)
        except DBAPIError as error:
            log.warning("the database is away (%s); leases end by themselves", type(error.orig).__name__)
            return
        if released:
            log.info("%d deliveries and answers that were under way when the gateway died are due again", released)
            self._end_left_behind()

    def _end_left_behind(self) -> None:
        try:
            ended = sum(end_left_behind(orthanc) for orthanc in self._archives)
        except OrthancError as away:
            log.warning("what Orthanc may still be sending was not ended: %s", away)
            return
        if ended:
            log.info("%d jobs that Orthanc went on with when the gateway died were ended; what is missing goes", ended)

    def _remember_callers(self) -> None:
        try:
            with self._sessions.begin() as session:
                before = session.get(ProcessState, PROCESS)
                self.modalities.callers.remember(before.details.get("callers", []) if before else [])
        except DBAPIError as error:
            log.warning("the database is away (%s); who called before is forgotten", type(error.orig).__name__)

    def _journals(self) -> dict[str, Any]:
        told = {name: {"seq": one.seq, "head": one.head} for name, one in self._followers.items()}
        return told if self._nodes else told[""]

    def _beat(self) -> None:
        now: datetime = clock.now()
        associated = self.modalities.callers.due(now, self.stop_asked.is_set())
        errors = {
            thread.name: thread.error for thread in self._threads
            if thread.error and not getattr(thread, "is_coming_up", False)
        }  # fmt: skip
        try:
            with self._sessions.begin() as session:
                settings = self._configuration.zambezi
                park_strangers(session, "dicom", set(settings.destinations), now=now)
                park_strangers(session, fetching.KIND, set(settings.prior_sources), now=now)
                listening = {name for name, peer in settings.hl7.peers.items() if peer.host}
                park_strangers(session, "hl7", listening, now=now)
                details = {
                    "deliveries": outbox.depths(session),
                    "journal": self._journals(),
                    **({"nodes": self._nodes.told} if self._nodes else {}),
                    "hl7_connections": self.mllp.connections,
                    "seen": dict(self.modalities.seen),
                    "callers": self.modalities.callers.told,
                    "leases_taken_over": sum(getattr(thread, "taken_over", 0) for thread in self._threads),
                    "errors": errors,
                }
                said = "; ".join(f"{name}: {words}" for name, words in errors.items())
                heartbeat(session, PROCESS, now, self._configuration.hash, details, said)
                for caller, count in associated.items():
                    audit.append(session, PROCESS, "associated", now, **Callers.facts(caller, count, now))
            self.modalities.callers.entered(associated, now)
        except DBAPIError as error:
            log.warning("the database is away: %s", type(error.orig).__name__)


def _follow(follower: Follower) -> float:
    # Where nothing happens it waits in the archive, and a stop leaves it there: what isn't committed comes again.
    follower.follow()
    return 0


def _push(pushes: Pushes) -> float:
    pushes.push_what_is_newer(clock.now())
    return PUSH_S


def main() -> int:
    """Start the gateway; the process's exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # pynetdicom tells every association, with names in it, at INFO.
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)
    # These two say what stands in an image that they find odd.
    for telling in ("pynetdicom.dsutils", "pydicom"):
        logging.getLogger(telling).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        environment = Environment.read()
        configuration = config.load(environment.config_dir, os.environ)
    except (EnvironmentFault, ConfigurationFaults) as faults:
        log.error("the configuration can't be used:\n%s", faults)
        return 2
    made = engine.sessions(engine.connect(environment.database_url, PROCESS), PROCESS)
    gateway = Gateway(environment, configuration, made)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: gateway.stop_asked.set())
    try:
        gateway.run()
    except OSError as error:
        log.error("can't listen: %s; is another gateway running on these ports?", error)
        return 1
    return 0


def _in_words(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return outbox.database_trouble(error)
    return str(error)[:300]
