"""Watches what begins and ends by itself, and tells persons of it, with the central database or without.

One job looks (`Watch.look`), a job for each way tells (`Watch.tell`). What was told is remembered in a file of our own
right after; a crash between the two tells twice, never not at all. The audit trail gets its entries once it can.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from operations import alerts, condition_file, condition_messages, conditions, observing
from operations.alert_channels import ChannelFailed, Way
from operations.condition_file import Memory, Sent
from operations.conditions import Condition, Going, News
from operations.trail import standing
from zambezi import audit, clock
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.disk import Gauge
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient

log = logging.getLogger("operations.conditions")

WRITER = "operations"


@dataclass(frozen=True)
class House:
    """What is looked at: an installation, its database (to write and to read), its archive and its disks."""

    environment: Environment
    writing: Sessions
    reading: Sessions
    archive: OrthancClient
    gauge: Gauge


class Watch:
    """What goes on, over time; used by the jobs of one process, one after another where they touch the same."""

    def __init__(self, house: House, settings: Zambezi, now: Callable[[], datetime] = clock.now) -> None:
        self._house = house
        self._settings = settings
        self._now = now
        self._file = condition_file.path(house.environment)
        self._lock = threading.Lock()
        self._memory = condition_file.load(self._file)
        self._unsaid = ""
        self._database = observing.Database(house.writing)

    @property
    def going(self) -> dict[str, Going]:
        """What goes on, by key."""
        with self._lock:
            return dict(self._memory.going)

    def look(self) -> list[Condition]:
        """Find out what goes on now, and remember it; what was found."""
        now = self._now()
        with self._lock:
            memory = self._memory  # looking adds to `seen` and `since`, which nobody else touches
        found, unknown = self._observe(memory, now)
        calm = timedelta(minutes=self._settings.alerts.calm_minutes)
        with self._lock:
            memory.going = conditions.follow(memory.going, found, unknown, calm, now)
            self._save()
        return found

    def _observe(self, memory: Memory, now: datetime) -> tuple[list[Condition], set[str]]:
        house, settings = self._house, self._settings
        found = observing.disk(house.gauge.look())
        found += (away := self._database.look())
        silent, said = observing.archive(house.archive)
        found += silent
        unknown = {"process", "audit"} if away else set()
        by_gateway: dict[str, str] = {}
        try:
            found += observing.processes(house.environment, house.reading, bool(away), now)
            by_gateway = {} if away else observing.seen_by_gateway(house.reading)
            found += [] if away else standing.conditions(house.reading, settings.audit)
        except SQLAlchemyError as error:  # it went away between the two looks
            log.warning("processes can't be looked at: %s", type(error).__name__)
            unknown |= {"process", "audit"}
        if away or not said:
            # Who was seen meanwhile is told later by those who saw it: nobody is called silent for our own absence.
            unknown.add("modality")
        else:
            seen = (said.get("seen", {}), by_gateway)
            found += observing.modalities(settings.alerts, settings.site, memory, seen, now)
        found += observing.certificate(house.environment, os.environ, settings.alerts.certificate_days, now)
        return found + observing.backup(house.environment, settings.alerts.backup_hours, memory, now), unknown

    def only(self, names: list[str]) -> None:
        """Forget channels that the configuration no longer names."""
        with self._lock:
            self._memory.going = conditions.only(self._memory.going, names)
            self._memory.channels = {name: one for name, one in self._memory.channels.items() if name in names}
            self._save()

    def tell(self, way: Way) -> str:
        """Tell what there is to tell by this way, if it is time; why that failed, or ""."""
        now = self._now()
        with self._lock:
            going = dict(self._memory.going)
            channel = _channel(self._memory.channels.get(way.name, Sent()))
        news = conditions.news(going, way.name, channel, self._settings.alerts, now)
        if not news:
            return ""
        site, page = self._settings.site, self._settings.alerts.page_address
        open_ones = sum(not one.is_over for one in going.values())
        told = condition_messages.document(news, open_ones, site, page, now)
        try:
            way.send(told, site.language, now)
        except ChannelFailed as failed:
            self._failed(way.name, str(failed), now)
            return str(failed)
        with self._lock:
            self._memory.going = conditions.remembered(self._memory.going, way.name, news, now)
            self._memory.channels[way.name] = Sent(clock.text(now))
            self._memory.unaudited.append(_fact(way.name, news, now))
            self._save()
        log.info("%s: told of %s", way.name, ", ".join(f"{one['state']} {one['kind']}" for one in told["conditions"]))
        return ""

    def audit_what_was_told(self) -> None:
        """Bring to the audit trail what was told while the database was away; SQLAlchemyError where it still is."""
        with self._lock:
            waiting = list(self._memory.unaudited)
        if not waiting:
            return
        with self._house.writing.begin() as session:
            for fact in waiting:
                audit.append(session, WRITER, "alerted", self._now(), **fact)
        with self._lock:
            self._memory.unaudited = self._memory.unaudited[len(waiting) :]
            self._save()

    def _failed(self, name: str, why: str, now: datetime) -> None:
        with self._lock:
            before = self._memory.channels.get(name, Sent())
            if before.error != why:
                log.warning("%s: %s; trying again", name, why)
            failures = before.failures + 1
            at = clock.text(now)
            self._memory.channels[name] = replace(
                before, failures=failures, next_at=clock.text(now + alerts.back_off(failures)), error=why,
                error_since=before.error_since or at,
            )  # fmt: skip
            self._save()

    def _save(self) -> None:
        self._memory.unaudited = self._memory.unaudited[-condition_file.UNAUDITED :]
        try:
            condition_file.save(self._file, self._memory)
            self._unsaid = ""
        except OSError as error:
            if self._unsaid != str(error):
                log.warning("%s can't be written, what goes on is in memory alone: %s", self._file, error)
            self._unsaid = str(error)


def _fact(channel: str, news: News, now: datetime) -> dict[str, object]:
    """For the entry `alerted`: never more than ids."""
    groups = (("begun", news.new), ("still", news.still), ("over", news.over))
    told = [f"{state} {one.found.key}" for state, going in groups for one in going]
    return {
        "channel": channel, "about": "condition", "count": len(told), "conditions": told[: condition_messages.MOST],
        "told_at": clock.text(now),
    }  # fmt: skip


def _channel(sent: Sent) -> alerts.Channel:
    return alerts.Channel(
        clock.parse(sent.sent_at) if sent.sent_at else None, "", sent.failures,
        clock.parse(sent.next_at) if sent.next_at else None,
    )  # fmt: skip
