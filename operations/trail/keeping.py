"""The audit trail's own upkeep: signed checkpoints by the clock, and old entries sealed into files."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.trail import shipping
from zambezi import checkpoints, segments, signing
from zambezi.audit_message import Source
from zambezi.checkpoints import Checkpoint
from zambezi.config import Configuration
from zambezi.config.settings import Audit
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditSegment
from zambezi.environment import Environment
from zambezi.segments import SegmentFault
from zambezi.signing import Signer

WRITER = "operations"


def folder(environment: Environment) -> Path:
    """Where sealed segments lie."""
    return environment.home / segments.FOLDER


def source(loaded: Configuration) -> Source:
    """Who reports in audit messages: the site, this machine, the archive."""
    return Source(loaded.zambezi.site.name, socket.gethostname(), str(loaded.orthanc.get("DicomAet", "ZAMBEZI")))


def collector_name(settings: Audit) -> str:
    """As its rows name it; "" where none is configured."""
    return f"{settings.collector.host}:{settings.collector.port}" if settings.collector.host else ""


def mail_name(settings: Audit) -> str:
    """Who gets checkpoints by mail, as their row names them; "" where nobody does."""
    return f"mail to {', '.join(settings.checkpoint_mail_to)}"[:300] if settings.checkpoint_mail_to else ""


def signer(session: Session, environment: Environment, who: str, now: datetime) -> Signer:
    """The key that signs the trail, noted in it; signing.SigningFault where it can't be used."""
    found = signing.current(environment.signing_dir, checkpoints.PURPOSE, who, now)
    known = signing.register(environment.signing_dir, checkpoints.PURPOSE)
    if known:
        signing.record(session, known, WRITER)
    return found


def checkpoint(
    writing: Sessions, environment: Environment, settings: Audit, who: str, now: datetime, at_once: bool = False
) -> Checkpoint | None:
    """Sign where the chains stand, if it is time (or `at_once`); None where it isn't."""
    with writing.begin() as session:
        if not at_once and not checkpoints.due(session, settings.checkpoint_minutes, now):
            return None
        return checkpoints.make(session, signer(session, environment, who, now), now)


def cut(keep_days: int, now: datetime) -> datetime:
    """The beginning of the month of the day so long ago: what is older goes, by whole months."""
    then = (now - timedelta(days=keep_days)).astimezone(UTC)
    return datetime(then.year, then.month, 1, tzinfo=UTC)


def seal(writing: Sessions, environment: Environment, before: datetime, who: str, now: datetime) -> Iterator[Path]:
    """Seal all that is older; each part is committed by itself, so that a break goes on where it stood."""
    with writing() as session:
        parts = segments.closed(session, before)
    for part in parts:
        with writing.begin() as session:
            key = signer(session, environment, who, now)
            made = segments.seal(session, part, key, folder(environment), who, now, WRITER)
        yield made


def prune(
    writing: Sessions, environment: Environment, settings: Audit, before: datetime, who: str, now: datetime
) -> Iterator[tuple[str, int, str]]:
    """Take out of the table what is sealed and older: each segment's file, how many entries, or why not."""
    keys = signing.register(environment.signing_dir, checkpoints.PURPOSE)
    with writing() as session:
        rows = session.scalars(
            select(AuditSegment)
            .where(AuditSegment.pruned_at.is_(None))
            .order_by(AuditSegment.journal, AuditSegment.first)
        ).all()
        waiting = [(row.journal, row.first) for row in rows if segments.newest(row) < before]
    for key in waiting:
        with writing.begin() as session:
            row = session.get_one(AuditSegment, key)
            count, why = 0, _kept(session, row, environment, collector_name(settings))
            if not why:
                try:
                    count = segments.prune(session, row, folder(environment), keys, who, now, WRITER)
                except SegmentFault as fault:  # it says so before it changes anything
                    why = str(fault)
            file = row.file
        yield file, count, why


def _kept(session: Session, row: AuditSegment, environment: Environment, collector: str) -> str:
    """Why a segment's entries must stay in the table, "" where they needn't."""
    if environment.nodes and row.journal.startswith("orthanc-"):
        return "the archive's other nodes may still need these entries: of several nodes' journals nothing is pruned"
    if collector and not shipping.has(session, collector, row.journal, row.last):
        return f"the collector {collector} hasn't got these entries yet"
    return ""


def retain(writing: Sessions, environment: Environment, settings: Audit, now: datetime) -> list[str]:
    """What KeepDays asks for, every night; why something stays, as sentences."""
    if not settings.keep_days:
        return []
    before = cut(settings.keep_days, now)
    for _ in seal(writing, environment, before, WRITER, now):
        pass
    found = prune(writing, environment, settings, before, WRITER, now)
    return [f"{file}: {why}" for file, _, why in found if why]
