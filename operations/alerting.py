"""Tells persons what `operations.alerts` decides, and remembers what each channel has told.

The message goes out outside of any transaction; what was told is written right after. Between the two a crash tells
twice, never not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from operations import alerts
from operations.alert_channels import ChannelFailed, Way
from operations.alerts import Concern, Message
from zambezi import audit, clock
from zambezi.config.settings import Alerts, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import AlertChannel, AlertTold, ExceptionItem

log = logging.getLogger("operations.alerts")

WRITER = "operations"
#: Ids in one statement, and in one entry of the audit trail.
BATCH = 500
#: How often a channel is looked at; the interval of the configuration is what keeps messages apart.
EVERY = timedelta(seconds=20)


def forget_others(session: Session, names: Collection[str]) -> None:
    """Forget channels that the configuration no longer names: what doesn't exist can't fail."""
    session.execute(delete(AlertChannel).where(AlertChannel.name.not_in(names)))
    session.execute(delete(AlertTold).where(AlertTold.channel.not_in(names)))


class Teller:
    """Tells by one way; used by one thread."""

    def __init__(
        self, sessions: Sessions, way: Way, settings: Alerts, site: Site, now: Callable[[], datetime] = clock.now
    ) -> None:
        self._sessions = sessions
        self._way = way
        self._settings = settings
        self._site = site
        self._now = now
        #: What the row says unless it could not be written: a full disk must not make us repeat ourselves.
        self._sent_at: datetime | None = None

    def round(self) -> alerts.Decision:
        """Look what there is to tell and tell it if it is time; what was decided. A failure stands in our row."""
        now = self._now()
        with self._sessions.begin() as session:
            concerns = [one for source in alerts.SOURCES for one in source(session, self._settings)]
            told = set(session.scalars(select(AlertTold.key).where(AlertTold.channel == self._way.name)))
            channel = _channel(session.get(AlertChannel, self._way.name), self._sent_at)
            self._forget(session, told - {one.key for one in concerns})
        decision = alerts.decide(concerns, told, channel, self._settings, self._site.zone, now)
        if decision.message:
            self.tell(decision.message)
        return decision

    def tell(self, message: Message) -> str:
        """Send the message now and write down what came of it; why it failed, or ""."""
        now = self._now()
        told = alerts.document(message, self._site, self._settings.page_address, now)
        try:
            self._way.send(told, self._site.language, now)
        except ChannelFailed as failed:
            self._failed(str(failed), now)
            return str(failed)
        self._sent_at = now
        with self._sessions.begin() as session:
            row = _row(session, self._way.name)
            if message.about != "test":
                row.sent_at = clock.text(now)
            if message.about == "digest":
                row.digest_day = alerts.day(self._site.zone, now)
            row.failures, row.next_at, row.error, row.error_since = 0, None, "", None
            self._remember(session, message, now)
        log.info("%s: told (%s, %d new, %d open)", self._way.name, message.about, told["new"], told["open"])
        return ""

    def _remember(self, session: Session, message: Message, now: datetime) -> None:
        at = clock.text(now)
        if message.new:
            rows = [{"channel": self._way.name, "key": one.key, "told_at": at} for one in message.new]
            session.execute(insert(AlertTold), rows)
        shown: tuple[Concern, ...] = message.open if message.about == "digest" else message.new
        ids = [one.exception for one in shown if one.exception is not None]
        for first in range(0, len(ids), BATCH):
            some = ids[first : first + BATCH]
            session.execute(update(ExceptionItem).where(ExceptionItem.id.in_(some)).values(alerted_at=at))
        audit.append(
            session, WRITER, "alerted", now, channel=self._way.name, about=message.about, count=len(shown),
            exceptions=ids[:BATCH],
        )  # fmt: skip

    def _failed(self, why: str, now: datetime) -> None:
        with self._sessions.begin() as session:
            row = _row(session, self._way.name)
            if row.error != why:
                log.warning("%s: %s; trying again", self._way.name, why)
            row.failures += 1
            row.next_at = clock.text(now + alerts.back_off(row.failures))
            row.error, row.error_since = why, row.error_since or clock.text(now)

    def _forget(self, session: Session, gone: set[str]) -> None:
        keys = sorted(gone)
        for first in range(0, len(keys), BATCH):
            some = keys[first : first + BATCH]
            session.execute(delete(AlertTold).where(AlertTold.channel == self._way.name, AlertTold.key.in_(some)))


def _row(session: Session, name: str) -> AlertChannel:
    row = session.get(AlertChannel, name)
    if row is None:
        row = AlertChannel(name=name, digest_day="", failures=0, error="")
        session.add(row)
    return row


def _channel(row: AlertChannel | None, sent_at: datetime | None) -> alerts.Channel:
    if row is None:
        return alerts.Channel(sent_at)
    written = clock.parse(row.sent_at) if row.sent_at else None
    return alerts.Channel(
        max((at for at in (written, sent_at) if at), default=None), row.digest_day, row.failures,
        clock.parse(row.next_at) if row.next_at else None,
    )  # fmt: skip
