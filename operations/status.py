"""What runs, what waits and what went wrong, in one look, with parts of it dead too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations import (
    alone,
    certificate_keeping,
    certificates,
    condition_file,
    conditions,
    encryption,
    source_certificates,
    supervision,
    volumes,
)
from operations.backup import schedule, standstill
from operations.backup.schedule import Last
from operations.condition_file import Sent
from operations.conditions import Going
from operations.trail import standing
from operations.trail.standing import Standing
from operations.volumes import VolumeState
from zambezi import __version__, breakers, clock, disk, exceptions, keys, leases, signing
from zambezi.config import ConfigurationFaults, load
from zambezi.config.settings import Disk
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import (
    AlertChannel,
    CommitmentRequest,
    Delivery,
    ExceptionItem,
    Message,
    MigrationStudy,
    ProcessState,
)
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient, OrthancError

T = TypeVar("T")

#: A process that wrote no sign of life for so long is shown as silent.
SILENT_SECONDS = 30
#: These write no signs of life: Orthanc is asked itself, and nginx has no state.
SPEECHLESS = ("orthanc", "front")
#: Conditions that have a sentence of their own in the status.
_SAID_ELSEWHERE = ("certificate-expiring", "backup-old", "collector-away", "checkpoint-not-mailed")


@dataclass(frozen=True)
class Part:
    """One process: what supervisord says of it and what it last said of itself."""

    name: str
    state: str
    since: str = ""
    version: str = ""
    configuration: str = ""
    said: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    last_error: str = ""
    last_error_at: str = ""

    @property
    def is_well(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True)
class AlertState:
    """A way by which persons are told: when it told last, and since when it fails with what ("" where it doesn't)."""

    name: str
    sent_at: str
    error: str
    error_since: str


@dataclass(frozen=True)
class BackupState:
    """What the last backup came to; `is_wanted`: a repository is configured; `age`: of the last success, in words."""

    is_wanted: bool
    is_running: bool
    age: str
    last: Last


@dataclass(frozen=True)
class Status:
    """All of it; `trouble` has what could not be asked, as sentences, and `paused` the neighbours that are left alone.

    `configuration` is the hash under which things run, `configuration_on_disk` that of the JSON as it is now ("" with
    faults).
    """

    version: str
    home: str
    configuration: str
    configuration_on_disk: str
    parts: list[Part]
    archive: dict[str, Any]
    queues: dict[str, int]
    paused: list[str]
    exceptions: list[exceptions.Waiting]
    alerts: list[AlertState]
    trouble: list[str]
    volumes: list[VolumeState] = field(default_factory=list)
    conditions: list[Going] = field(default_factory=list)
    signing: list[dict[str, Any]] = field(default_factory=list)
    databases: dict[str, str] = field(default_factory=dict)  # central, index: on which engine
    backup: BackupState | None = None
    certificates: list[dict[str, Any]] = field(default_factory=list)
    #: Where patients' data and keys lie, and whether that is encrypted at rest.
    encryption: list[encryption.Found] = field(default_factory=list)
    audit: Standing | None = None

    @property
    def is_well(self) -> bool:
        parts, disks = (all(one.is_well for one in found) for found in (self.parts, self.volumes))
        return parts and disks and not self.trouble


#: What is worked on under leases: what it is called, its table, and the states in which a worker has it.
_LEASED = (("deliveries", Delivery, ("sending",)), ("studies of migrations", MigrationStudy, ("moving", "verifying")))


def queues(session: Session, now: datetime) -> dict[str, int]:
    """How much waits: deliveries by state, exceptions that nobody has decided, messages that could not be applied.

    And what no living worker has: its lease ran out, and the next that is free takes it over.
    """
    found = {
        f"deliveries {state}": number
        for state, number in session.execute(
            select(Delivery.state, func.count()).where(Delivery.state != "delivered").group_by(Delivery.state)
        )
    }
    open_items = select(func.count()).select_from(ExceptionItem).where(ExceptionItem.decided_at.is_(None))
    waiting = select(func.count()).select_from(Message).where(Message.state == "waiting")
    found |= _commitment(session)
    found["exceptions open"] = session.scalars(open_items).one()
    found["messages waiting"] = session.scalars(waiting).one()
    for what, table, states in _LEASED:
        found[f"{what} abandoned by their workers"] = leases.abandoned(session, table, states, now)
    return found


def _commitment(session: Session) -> dict[str, int]:
    """Modalities that ask whether their images are safe: those that aren't told yet, that can't be told, that ask
    Orthanc's own port, which looks at no file."""
    state = CommitmentRequest.state
    counted = {
        "storage commitment requests under way": (func.count(), ("due", "working", "retrying")),
        "storage commitment requests stopped": (func.count(), ("parked",)),
        "modalities that ask port 4242 for storage commitment": (
            func.count(CommitmentRequest.aet.distinct()),
            ("elsewhere",),
        ),
    }
    found = {
        what: session.scalar(select(how).select_from(CommitmentRequest).where(state.in_(states))) or 0
        for what, (how, states) in counted.items()
    }
    return {what: number for what, number in found.items() if number}


def alert_states(session: Session) -> list[AlertState]:
    """Every channel that was used or tried, by name."""
    rows = session.scalars(select(AlertChannel).order_by(AlertChannel.name))
    return [AlertState(row.name, row.sent_at or "", row.error, row.error_since or "") for row in rows]


def with_conditions(told: list[AlertState], channels: Mapping[str, Sent]) -> list[AlertState]:
    """The channels as they stand with exceptions and with conditions together: a failure of either counts."""
    known = {one.name: one for one in told}
    for name, sent in channels.items():
        one = known.get(name, AlertState(name, "", "", ""))
        failing = (one.error, one.error_since) if one.error else (sent.error, sent.error_since)
        known[name] = AlertState(name, max(one.sent_at, sent.sent_at), *failing)
    return [known[name] for name in sorted(known)]


def parts(rows: list[ProcessState], running: list[supervision.Process] | None, now: datetime) -> list[Part]:
    """Each process, put together from its row and from supervisord's answer (None: nothing runs)."""
    said = {row.process: row for row in rows}
    seen = {process.name: process for process in running or []}
    nodes = [name for name in seen if name.startswith("orthanc-")]
    return [_part(name, said.get(name), seen.get(name), now) for name in (*supervision.present(), *nodes)]


def _part(name: str, row: ProcessState | None, seen: supervision.Process | None, now: datetime) -> Part:
    state = seen.state.lower() if seen else "stopped"
    if state == "running" and name.partition("-")[0] not in SPEECHLESS:
        last = clock.parse(row.at).timestamp() if row else 0
        if last < (seen.since if seen else 0):
            state = "starting"
        elif now.timestamp() - last > SILENT_SECONDS:
            state = "silent"
    since = clock.text(datetime.fromtimestamp(seen.since, now.tzinfo)) if seen and seen.since else ""
    if not row:
        return Part(name, state, since)
    return Part(
        name, state, since, row.version, row.configuration, row.at, row.details, row.last_error, row.last_error_at or ""
    )


def look(environment: Environment, now: datetime) -> Status:
    """Ask everything there is to ask; what doesn't answer becomes a sentence."""
    trouble: list[str] = []
    loaded = _tried(lambda: load(environment.config_dir, {**os.environ, **environment.variables()}), None, trouble)
    on_disk = loaded.hash if loaded else ""
    databases = {"index": "PostgreSQL" if loaded.index_is_postgresql else "SQLite"} if loaded else {}
    running = supervision.processes(environment)
    if running is None and alone.is_prepared(environment):
        running = alone.seen(environment)
    if running is None:
        trouble.append("nothing runs here; `zambezi up` starts it")
    rows: list[ProcessState] = []
    depths: dict[str, int] = {}
    paused: list[str] = []
    waiting: list[exceptions.Waiting] = []
    told: list[AlertState] = []
    trail: Standing | None = None
    engine = connect(environment.database_url, "operations", reading=True)
    try:
        with sessions(engine, "operations")() as session:
            rows = list(session.scalars(select(ProcessState)))
            depths = queues(session, now)
            paused = [found.words for found in breakers.paused(session)]
            waiting = exceptions.waiting(session)
            told = alert_states(session)
            trail = standing.look(session, loaded.zambezi.audit) if loaded else None
        version = ".".join(map(str, engine.dialect.server_version_info or ()))
        databases["central"] = f"{'SQLite' if engine.dialect.name == 'sqlite' else 'PostgreSQL'} {version}"
    except SQLAlchemyError as error:
        trouble.append(database_trouble(error))
    finally:
        engine.dispose()
    remembered = condition_file.load(condition_file.path(environment))
    told = with_conditions(told, remembered.channels)
    trouble += [f"alerts by {one.name} fail since {one.error_since[:19]}: {one.error}" for one in told if one.error]
    none: list[certificates.Held] = []
    held = _tried(lambda: certificate_keeping.known(environment, os.environ), none, trouble)
    held = [*held, *_tried(lambda: source_certificates.known(loaded) if loaded else none, none, trouble)]
    trouble += [one.sentence for one in certificates.expiring(held, now)]
    nothing: dict[str, Any] = {}
    archive = _tried(lambda: _archive(environment), nothing, trouble) if running else nothing
    trouble += _silent_nodes(environment, archive)
    said = [row.configuration for row in sorted(rows, key=lambda row: row.at)] if running else []
    configuration = str(archive.get("configuration") or (said[-1] if said else on_disk))
    backup = backup_state(environment, bool(loaded and loaded.zambezi.backup.repository), now)
    complaint = schedule.complaint(loaded.zambezi.backup, backup.last, now) if loaded else ""
    trouble += [complaint] if complaint else []
    trouble += [trail.trouble] if trail and trail.trouble else []
    return Status(
        __version__,
        str(environment.home),
        configuration,
        on_disk,
        parts(rows, running, now),
        archive,
        depths,
        paused,
        waiting,
        told,
        trouble,
        volumes.states(disk.measure(disk.folders(environment)), archive, loaded.zambezi.disk if loaded else Disk()),
        [one for one in remembered.going.values() if _is_news(one, now)],
        _tried(lambda: signers(environment, now), [], trouble),
        databases,
        backup,
        [
            {"what": one.what, "names": one.names, "until": clock.text(one.until), "days": one.days_left(now)}
            for one in held
        ],
        encryption.look(encryption.places(environment, loaded.orthanc if loaded else {}, os.environ)),
        trail,
    )


def backup_state(environment: Environment, is_wanted: bool, now: datetime) -> BackupState:
    """The last backup's outcome, and whether one runs now."""
    last = schedule.last(environment.backup_dir)
    age = schedule.hours(now - clock.parse(last.finished)) if last.finished else ""
    return BackupState(is_wanted, standstill.is_running(environment), age, last)


def signers(environment: Environment, now: datetime) -> list[dict[str, Any]]:
    """Which key signs for each purpose, since when, and how many days that is; SigningFault where keys don't hold."""
    found = []
    for purpose in sorted(signing.PURPOSES):
        known = signing.register(environment.signing_dir, purpose)
        if known:
            key = known.keys[-1]
            days = (now - clock.parse(key.since)).days
            found.append({"purpose": purpose, "key_id": key.key_id, "since": key.since, "days": days})
    return found


def database_trouble(error: SQLAlchemyError) -> str:
    """Why the database can't be asked, as a sentence."""
    said = str(error).splitlines()[0]
    if "no such table" in said or "unable to open database file" in said:
        return "there is no database yet; `zambezi up` makes it"
    return f"the database doesn't answer: {said}"


def _archive(environment: Environment) -> dict[str, Any]:
    client = OrthancClient(environment, keys.load(environment.keys_file), "operations", timeout_s=5)
    found: dict[str, Any] = client.get("/zambezi/status")
    return found


def _silent_nodes(environment: Environment, archive: dict[str, Any]) -> list[str]:
    """The nodes that don't answer, as sentences."""
    answer = {one["node"] for one in archive.get("nodes", [])}
    silent = [node for node in environment.nodes if archive and node.name not in answer]
    return [f"the archive's node {node.name} doesn't answer; the others go on" for node in silent]


def _tried(ask: Callable[[], T], otherwise: T, trouble: list[str]) -> T:
    try:
        return ask()
    except ConfigurationFaults as faults:
        trouble.append(f"the configuration in orthanc-config has faults (what runs goes on): {faults}")
    except OrthancError as error:
        trouble.append(f"the archive doesn't answer: {error}")
    except FileNotFoundError as error:
        trouble.append(f"{error.filename} is not there yet")
    except (certificates.CertificateFault, EnvironmentFault) as fault:
        trouble.append(f"a certificate can't be used: {fault}")
    except signing.SigningFault as fault:
        trouble.append(f"the signing keys can't be used: {fault}")
    return otherwise


def _is_news(going: Going, now: datetime) -> bool:
    """Whether a condition is to be said; certificates and backups have sentences of their own here."""
    if going.found.kind in _SAID_ELSEWHERE:
        return False
    return not going.gone_at and conditions.is_due(going, now)
