"""Passes over an old system's rows: in batches that can be interrupted anywhere, each row known again by its key."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration.records import archiving, evaluating, reading, taking
from migration.records.mapping import KINDS, Kind, Mapping
from migration.records.reading import Source
from migration.records.taking import WRITER, Bench
from zambezi import audit, clock, exceptions
from zambezi.database.engine import Sessions
from zambezi.database.tables import LegacyImport, LegacyRow

#: Rows in one transaction: other writers get in between.
BATCH = 200
ROOM = "migration"
#: So many sorts of faults a dry run lists, with the first places of each.
SORTS = 200
#: States of rows that are not in the RIS as the old system has them, and that nobody has decided to leave so.
OPEN = ("held", "changed", "refused", "waiting")


class Stopped(Exception):
    """The pass stands still: it was asked to, or another run took it over."""


@dataclass
class Job:
    """One import as it is run: the mapping, what it was read from, and who runs it."""

    sessions: Sessions
    mapping: Mapping
    document: dict[str, Any]
    sha256: str
    folder: Path  # where the mapping lies
    zone: ZoneInfo
    who: str
    now: Callable[[], datetime]
    stop: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[Kind, int, Counter[str]], None] = lambda kind, number, counts: None

    @property
    def sources(self) -> list[Source]:
        return reading.sources(self.mapping, self.folder)

    def bench(self, session: Session, imported: LegacyImport) -> Bench:
        files = self.sources[0].folder
        return Bench(session, imported, self.mapping, files, self.zone, self.now(), self.who)


def run(job: Job) -> dict[Kind, Counter[str]]:
    """Take every row there is; what was taken stays as it is. The outcomes of this run by kind.

    A pass that was interrupted goes on behind its last batch where files and mapping are the same, else a new pass
    begins: it is slower, and comes to the same.
    """
    found = job.sources
    print_of = reading.fingerprint(found)
    import_id, fence, done = _begin(job, print_of)
    outcomes: dict[Kind, Counter[str]] = {}
    for source in found:
        behind = int(done.get(source.kind, 0)) if source.is_stable else 0
        outcomes[source.kind] = _pass(job, source, import_id, fence, behind)
    _end(job, import_id, fence, found)
    return outcomes


def settle(job: Job, subject: str) -> Counter[str]:
    """Try the rows that wait for this patient (identifier@issuer) once more, from what is kept of them."""
    counts: Counter[str] = Counter()
    for kind in KINDS:
        records, last = job.mapping.of(kind), 0
        while records is not None:
            with job.sessions.begin() as session:
                imported = find(session, job.mapping.name)
                rows = session.scalars(
                    select(LegacyRow)
                    .where(
                        LegacyRow.import_id == imported.id, LegacyRow.kind == kind, LegacyRow.state == "waiting",
                        LegacyRow.subject == subject, LegacyRow.id > last,
                    )
                    .order_by(LegacyRow.id).limit(BATCH)
                ).all()  # fmt: skip
                bench = job.bench(session, imported)
                made = Counter(taking.again(bench, kind, records, row) for row in rows)
                if rows:
                    last = rows[-1].id
                    _audit(bench, kind, made, rows[0].place, rows[-1].place)
            counts += made
            if not rows:
                break
    with job.sessions.begin() as session:
        if counts:
            archiving.mark(session, job.mapping)
        _raise(session, find(session, job.mapping.name), job.now())
    return counts


def find(session: Session, name: str) -> LegacyImport:
    """The import of this name; LookupError where there is none."""
    found = session.scalars(select(LegacyImport).where(LegacyImport.name == name)).first()
    if found is None:
        raise LookupError(f"nothing was imported or previewed under the name {name}")
    return found


def states(session: Session, imported: LegacyImport) -> dict[str, dict[str, int]]:
    """How many rows of each kind are in which state; `gone`: the last pass did not meet them any more."""
    found: dict[str, dict[str, int]] = {}
    query = select(LegacyRow.kind, LegacyRow.state, func.count()).where(LegacyRow.import_id == imported.id)
    for kind, state, count in session.execute(query.group_by(LegacyRow.kind, LegacyRow.state)):
        found.setdefault(kind, {})[state] = count
    if imported.state == "done":
        gone = select(LegacyRow.kind, func.count()).where(
            LegacyRow.import_id == imported.id, LegacyRow.pass_no < imported.pass_no
        )
        for kind, count in session.execute(gone.group_by(LegacyRow.kind)):
            found[kind]["gone"] = count
    return found


def enter(job: Job, session: Session) -> LegacyImport:
    """The import's own row, made where it is new; what is previewed or run counts from here."""
    at = clock.text(job.now())
    imported = session.scalars(select(LegacyImport).where(LegacyImport.name == job.mapping.name)).first()
    if imported is None:
        imported = LegacyImport(name=job.mapping.name, created_at=at, updated_at=at)
        session.add(imported)
    imported.updated_at, imported.folder = at, str(job.folder)
    session.flush()
    return imported


