"""Signed checkpoints of the audit trail: where every chain stood at a moment, so that a cut end shows, too.

A chain proves that nothing inside it was changed; not that nothing was taken off its end, nor that all of it wasn't
written anew. A checkpoint names the last number and hash of every chain, and the digest of the checkpoint before; it
is signed (Ed25519, zambezi.signing, purpose `audit`) and leaves the machine: to the collector, with each backup, on
whatever `zambezi audit checkpoint --out` wrote it to. What lies elsewhere is held against the trail by
`zambezi audit verify --against`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from zambezi import clock, signing
from zambezi.audit import Known
from zambezi.database.tables import AuditCheckpoint, ChainHead
from zambezi.signing import Register, Signer

FORMAT = "zambezi audit checkpoint 1"
PURPOSE = "audit"
#: An entry as a collector's copy names it (zambezi.audit_message).
_ENTRY = re.compile(r"urn:zambezi:audit:([A-Za-z0-9_-]{1,64}):([0-9]{1,18}):([0-9a-f]{64})")
_LONGEST_LINE = 1_000_000

#: By chain and number; as zambezi.audit.Evidence, to be filled.
Gathered = dict[str, dict[int, Known]]


class CheckpointFault(Exception):
    """What was given can't be used as evidence; the text says why."""


@dataclass(frozen=True)
class Checkpoint:
    """What was signed, and the signature (base64)."""

    document: bytes
    signature: str

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.document)
        return found

    @property
    def digest(self) -> str:
        """Lower-case hex SHA-256 over what was signed and the signature; the next checkpoint names it."""
        return hashlib.sha256(self.document + self.signature.encode()).hexdigest()

    def to_json(self) -> bytes:
        """One line that holds all; `from_json` reads it."""
        return b'{"checkpoint":%b,"signature":"%b"}' % (self.document, self.signature.encode())

    @classmethod
    def from_json(cls, text: str) -> Checkpoint:
        """CheckpointFault where it is something else."""
        try:
            whole = json.loads(text)
            return cls(signing.canonical(whole["checkpoint"]), str(whole["signature"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointFault(f"this is no checkpoint: {error!r}") from error


def due(session: Session, minutes: int, now: datetime) -> bool:
    """Whether it is time for another one: something was recorded since the last, and that is long enough ago."""
    last = _last(session)
    if last is None:
        return session.scalars(select(ChainHead.journal).limit(1)).first() is not None
    since = now - clock.parse(last.at)
    if timedelta() <= since < timedelta(minutes=minutes):  # a clock that was put back keeps nothing from being signed
        return False
    return bool(json.loads(last.document)["chains"] != _chains(session))


def make(session: Session, signer: Signer, now: datetime) -> Checkpoint:
    """Write the next checkpoint; it counts when the session's transaction commits."""
    last = _last(session)
    before = Checkpoint(last.document, last.signature).digest if last else ""
    number = (last.number if last else 0) + 1
    body = signing.canonical({
        "format": FORMAT, "number": number, "at": clock.text(now), "before": before, "key_id": signer.key_id,
        "chains": _chains(session),
    })  # fmt: skip
    made = Checkpoint(body, signer.sign(body))
    session.add(
        AuditCheckpoint(
            number=number, at=clock.text(now), document=body, signature=made.signature, key_id=signer.key_id
        )
    )
    session.flush()
    return made


def faults(checkpoint: Checkpoint, keys: Register | None) -> str:
    """Why a checkpoint may not be believed, "" where it may."""
    body = checkpoint.body
    if body.get("format") != FORMAT:
        return "it is of another format"
    key = keys.key(str(body["key_id"])) if keys else None
    if key is None:
        return f"its key {body['key_id']} is not in the register of signing keys"
    if key.state == "revoked":
        return f"its key {key.key_id} is revoked"
    if not signing.holds(key.public_key, checkpoint.document, base64.b64decode(checkpoint.signature)):
        return "its signature doesn't hold"
    return ""


def gather(session: Session, keys: Register | None) -> tuple[Gathered, list[tuple[int, str]]]:
    """What the checkpoints of the table know, and those that don't hold: their numbers, and why."""
    known: Gathered = {}
    broken: list[tuple[int, str]] = []
    expected, before = 1, ""
    rows = select(AuditCheckpoint).order_by(AuditCheckpoint.number).execution_options(yield_per=500)
    for row in session.scalars(rows):
        one = Checkpoint(row.document, row.signature)
        why = faults(one, keys)
        body = one.body
        if not why and row.number != expected:
            why = f"checkpoint {expected} is missing: the next one found is {row.number}"
        elif not why and (body["number"], body["at"], body["before"]) != (row.number, row.at, before):
            why = "it doesn't follow the one before it"
        if why:
            broken.append((row.number, why))
        else:
            _take(known, body)
        expected, before = row.number + 1, one.digest
    return known, broken


def outside(lines: Iterable[str], keys: Register | None, known: Gathered, source: str) -> int:
    """Add to `known` what lies outside: checkpoints in any lines, and the last entry of each chain that a collector's
    lines name. How many checkpoints and entries were found; CheckpointFault for a checkpoint that isn't ours."""
    found = 0
    last: dict[str, tuple[int, str]] = {}
    for line in lines:
        if len(line) > _LONGEST_LINE:
            continue
        begin = line.find('{"checkpoint":')
        if begin >= 0:
            one = Checkpoint.from_json(line[begin:].strip().removeprefix("\ufeff"))
            why = faults(one, keys)
            if why:
                raise CheckpointFault(f"{source}: checkpoint {one.body.get('number')}: {why}")
            _take(known, one.body, source)
            found += 1
        for journal, seq, digest in _ENTRY.findall(line):
            found += 1
            last[journal] = max(last.get(journal, (0, "")), (int(seq), digest))
    for journal, (number, digest) in last.items():
        known.setdefault(journal, {})[number] = Known(digest, f"{source}, entry {number},")
    return found


def newer(session: Session, than: int, limit: int) -> Iterator[tuple[int, Checkpoint]]:
    """Checkpoints behind that number, in order."""
    query = select(AuditCheckpoint).where(AuditCheckpoint.number > than).order_by(AuditCheckpoint.number).limit(limit)
    for row in session.scalars(query):
        yield row.number, Checkpoint(row.document, row.signature)


def newest(session: Session) -> Checkpoint | None:
    """The last that was made; None where there is none yet."""
    last = _last(session)
    return Checkpoint(last.document, last.signature) if last else None


def count(session: Session) -> int:
    """How many there are."""
    return session.scalars(select(func.count()).select_from(AuditCheckpoint)).one()


def _take(known: Gathered, body: dict[str, Any], source: str = "") -> None:
    said = f"checkpoint {body['number']} of {body['at'][:16].replace('T', ' ')}" + (f" in {source}" if source else "")
    for journal, (seq, digest) in body["chains"].items():
        known.setdefault(journal, {})[seq] = Known(digest, said)


def _last(session: Session) -> AuditCheckpoint | None:
    return session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1)).first()


def _chains(session: Session) -> dict[str, list[Any]]:
    heads = session.scalars(select(ChainHead).where(ChainHead.seq > 0).order_by(ChainHead.journal))
    return {head.journal: [head.seq, head.hash] for head in heads}
