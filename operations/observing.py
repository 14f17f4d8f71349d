"""What can be found out about the house, each by itself: a list of conditions, or None where it can't be known now.

Disk, processes, the database itself, modalities, certificate and backup. Nothing here waits longer than some seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from operations import alone, conditions, front_door, status, supervision
from operations.condition_file import Memory
from operations.conditions import Condition
from zambezi import clock
from zambezi.config.settings import Alerts, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import ProcessState
from zambezi.disk import LEVELS, Room, gigabytes
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient, OrthancError

log = logging.getLogger("operations.conditions")

#: supervisord's states, and ours, in which a process does not do its work.
DEAD = ("backoff", "fatal", "exited", "stopped", "unknown", "silent")
#: These say that they live in the database alone: without it nobody knows, where no supervisor of ours runs.
KNOWN_BY_DATABASE = ("migration", "operations")
#: Beside each other on one disk they fill it in the same way: one condition a volume, by how bad it is.
DISK_KINDS = {"low": "disk-low", "scarce": "disk-scarce", "full": "disk-full", "spent": "disk-full"}


def disk(room: Room) -> list[Condition]:
    """Every volume that lacks room."""
    return [
        Condition(
            "disk", one.volume.name, DISK_KINDS[one.level],
            {"source": one.volume.name, "free": gigabytes(one.volume.free), "total": gigabytes(one.volume.total)},
            LEVELS.index(one.level),
        )
        for one in room.volumes
        if one.level in DISK_KINDS
    ]  # fmt: skip


class Database:
    """Whether the database takes a change: one that can be read and has no room for more is away, too.

    A server that is gone may keep whoever asks waiting for minutes: then another thread waits for it, not we.
    """

    def __init__(self, writing: Sessions, whole_s: float = 15) -> None:
        self._writing = writing
        self._whole_s = whole_s
        self._asking: threading.Thread | None = None
        self._reason = ""

    def look(self) -> list[Condition]:
        """The database as it is now, after some seconds at most."""
        if self._asking is None or not self._asking.is_alive():
            self._reason = f"it does not answer within {self._whole_s:g} seconds"
            self._asking = threading.Thread(target=self._ask, name="database", daemon=True)
            self._asking.start()
        self._asking.join(self._whole_s)
        reason = self._reason
        return [Condition("database", "central", "database-away", {"reason": reason})] if reason else []

    def _ask(self) -> None:
        try:
            with self._writing.begin() as session:
                ours = update(ProcessState).where(ProcessState.process == "operations")
                session.execute(ours.values(version=ProcessState.version))
        except SQLAlchemyError as error:
            self._reason = status.database_trouble(error)[:300]
        except Exception as error:  # edge of the thread: whatever it is, the database can't be used
            log.exception("the database can't be looked at")
            self._reason = type(error).__name__
        else:
            self._reason = ""


def processes(environment: Environment, reading: Sessions, database_is_away: bool, now: datetime) -> list[Condition]:
    """Every process that does not do its work, whoever supervises it; ourselves we can't miss.

    Signs of life stand in the database: without it what the supervisor says counts alone.
    """
    rows: list[ProcessState] = []
    if not database_is_away:
        with reading() as session:
            rows = list(session.scalars(select(ProcessState)))
    running = supervision.processes(environment)
    is_alone = running is None and alone.is_prepared(environment)
    unknown = {"operations", *(KNOWN_BY_DATABASE if is_alone and database_is_away else ())}
    if is_alone:
        running = alone.seen(environment, unknown)
    if running is None:
        return []  # somebody runs this process by hand: there is nothing to compare with
    return [
        Condition("process", part.name, "process-dead", {"source": part.name, "state": part.state})
        for part in status.parts(rows, running, now)
        if part.name not in unknown and part.state in DEAD and not (database_is_away and part.state == "silent")
    ]


def archive(client: OrthancClient) -> tuple[list[Condition], dict[str, Any]]:
    """Whether the archive answers, and what it says of itself ({} where it doesn't)."""
    try:
        said: dict[str, Any] = client.get("/zambezi/status")
    except OrthancError as error:
        return [Condition("archive", "orthanc", "archive-away", {"reason": str(error)[:300]})], {}
    return [], said


def seen_by_gateway(reading: Sessions) -> dict[str, str]:
    """Modalities that spoke with the gateway (MPPS, worklist, echo), and when."""
    with reading() as session:
        row = session.get(ProcessState, "gateway")
        return _moments(row.details.get("seen")) if row else {}


def modalities(
    settings: Alerts, site: Site, memory: Memory, seen: tuple[Mapping[str, Any], ...], now: datetime
) -> list[Condition]:
    """Modalities that are expected and silent. Who was never seen is silent since it is expected."""
    for one in seen:
        for aet, at in _moments(one).items():
            if aet in settings.modalities:
                memory.seen[aet] = max(memory.seen.get(aet, ""), at)
    memory.seen = {aet: at for aet, at in memory.seen.items() if aet in settings.modalities}
    found = []
    for aet, expected in settings.modalities.items():
        first = memory.since.setdefault(f"modality {aet}", clock.text(now))
        last = clock.parse(max(memory.seen.get(aet, ""), first))
        found.append(conditions.silent(aet, expected, last, site.zone, site.holidays, now))
    return [one for one in found if one]


def certificate(environment: Environment, environ: Mapping[str, str], days: int, now: datetime) -> list[Condition]:
    """Whether the front door's certificate ends soon; worse in the last week, and once it has ended."""
    ends = certificate_end(environment, environ)
    if ends is None or not days or ends - now >= timedelta(days=days):
        return []
    left = max(0, (ends - now).days)
    grade = 3 if ends <= now else 2 if left < 7 else 1
    facts: dict[str, str | int] = {"end": ends.date().isoformat(), "days": left}
    return [Condition("certificate", "front", "certificate-expiring", facts, grade)]


def certificate_end(environment: Environment, environ: Mapping[str, str]) -> datetime | None:
    """When the front door's certificate ends; None where there is none, or none that can be read."""
    try:
        given = front_door.certificate(environment, environ)
        found = x509.load_pem_x509_certificate(given.chain.read_bytes()) if given else None
    except (EnvironmentFault, OSError, ValueError) as error:
        log.warning("the front door's certificate can't be looked at: %s", error)
        return None
    return found.not_valid_after_utc if found else None


def backup(environment: Environment, hours: float, memory: Memory, now: datetime) -> list[Condition]:
    """Whether the last good backup is old (ZAMBEZI_HOME/backup/last.json: finished, ok); none counts from our start."""
    if not hours:
        return []
    first = memory.since.setdefault("backup", clock.text(now))
    good = memory.since.get("good backup", "")
    try:
        said = json.loads((environment.home / "backup" / "last.json").read_bytes())
        if said["ok"]:
            good = clock.text(datetime.fromisoformat(str(said["finished"]).replace("Z", "+00:00")).astimezone(UTC))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the last backup can't be looked at: %s", type(error).__name__)
    if good:
        memory.since["good backup"] = good
    if now - clock.parse(good or first) < timedelta(hours=hours):
        return []
    return [Condition("backup", "last", "backup-old", {"last": good[:16].replace("T", " ") or "-"})]


def _moments(said: Any) -> dict[str, str]:
    """AE titles and moments, as somebody else wrote them; what isn't a moment is left out."""
    if not isinstance(said, dict):
        return {}
    found = {}
    for aet, at in said.items():
        try:
            found[str(aet)] = clock.text(clock.parse(at))
        except (TypeError, ValueError):
            continue
    return found
