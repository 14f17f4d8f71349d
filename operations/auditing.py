"""Whether the audit trail holds: the central table, the archive's own journal, checkpoints and sealed segments."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit as trail
from zambezi import chain, checkpoints, segments, signing
from zambezi.chain import Sealed
from zambezi.checkpoints import Gathered
from zambezi.database.tables import AuditEntry, AuditSegment, ChainHead
from zambezi.signing import Register

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
    """What was walked (entries a chain, and in the journal file) and every first broken place; how many checkpoints,
    sealed segments and entries elsewhere it was held against."""

    chains: dict[str, int]
    journal: str
    journal_entries: int
    broken: list[Place]
    checkpoints: int = 0
    segments: int = 0
    elsewhere: int = 0


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


def verify(session: Session, file: Path, home: Path | None = None, against: Iterable[Path] = ()) -> Verdict:
    """Walk every chain of the central table and the journal file, and compare the journal with its central copy.

    `home`: the installation's, whose signed checkpoints and sealed segments are held against the chains; `against`:
    files from elsewhere, checkpoints or a collector's log. checkpoints.CheckpointFault where one of them can't be used.
    """
    known: Gathered = {}
    broken: list[Place] = []
    signed = sealed = elsewhere = 0
    if home:
        keys, broken = _keys(session, home)
        found, faulty = checkpoints.gather(session, keys)
        known |= found
        signed = checkpoints.count(session)
        broken += [Place("checkpoints", "audit", number, why) for number, why in faulty[:1]]
        sealed, places = _segments(session, home, keys)
        broken += places
        outside: Gathered = {}
        for path in against:
            with path.open(encoding="utf-8", errors="replace") as lines:
                elsewhere += checkpoints.outside(lines, keys, outside, path.name)
        broken += _sealed_otherwise(session, home, outside)
        for journal, said in outside.items():  # what lies elsewhere counts more than what is said here
            known.setdefault(journal, {}).update(said)
    heads = {head.journal: head.seq for head in session.scalars(select(ChainHead).order_by(ChainHead.journal))}
    broken += [Place("central table", b.journal, b.seq, b.why) for b in trail.verify(session, known)]
    walked, name = 0, ""
    if file.exists():
        try:
            opened = JournalFile(file)
        except sqlite3.DatabaseError as error:
            broken.append(Place("journal file", str(file), 0, f"can't be read: {error}"))
        else:
            name = opened.name
            walked, place = _walked(session, opened, heads.get(name, 0))
            broken += [place] if place else []
    return Verdict(heads, name, walked, broken, signed, sealed, elsewhere)


def _keys(session: Session, home: Path) -> tuple[Register | None, list[Place]]:
    try:
        keys = signing.register(home / "signing", checkpoints.PURPOSE)
    except signing.SigningFault as fault:
        return None, [Place("signing keys", checkpoints.PURPOSE, 0, str(fault))]
    return keys, []


def _segments(session: Session, home: Path, keys: Register | None) -> tuple[int, list[Place]]:
    rows, found = segments.faults(session, home / segments.FOLDER, keys)
    return rows, [Place(f"segment {row.file}", row.journal, row.first, why) for row, why in found]


def _sealed_otherwise(session: Session, home: Path, outside: Gathered) -> list[Place]:
    """What is known elsewhere of entries that lie in segments alone, and stands otherwise there."""
    found = []
    for row in session.scalars(select(AuditSegment).where(AuditSegment.pruned_at.is_not(None))):
        said = outside.get(row.journal, {})
        wanted = {seq: one for seq, one in said.items() if row.first <= seq <= row.last}
        if not wanted:
            continue
        try:
            for number, (digest, _) in enumerate(segments.entries(home / segments.FOLDER / row.file), row.first):
                if number in wanted and wanted[number].hash != digest:
                    why = f"{wanted[number].source} knows it with another hash"
                    found.append(Place(f"segment {row.file}", row.journal, number, why))
        except (OSError, EOFError, zlib.error):
            continue  # a file that isn't whole was named as such
    return found


def _walked(session: Session, journal: JournalFile, head: int) -> tuple[int, Place | None]:
    try:
        return _walk(session, journal, head)
    except sqlite3.DatabaseError as error:
        return 0, Place("journal file", journal.name, 0, f"can't be read: {error}")
    finally:
        journal.close()


def _walk(session: Session, journal: JournalFile, central_head: int) -> tuple[int, Place | None]:
    last: Sealed | None = None
    walked = 0
    sealed, digest = trail.pruned(session, journal.name)
    entries = journal.entries()
    while batch := list(islice(entries, _BATCH)):
        central = _central(session, journal.name, batch[0][0].seq, batch[-1][0].seq)
        for entry, beside in batch:
            if last is None and entry.seq > 1:  # the journal was pruned of what the central table has
                last = next(iter(_central(session, journal.name, entry.seq - 1, entry.seq - 1).values()), None)
            fault = _fault(entry, beside, last, central.get(entry.seq), sealed < entry.seq <= central_head)
            if not fault and entry.seq == sealed and entry.hash != digest:
                fault = entry.seq, "the sealed segment that ends with it has another one"
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
