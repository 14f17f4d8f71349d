"""Proof that what was put back is what the backup's list says, down to the MD5 of every instance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from operations import auditing
from operations.backup import copies, manifest, schedule
from operations.backup.copies import Postgres
from operations.backup.manifest import Manifest
from operations.backup.repository import Say, size
from operations.backup.restoring import Place
from operations.status import database_trouble
from zambezi import clock, signing
from zambezi import hold as held
from zambezi.database.engine import connect, sessions

#: Of each sort so many are named in the report; the numbers count all.
_NAMED = 1000
_SAY_S = 10.0


@dataclass
class Proof:
    """What was looked at, and everything that isn't as the list says.

    `orphans`: files that came after the database was copied; the archive ingests them when it starts.
    """

    snapshot: str
    taken_at: str
    proven_at: str = ""
    seconds: float = 0
    instances: int = 0
    files: int = 0
    bytes: int = 0
    tables: int = 0
    audit_entries: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    audit: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    last_stored_at: str = ""
    senders: dict[str, int] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """Every fault, as a sentence each."""
        return [*self.missing, *self.damaged, *self.rows, *self.audit]


def prove(place: Place, known: Manifest, snapshot: str, now: Callable[[], datetime], say: Say) -> Proof:
    """Hold everything in the place against the list; raises nothing for what is wrong with it."""
    begun = time.monotonic()
    proof = Proof(snapshot, known.taken_at, last_stored_at=known.last_stored_at, senders=known.senders)
    say("Proving: the digest of every file, the rows of every table, every chain of the audit trail ...")
    _files(place, known, proof, say)
    for path, length, sha256 in manifest.state(place.staging):
        _file(place.home / path, path, length, "sha256", sha256, proof)
    for name in manifest.hold(place.staging):
        path = f"hold/{name[:2]}/{name}.dcm"
        _file(held.path(place.home / "hold", name), path, None, "sha256", name, proof)
    _rows(place, known, proof)
    _audit(place, proof)
    proof.proven_at = clock.text(now())
    proof.seconds = round(time.monotonic() - begun, 1)
    return proof


def lines(proof: Proof, now: datetime) -> list[str]:
    """The proof for a terminal: what holds, what doesn't, and what can't be there."""
    out = [
        f"  {proof.instances:,} instances ({proof.files:,} files, {size(proof.bytes)}) looked at in "
        f"{proof.seconds:.0f} s, {proof.tables} tables, {proof.audit_entries:,} entries of the audit trail"
    ]
    for what, found in (
        ("MISSING", proof.missing), ("DAMAGED", proof.damaged), ("ROWS", proof.rows), ("AUDIT", proof.audit),
    ):  # fmt: skip
        out += [f"  {what}  {sentence}" for sentence in found[:10]]
        if len(found) > 10:
            out.append(f"  {what}  and {len(found) - 10:,} more; the report names them")
    if proof.orphans:
        out.append(
            f"  {len(proof.orphans):,} files came while the backup was made; the archive takes them in when it starts"
        )
    age = schedule.hours(now - clock.parse(proof.taken_at))
    out.append(
        f"  What came after {proof.taken_at[:19]} UTC ({age} ago) is not in this backup: images, orders, reports ..."
    )
    if proof.senders:
        who = ", ".join(f"{name} ({number:,} so far)" for name, number in sorted(proof.senders.items()))
        out.append(f"  Let these send again what they stored since then; what is here already harms nothing: {who}")
    return out


def report(proof: Proof, kind: str, signer: signing.Signer) -> dict[str, Any]:
    """The proof as a signed document (Ed25519 over the canonical JSON of `report`)."""
    said = {
        **{name: value[:_NAMED] if isinstance(value, list) else value for name, value in asdict(proof).items()},
        "kind": kind,
        "holds": not proof.faults,
        "counts": {name: len(value) for name, value in asdict(proof).items() if isinstance(value, list)},
    }
    signature = signer.sign(signing.canonical(said))
    return {"report": said, "key_id": signer.key_id, "public_key": signer.public_key, "signature": signature}


def _files(place: Place, known: Manifest, proof: Proof, say: Say) -> None:
    """Every file of the storage against the list, and the other way round; both go by the names' order."""
    told = begun = time.monotonic()
    there = _stored(place.home / "orthanc" / "storage")
    found = next(there, None)
    for one in manifest.attachments(place.staging):
        while found and found.name < one.name:
            proof.orphans.append(found.name)
            found = next(there, None)
        about = f"{one.path} (instance {one.orthanc_id}, SOP Instance UID {one.sop_uid or 'none'})"
        if found and found.name == one.name:
            _file(found, about, one.size, "md5", one.md5, proof)
            found = next(there, None)
        else:
            proof.missing.append(about)
        proof.files += 1
        proof.instances += one.sort == 1
        proof.bytes += one.size
        if time.monotonic() - told > _SAY_S:
            told = time.monotonic()
            rate = proof.bytes / (told - begun)
            left = (known.bytes - proof.bytes) / rate / 60 if rate else 0
            wrong = len(proof.missing) + len(proof.damaged)
            say(f"  {proof.files:,} of {known.attachments:,} files, {size(rate)} a second, about {left:.0f} min left, "
                f"{wrong} wrong so far")  # fmt: skip
    while found:
        proof.orphans.append(found.name)
        found = next(there, None)
    if (proof.instances, proof.files) != (known.instances, known.attachments):
        proof.rows.append(f"the list has {proof.files} files and says that it has {known.attachments}")


def _file(file: Path, about: str, length: int | None, algorithm: str, digest: str, proof: Proof) -> None:
    try:
        found = file.stat().st_size
        if length is not None and found != length:
            proof.damaged.append(f"{about}: {found} bytes instead of {length}")
        elif digest and manifest.digest(file, algorithm) != digest:
            proof.damaged.append(f"{about}: other bytes than the list says ({algorithm})")
    except FileNotFoundError:
        proof.missing.append(about)
    except OSError as error:
        proof.damaged.append(f"{about}: can't be read ({error.strerror})")


def _stored(storage: Path) -> Iterator[Path]:
    """Every file of Orthanc's storage, in the order of names."""
    for first in sorted(storage.glob("[0-9a-f][0-9a-f]")):
        for second in sorted(first.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(second.iterdir())


def _rows(place: Place, known: Manifest, proof: Proof) -> None:
    for database, expected in known.rows.items():
        if not expected:
            continue
        if database == "central":
            found = _count(place.central_file, Postgres.of_url(place.central_url) if not place.central_file else None)
        elif database == "index":
            index = place.find_index(place.staging / "config") if known.databases["index"] == "postgresql" else None
            found = _count(place.index_file, index)
        else:
            found = _count(place.home / database, None)
        proof.tables += len(expected)
        for table, number in expected.items():
            if found.get(table) != number:
                proof.rows.append(f"{database}, table {table}: {found.get(table, 'no')} rows instead of {number}")


def _count(file: Path | None, postgres: Postgres | None) -> dict[str, int]:
    if postgres:
        with postgres.connect() as connection:
            return copies.postgres_counts(connection)
    return copies.sqlite_counts(file) if file and file.exists() else {}


def _audit(place: Place, proof: Proof) -> None:
    engine = connect(place.central_url, "operations", reading=True)
    try:
        with sessions(engine, "operations")() as session:
            verdict = auditing.verify(session, place.home / "plugin" / "journal.db", place.home)
    except SQLAlchemyError as error:
        proof.audit.append(database_trouble(error))
    else:
        proof.audit_entries = sum(verdict.chains.values())
        proof.audit += [str(place) for place in verdict.broken]
    finally:
        engine.dispose()
