"""Appending to the central audit table, and walking all of it.

Who writes to the central database directly (ris, gateway, migration, operations) appends to a chain of its
own, in the same transaction as what the entry tells of. The plugin's journal comes in whole, by the
gateway (`take_over`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import LargeBinary, cast, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import chain
from zambezi.chain import Broken, Sealed
from zambezi.database.tables import AuditEntry, AuditSegment, ChainHead
from zambezi.events import EVENTS, outcome

#: Rows that a walk has in memory at once.
_AT_ONCE = 5000
#: Columns that are copies of what the sealed payload says.
_COPIES = ("event", "at", "study_uid", "sop_uid", "who", "patient_id", "outcome")
#: As bytes, whatever somebody has made of it: SQLite keeps a text in a column of bytes.
PAYLOAD = cast(AuditEntry.payload, LargeBinary)
_TABLE = AuditEntry.__table__.c  # plain columns: an ORM's rows cost a walk of a million a second or two
#: Entries that stay in the table when those around them were sealed and pruned: zambezi.signing reads all there are.
KEPT_EVENTS = ("key-changed",)


@dataclass(frozen=True)
class Known:
    """What somebody else says an entry's hash is, and who that is in words."""

    hash: str
    source: str


#: By chain and number; what a walk is held against besides the chain itself.
Evidence = Mapping[str, Mapping[int, Known]]


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
    session.add(AuditEntry(**_columns(sealed)))
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


def pruned(session: Session, journal: str) -> tuple[int, str]:
    """(seq, hash) of the last entry of a chain that lies in a sealed segment alone; (0, "") where all are here."""
    found = session.execute(
        select(AuditSegment.last, AuditSegment.hash)
        .where(AuditSegment.journal == journal, AuditSegment.pruned_at.is_not(None))
        .order_by(AuditSegment.last.desc())
        .limit(1)
    ).first()
    return (found.last, found.hash) if found else (0, "")


def verify(session: Session, evidence: Evidence | None = None) -> list[Broken]:
    """Walk every chain in the central table: the first broken place of each, and heads that don't fit.

    `evidence`: hashes that checkpoints or a collector know; an entry they know otherwise, or not at all, is broken.
    """
    evidence = evidence or {}
    heads = {head.journal: head for head in session.scalars(select(ChainHead).order_by(ChainHead.journal))}
    named = set(session.scalars(select(AuditEntry.journal).distinct()))
    broken = [Broken(one, 1, "entries of a chain that has no head") for one in sorted(named - heads.keys())]
    for journal in sorted(evidence.keys() - heads.keys() - named):
        first = evidence[journal][max(evidence[journal])]
        broken.append(Broken(journal, 1, f"the whole chain is gone; {first.source} knows it"))
    for journal, found in heads.items():
        fault = _first_broken(session, journal, (found.seq, found.hash), evidence.get(journal, {}))
        if fault:
            broken.append(fault)
    return broken


def _first_broken(session: Session, journal: str, head: tuple[int, str], known: Mapping[int, Known]) -> Broken | None:
    seq, prev = begin = pruned(session, journal)
    said = known.get(seq)
    if said and said.hash != prev:
        return Broken(journal, seq, f"{said.source} knows it with another hash")
    query = (
        select(_TABLE.seq, _TABLE.hash, cast(_TABLE.payload, LargeBinary), *(_TABLE[name] for name in _COPIES))
        .where(_TABLE.journal == journal, _TABLE.seq > seq)
        .order_by(_TABLE.seq)
        .execution_options(yield_per=_AT_ONCE)
    )
    for found, digest, payload, *copies in session.execute(query):
        if found != seq + 1:
            return chain.missing(journal, seq + 1, found)
        why, facts = chain.fault(journal, found, digest, payload, prev)
        if why:
            return Broken(journal, found, why)
        if copies != (wanted := _copied(facts)):
            name = next(n for n, one, other in zip(_COPIES, copies, wanted, strict=True) if one != other)
            return Broken(journal, found, f"column {name} is not what the sealed payload says")
        if known and (said := known.get(found)) and said.hash != digest:
            return Broken(journal, found, f"{said.source} knows it with another hash: it was sealed anew, or restored")
        seq, prev = found, digest
    if (seq, prev) != head and (seq or head[0]):
        return Broken(journal, seq + 1, f"the chain ends here, but its head says {head[0]} entries")
    further = max(known, default=0)
    if further > max(seq, begin[0]):
        why = (
            f"the chain ends here, but {known[further].source} knows entry {further}: its end was cut off, or restored"
        )
        return Broken(journal, seq + 1, why)
    return None


def _copied(facts: Mapping[str, Any]) -> list[Any]:
    """What stands in _COPIES for an entry with these facts."""
    get = facts.get
    patient = get("patient_id")
    if patient:  # as a stranger's data set has it: longer than DICOM allows, or with what PostgreSQL takes in no text
        patient = str(patient).replace("\0", "")[:64]
    return [
        facts["event"], facts["at"], get("study_uid"), get("sop_uid"), get("who"), patient or None, outcome(facts),
    ]  # fmt: skip


def _columns(entry: Sealed) -> dict[str, Any]:
    copies = dict(zip(_COPIES, _copied(entry.facts), strict=True))
    return {"journal": entry.journal, "seq": entry.seq, "hash": entry.hash, "payload": entry.payload, **copies}


def _locked_head(session: Session, journal: str) -> ChainHead:
    # On SQLite the transaction holds the write lock already (BEGIN IMMEDIATE); PostgreSQL locks the row.
    locked = select(ChainHead).where(ChainHead.journal == journal).with_for_update()
    if (found := session.scalars(locked).first()) is not None:
        return found
    upsert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(upsert(ChainHead).values(journal=journal, seq=0, hash="").on_conflict_do_nothing())
    return session.scalars(locked).one()
