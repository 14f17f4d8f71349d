"""Appending to the central audit table, and walking all of it.

Who writes to the central database directly (ris, gateway, migration, operations) appends to a chain of its
own, in the same transaction as what the entry tells of. The plugin's journal comes in whole, by the
gateway (`take_over`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import chain
from zambezi.chain import Broken, Sealed
from zambezi.database.tables import AuditEntry, ChainHead
from zambezi.events import EVENTS


def append(session: Session, writer: str, event: str, at: datetime, /, **facts: Any) -> Sealed:
    """Seal an event behind the head of `writer`'s chain; it is there when the session's transaction commits.

    Facts that stand for the same thing have the same name everywhere: who, study_uid, sop_uid, order,
    accession_number, peer, rule, destination, reason. Patient names never.
    """
    if event not in EVENTS:
        raise ValueError(f"no event {event!r}; zambezi/events.py lists them")
    head = _locked_head(session, writer)
    sealed = chain.seal(writer, head.seq + 1, head.hash, event, at, facts)
    head.seq, head.hash = sealed.seq, sealed.hash
    session.add(_row(sealed))
    session.flush()
    return sealed


def take_over(session: Session, entries: Sequence[Sealed]) -> None:
    """Commit entries of a plugin's journal behind its head; ValueError if they don't follow it."""
    if not entries:
        return
    journal = entries[0].journal
    head = _locked_head(session, journal)
    broken = chain.first_broken(entries, Sealed(journal, head.seq, head.hash, b""))
    if broken:
        raise ValueError(f"journal {journal}, entry {broken.seq}: {broken.why}")
    session.execute(insert(AuditEntry), [_columns(entry) for entry in entries])
    head.seq, head.hash = entries[-1].seq, entries[-1].hash


def head(session: Session, journal: str) -> tuple[int, str]:
    """(seq, hash) of the last committed entry of a chain; (0, "") where there is none."""
    found = session.get(ChainHead, journal)
    return (found.seq, found.hash) if found else (0, "")


def locked_head(session: Session, journal: str) -> tuple[int, str]:
    """The same, and nobody else appends to the chain before this transaction ends."""
    found = _locked_head(session, journal)
    return found.seq, found.hash


def verify(session: Session) -> list[Broken]:
    """Walk every chain in the central table: the first broken place of each, and heads that don't fit."""
    broken = []
    for found in session.scalars(select(ChainHead).order_by(ChainHead.journal)).all():
        fault = _first_broken(session, found.journal)
        if fault is None:
            last = session.scalars(
                select(AuditEntry).where(AuditEntry.journal == found.journal).order_by(AuditEntry.seq.desc()).limit(1)
            ).first()
            if (last.seq, last.hash) != (found.seq, found.hash) if last else found.seq != 0:
                at = last.seq + 1 if last else 1
                fault = Broken(found.journal, at, f"the chain ends here, but its head says {found.seq} entries")
        if fault:
            broken.append(fault)
    return broken


def _first_broken(session: Session, journal: str) -> Broken | None:
    last: Sealed | None = None
    for row in _rows(session, journal):
        entry = Sealed(row.journal, row.seq, row.hash, row.payload)
        broken = chain.first_broken([entry], last)
        if broken:
            return broken
        copies = _row(entry)
        for name in ("event", "at", "study_uid", "sop_uid", "who"):
            if getattr(row, name) != getattr(copies, name):
                return Broken(journal, row.seq, f"column {name} is not what the sealed payload says")
        last = entry
    return None


def _rows(session: Session, journal: str) -> Iterator[AuditEntry]:
    query = select(AuditEntry).where(AuditEntry.journal == journal).order_by(AuditEntry.seq)
    yield from session.scalars(query.execution_options(yield_per=1000))


def _row(entry: Sealed) -> AuditEntry:
    return AuditEntry(**_columns(entry))


def _columns(entry: Sealed) -> dict[str, Any]:
    facts = entry.facts
    return {
        "journal": entry.journal, "seq": entry.seq, "hash": entry.hash, "payload": entry.payload,
        "event": facts["event"], "at": facts["at"],
        "study_uid": facts.get("study_uid"), "sop_uid": facts.get("sop_uid"), "who": facts.get("who"),
    }  # fmt: skip


def _locked_head(session: Session, journal: str) -> ChainHead:
    # On SQLite the transaction holds the write lock already (BEGIN IMMEDIATE); PostgreSQL locks the row.
    upsert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(upsert(ChainHead).values(journal=journal, seq=0, hash="").on_conflict_do_nothing())
    return session.scalars(select(ChainHead).where(ChainHead.journal == journal).with_for_update()).one()
