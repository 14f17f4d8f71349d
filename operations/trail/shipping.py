"""Brings every entry of the audit trail, and every checkpoint, to the collector: in order, nothing left out.

The central table is the spool: a collector that was away for a week is caught up from there. How far it has each
chain is a row, written once the collector has read the lot; a crash between the two sends that lot again, and what came
twice bears the same chain, number and hash.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from operations.alerts import back_off
from operations.trail.collector import Collector, CollectorFailed
from zambezi import audit_message, checkpoints, clock, syslog
from zambezi.audit_message import Source
from zambezi.chain import Sealed
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditCollector, AuditEntry, AuditShipment, ChainHead, Study
from zambezi.events import outcome

log = logging.getLogger("operations.trail")

#: Messages of one lot: some hundred KB to some MB, each a second's work for a collector at most.
LOT = 2000
#: Between two lots, so that years of entries for a new collector leave the machine to others, too.
_BREATH_S = 0.1
#: Under this name stands how far the collector has the checkpoints.
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class State:
    """How a collector stands: when it was last given something, what fails since when, how much it lacks."""

    name: str
    sent_at: str
    error: str
    error_since: str
    backlog: int


@dataclass(frozen=True)
class _Lot:
    messages: list[bytes]
    ends: dict[str, int]  # how far each chain is with it


class Shipper:
    """Used by one thread of one process."""

    def __init__(
        self, writing: Sessions, reading: Sessions, collector: Collector, source: Source,
        now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        self._writing = writing
        self._reading = reading
        self._collector = collector
        self._source = source
        self._now = now
        self._ended = threading.Event()

    def stop(self) -> None:
        """Begin no further lot."""
        self._ended.set()

    def round(self) -> int:
        """Hand over all that there is, unless the collector has just failed; how many messages."""
        with self._reading() as session:
            row = session.get(AuditCollector, self._collector.name)
        now = self._now()
        # A next try that lies far ahead is a clock that was put back.
        if row and row.next_at and timedelta() < clock.parse(row.next_at) - now <= timedelta(hours=1):
            return 0
        sent, is_asked = 0, bool(row and row.error)  # whether it is well again shows only by asking it
        while not self._ended.is_set():
            with self._reading() as session:
                lot = next_lot(session, self._collector.name, self._source)
            if not lot.messages and not is_asked:
                break
            try:
                self._collector.send(lot.messages)
            except CollectorFailed as failed:
                note_failure(self._writing, self._collector.name, str(failed), self._now())
                break
            note(self._writing, self._collector.name, lot.ends, self._now())
            sent, is_asked = sent + len(lot.messages), False
            self._ended.wait(_BREATH_S)
        return sent


def note(writing: Sessions, collector: str, ends: Mapping[str, int], now: datetime) -> None:
    """A collector has the chains as far as `ends` says."""
    with writing.begin() as session:
        row = session.get(AuditCollector, collector)
        if row is None:
            row = AuditCollector(name=collector)
            session.add(row)
        row.sent_at, row.failures, row.next_at, row.error, row.error_since = clock.text(now), 0, None, "", None
        for journal, seq in ends.items():
            session.merge(AuditShipment(collector=collector, journal=journal, seq=seq))


def note_failure(writing: Sessions, collector: str, why: str, now: datetime) -> None:
    """A collector took nothing; it is left alone for a while, the longer the more often."""
    with writing.begin() as session:
        row = session.get(AuditCollector, collector)
        if row is None:
            row = AuditCollector(name=collector, failures=0, error="")
            session.add(row)
        if row.error != why:
            log.warning("%s: %s; trying again", collector, why)
        row.failures += 1
        row.error, row.error_since = why, row.error_since or clock.text(now)
        row.next_at = clock.text(now + min(back_off(row.failures) / 4, timedelta(minutes=5)))


def next_lot(session: Session, collector: str, source: Source) -> _Lot:
    """The next messages that the collector lacks, chain by chain in order, then checkpoints."""
    lot = _Lot([], {})
    done = _shipped(session, collector)
    for head in session.scalars(select(ChainHead).order_by(ChainHead.journal)).all():
        room = LOT - len(lot.messages)
        if not room or done.get(head.journal, 0) >= head.seq:
            continue
        rows = session.execute(
            select(AuditEntry.seq, AuditEntry.hash, AuditEntry.payload, AuditEntry.study_uid)
            .where(AuditEntry.journal == head.journal, AuditEntry.seq > done.get(head.journal, 0))
            .order_by(AuditEntry.seq)
            .limit(room)
        ).all()
        patients = _patients(session, {row.study_uid for row in rows if row.study_uid})
        for row in rows:
            entry = Sealed(head.journal, row.seq, row.hash, row.payload)
            facts = entry.facts
            body = audit_message.message(entry, source, patients.get(row.study_uid, ""))
            lot.messages.append(
                syslog.record(body, syslog.AUDIT_MESSAGE, facts["at"], source.machine, head.journal, outcome(facts))
            )
        if rows:
            lot.ends[head.journal] = rows[-1].seq
    for number, one in checkpoints.newer(session, done.get(CHECKPOINTS, 0), LOT - len(lot.messages)):
        body = one.to_json()
        lot.messages.append(syslog.record(body, syslog.CHECKPOINT, one.body["at"], source.machine, CHECKPOINTS))
        lot.ends[CHECKPOINTS] = number
    return lot


def state(session: Session, collector: str) -> State:
    """How the collector stands, and how many entries it lacks."""
    row = session.get(AuditCollector, collector)
    done = _shipped(session, collector)
    heads = session.execute(select(ChainHead.journal, ChainHead.seq))
    backlog = sum(max(0, seq - done.get(journal, 0)) for journal, seq in heads)
    if row is None:
        return State(collector, "", "", "", backlog)
    return State(collector, row.sent_at or "", row.error, row.error_since or "", backlog)


def has(session: Session, collector: str, journal: str, seq: int) -> bool:
    """Whether the collector has the chain up to this entry."""
    return _shipped(session, collector).get(journal, 0) >= seq


def _shipped(session: Session, collector: str) -> dict[str, int]:
    rows = session.scalars(select(AuditShipment).where(AuditShipment.collector == collector))
    return {row.journal: row.seq for row in rows}


def _patients(session: Session, studies: set[str]) -> dict[str | None, str]:
    """Whose each study is, as the archive knows it now; not where two patients have images under one Study UID."""
    if not studies:
        return {}
    rows = session.execute(
        select(Study.study_uid, func.max(Study.patient_id))
        .where(Study.study_uid.in_(sorted(studies)))
        .group_by(Study.study_uid)
        .having(func.count(Study.patient_id.distinct()) == 1)
    )
    return {uid: patient for uid, patient in rows if patient}