def dry(job: Job) -> dict[Kind, dict[str, Any]]:
    """What a run would make of every row, and nothing written: counts, and the first rows of each sort of fault."""
    told: dict[Kind, dict[str, Any]] = {}
    for source in job.sources:
        counts: Counter[str] = Counter()
        faults: dict[str, list[str]] = {}
        for number, raw in enumerate(source.checked_rows(), 1):
            found = evaluating.meant(source.kind, source.records, raw, job.zone, job.now())
            counts["can be taken" if not found.faults else "would be refused"] += 1
            for fault in found.faults:
                if fault[:200] in faults or len(faults) < SORTS:
                    places = faults.setdefault(fault[:200], [])
                    places += [raw.place] if len(places) < 3 else []
            if number % 1000 == 0:
                job.tell(source.kind, number, counts)
        told[source.kind] = {"counts": dict(counts), "faults": faults, "facts": source.facts}
    return told


def _begin(job: Job, print_of: str) -> tuple[int, int, dict[str, Any]]:
    with job.sessions.begin() as session:
        imported = enter(job, session)
        goes_on = (
            imported.state == "running" and imported.fingerprint == print_of and imported.mapping_sha256 == job.sha256
        )
        if not goes_on:
            imported.pass_no, imported.position = imported.pass_no + 1, {}
        imported.mapping, imported.mapping_sha256 = job.document, job.sha256
        imported.fingerprint, imported.state, imported.who = print_of, "running", job.who[:80]
        imported.fence += 1
        imported.finished_at = None
        return imported.id, imported.fence, dict(imported.position)


def _pass(job: Job, source: Source, import_id: int, fence: int, behind: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    number = behind
    coming = islice(source.checked_rows(), behind, None)
    while rows := list(islice(coming, BATCH)):
        if job.stop.is_set():
            raise Stopped("interrupted; the same command goes on from here")
        with job.sessions.begin() as session:
            imported = session.get_one(LegacyImport, import_id, with_for_update=True)
            if imported.fence != fence:
                raise Stopped("another run of this import has begun")
            bench = job.bench(session, imported)
            made = Counter(taking.take(bench, source.kind, source.records, raw) for raw in rows)
            number += len(rows)
            imported.position = {**imported.position, source.kind: number}
            imported.updated_at = clock.text(bench.now)
            if made.total() > made["same"]:
                _audit(bench, source.kind, made, rows[0].place, rows[-1].place)
        counts += made
        job.tell(source.kind, number, counts)
    return counts


def _end(job: Job, import_id: int, fence: int, found: list[Source]) -> None:
    with job.sessions.begin() as session:
        imported = session.get_one(LegacyImport, import_id, with_for_update=True)
        if imported.fence != fence:
            raise Stopped("another run of this import has begun")
        imported.state, imported.finished_at = "done", clock.text(job.now())
        imported.facts = {source.kind: source.facts for source in found}
        archiving.mark(session, job.mapping)
        _raise(session, imported, job.now())


def _raise(session: Session, imported: LegacyImport, now: datetime) -> None:
    """One item for all rows that a person must look at; the page lists them."""
    reference = f"records {imported.name}"
    query = select(func.count()).select_from(LegacyRow).where(LegacyRow.import_id == imported.id)
    count = session.scalars(query.where(LegacyRow.state.in_(OPEN))).one()
    if not count:
        exceptions.decide(session, ROOM, reference, who=WRITER, decision="nothing waits any more", now=now,
                          writer=WRITER)  # fmt: skip
        return
    exceptions.wait(
        session,
        ROOM,
        reference,
        now=now,
        kind="records-waiting",
        facts={"source": imported.name, "count": count},
        what=f"{count} rows of {imported.name} are not in the RIS as the old system has them",
        suggestion="Its page lists each with the reason; mend the mapping and import again, or decide them.",
        actions=[{"label": "Open the import", "href": f"/migrations/records/{imported.name}"}],
    )


def _audit(bench: Bench, kind: Kind, made: Counter[str], first: str, last: str) -> None:
    audit.append(
        bench.session, WRITER, "records-imported", bench.now, source=bench.mapping.name, kind=kind,
        mapping=bench.imported.mapping_sha256, first=first, last=last, outcomes=dict(made), who=bench.who,
    )  # fmt: skip
