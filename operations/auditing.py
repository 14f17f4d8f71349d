"""`zambezi audit`: whether the audit trail holds, in the central table and in the archive's own journal."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from operations.status import database_trouble
from zambezi import audit as trail
from zambezi import chain
from zambezi.chain import Sealed
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, ChainHead
from zambezi.environment import Environment, EnvironmentFault
from zambezi.events import EVENTS

T = TypeVar("T")

_BATCH = 1000


@dataclass(frozen=True)
class Place:
    """Where the trail doesn't hold: in which store, which chain, which entry, and why."""

    store: str
    journal: str
    seq: int
    why: str

    def __str__(self) -> str:
        return f"{self.store}, chain {self.journal}, entry {self.seq}: {self.why}"


@dataclass(frozen=True)
class Verdict:
    """What was walked (entries a chain, and in the journal file) and every first broken place."""

    chains: dict[str, int]
    journal: str
    journal_entries: int
    broken: list[Place]


class JournalFile:
    """The plugin's journal (plugins/journal.py), opened for reading; Orthanc may be running or dead."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
        found = self._database.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()
        self.name = str(found[0]) if found else "?"

    def entries(self) -> Iterator[tuple[Sealed, dict[str, Any]]]:
        """Every entry in order, with the columns that stand beside its payload."""
        rows = self._database.execute(
            "SELECT seq, hash, payload, event, study_uid, orthanc_id FROM entries ORDER BY seq"
        )
        for seq, digest, payload, event, study_uid, orthanc_id in rows:
            beside = {"event": event, "study_uid": study_uid, "orthanc_id": orthanc_id}
            yield Sealed(self.name, seq, digest, bytes(payload)), beside

    def close(self) -> None:
        self._database.close()


def verify(session: Session, file: Path) -> Verdict:
    """Walk every chain of the central table and the journal file, and compare the journal with its central copy."""
    heads = {head.journal: head.seq for head in session.scalars(select(ChainHead).order_by(ChainHead.journal))}
    broken = [Place("central table", b.journal, b.seq, b.why) for b in trail.verify(session)]
    if not file.exists():
        return Verdict(heads, "", 0, broken)
    try:
        journal = JournalFile(file)
    except sqlite3.DatabaseError as error:
        return Verdict(heads, "", 0, [*broken, Place("journal file", str(file), 0, f"can't be read: {error}")])
    try:
        walked, place = _walk(session, journal, heads.get(journal.name, 0))
    except sqlite3.DatabaseError as error:
        walked, place = 0, Place("journal file", journal.name, 0, f"can't be read: {error}")
    finally:
        journal.close()
    return Verdict(heads, journal.name, walked, [*broken, *([place] if place else [])])


def _walk(session: Session, journal: JournalFile, central_head: int) -> tuple[int, Place | None]:
    last: Sealed | None = None
    walked = 0
    entries = journal.entries()
    while batch := list(islice(entries, _BATCH)):
        central = _central(session, journal.name, batch[0][0].seq, batch[-1][0].seq)
        for entry, beside in batch:
            if last is None and entry.seq > 1:  # the journal was pruned of what the central table has
                last = next(iter(_central(session, journal.name, entry.seq - 1, entry.seq - 1).values()), None)
            fault = _fault(entry, beside, last, central.get(entry.seq), entry.seq <= central_head)
            if fault:
                return walked, Place("journal file", journal.name, fault[0], fault[1])
            last, walked = entry, walked + 1
    end = last.seq if last else 0
    if end < central_head:
        why = f"the journal ends with entry {end}, but the central table has {central_head}"
        return walked, Place("journal file", journal.name, end + 1, why)
    return walked, None


def _fault(
    entry: Sealed, beside: dict[str, Any], last: Sealed | None, central: Sealed | None, is_shipped: bool
) -> tuple[int, str] | None:
    broken = chain.first_broken([entry], last)
    if broken:
        return broken.seq, broken.why
    for column, value in beside.items():
        if value != entry.facts.get(column):
            return entry.seq, f"column {column} is not what the sealed payload says"
    if central is None and is_shipped:
        return entry.seq, "the central table has no copy of it"
    if central is not None and (central.payload, central.hash) != (entry.payload, entry.hash):
        return entry.seq, "the central table's copy is another one"
    return None


def _central(session: Session, journal: str, first: int, last: int) -> dict[int, Sealed]:
    rows = session.execute(
        select(AuditEntry.seq, AuditEntry.hash, AuditEntry.payload).where(
            AuditEntry.journal == journal, AuditEntry.seq.between(first, last)
        )
    )
    return {seq: Sealed(journal, seq, digest, payload) for seq, digest, payload in rows}


@click.group()
def audit() -> None:
    """The audit trail: verify it, look at its end."""


@audit.command("verify")
def verify_command() -> None:
    """Walk every chain, entry by entry; name each place where one doesn't hold (exit code 1)."""
    environment = Environment.read()
    verdict = _looked(environment, lambda session: verify(session, environment.journal_file))
    for journal, entries in verdict.chains.items():
        click.echo(f"  {journal:<24}{entries:>9,} entries")
    if verdict.journal:
        click.echo(f"  its journal file        {verdict.journal_entries:>9,} entries walked")
    for place in verdict.broken:
        click.echo(f"BROKEN  {place}")
    if verdict.broken:
        sys.exit(1)
    click.echo(f"the audit trail holds: {len(verdict.chains)} chains, {sum(verdict.chains.values()):,} entries")


@audit.command()
@click.option("--lines", "number", default=20, show_default=True, help="How many.")
@click.option("--event", type=click.Choice(sorted(EVENTS)), help="Only this event.")
def tail(number: int, event: str | None) -> None:
    """The last entries, oldest first."""

    def last(session: Session) -> list[AuditEntry]:
        query = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.journal, AuditEntry.seq.desc())
        if event:
            query = query.where(AuditEntry.event == event)
        return list(session.scalars(query.limit(number)))

    for row in reversed(_looked(Environment.read(), last)):
        facts = json.loads(row.payload)
        left_out = {"journal", "seq", "prev", "event", "at", "instances", "patient_name", "birth_date"}
        told = ", ".join(f"{k}={v}" for k, v in facts.items() if k not in left_out and v not in ("", None))
        click.echo(f"{row.at} {row.journal} {row.seq} {row.event}: {told}")


def _looked(environment: Environment, look: Callable[[Session], T]) -> T:
    engine = connect(environment.database_url, "operations", reading=True)
    try:
        with sessions(engine, "operations")() as session:
            return look(session)
    except SQLAlchemyError as error:
        raise EnvironmentFault(database_trouble(error)) from error
    finally:
        engine.dispose()
