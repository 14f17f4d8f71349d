"""Sealed segments: entries of a chain that go out of the table into a signed file, so that leaving isn't tampering.

A segment is a file of lines, `HASH PAYLOAD` each (gzip), and a signed statement (Ed25519, purpose `audit`) of its
chain, its first and last number, the hash before it and its own last one, and the file's SHA-256. With the statement's
last hash the chain goes on in the table: nothing in a segment can be changed without one of the two showing it. The
file can be read without our software: `zcat FILE | cut -c66-` are the entries, and `printf %s ENTRY | sha256sum` is
what stands before each.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from zambezi import audit, chain, clock, durable, signing
from zambezi.audit import KEPT_EVENTS, PAYLOAD
from zambezi.database.tables import AuditEntry, AuditSegment, ChainHead
from zambezi.signing import Register, Signer

FORMAT = "zambezi audit segment 1"
#: Below ZAMBEZI_HOME; what lies there is in every backup.
FOLDER = Path("audit") / "segments"
#: No file has more entries: what is sealed is held in memory once.
MOST = 100_000


class SegmentFault(Exception):
    """A part of the trail can't be sealed, read or pruned; the text says which and why."""


@dataclass(frozen=True)
class Part:
    """Entries `first` to `last` of a chain."""

    journal: str
    first: int
    last: int


def closed(session: Session, before: datetime) -> list[Part]:
    """What can be sealed of each chain: all entries, from its beginning or its last segment on, older than `before`.

    The end of a chain stays open, whatever its age: the next entry goes behind it.
    """
    found = []
    for head in session.scalars(select(ChainHead).order_by(ChainHead.journal)):
        sealed = select(func.max(AuditSegment.last)).where(AuditSegment.journal == head.journal)
        first = (session.scalars(sealed).one() or 0) + 1
        younger = select(func.min(AuditEntry.seq)).where(
            AuditEntry.journal == head.journal, AuditEntry.seq >= first, AuditEntry.at >= clock.text(before)
        )
        end = min(session.scalars(younger).one() or head.seq, head.seq) - 1
        while first <= end:
            last = min(end, first + MOST - 1)
            found.append(Part(head.journal, first, last))
            first = last + 1
    return found


def seal(session: Session, part: Part, signer: Signer, folder: Path, who: str, now: datetime, writer: str) -> Path:
    """Write the part's file, read it back, and commit to it in the session; SegmentFault where the chain is broken.

    The file is on disk before the row is: a crash between the two leaves a file that the next attempt replaces.
    """
    before = _hash_before(session, part)
    out = io.BytesIO()
    prev, seq, oldest, newest = before, part.first - 1, "", ""
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0) as packed:
        query = (
            select(AuditEntry.seq, AuditEntry.hash, PAYLOAD)
            .where(AuditEntry.journal == part.journal, AuditEntry.seq.between(part.first, part.last))
            .order_by(AuditEntry.seq)
            .execution_options(yield_per=5000)
        )
        for found, digest, payload in session.execute(query):
            why, facts = chain.fault(part.journal, found, digest, payload, prev)
            if why or found != seq + 1:
                raise SegmentFault(
                    f"chain {part.journal}, entry {seq + 1}: {why or 'it is missing'}; nothing is sealed"
                )
            packed.write(digest.encode() + b" " + payload + b"\n")
            oldest, newest = min(oldest or facts["at"], facts["at"]), max(newest, facts["at"])
            prev, seq = digest, found
    if seq != part.last:
        raise SegmentFault(f"chain {part.journal}, entry {seq + 1}: it is missing; nothing is sealed")
    name = f"{part.journal}-{part.first:09}-{part.last:09}.gz"
    body = signing.canonical({
        "format": FORMAT, "journal": part.journal, "first": part.first, "last": part.last, "before": before,
        "hash": prev, "oldest": oldest, "newest": newest, "sha256": hashlib.sha256(out.getvalue()).hexdigest(),
        "sealed_at": clock.text(now), "key_id": signer.key_id,
    })  # fmt: skip
    signature = signer.sign(body)
    durable.replace(folder / name, out.getvalue())
    durable.replace(folder / f"{name}.json", b'{"segment":%b,"signature":"%b"}\n' % (body, signature.encode()))
    row = AuditSegment(
        journal=part.journal, first=part.first, last=part.last, hash=prev, file=name, document=body,
        signature=signature, key_id=signer.key_id, sealed_at=clock.text(now), pruned_at=None,
    )  # fmt: skip
    _read_back(row, folder)
    session.add(row)
    audit.append(
        session, writer, "audit-segment", now, state="sealed", chain=part.journal, first=part.first, last=part.last,
        digest=json.loads(body)["sha256"], file=name, who=who,
    )  # fmt: skip
    return folder / name


def prune(session: Session, row: AuditSegment, folder: Path, keys: Register | None, who: str, now: datetime,
          writer: str) -> int:  # fmt: skip
    """Take a sealed segment's entries out of the table; how many. SegmentFault unless its file holds, now."""
    why = fault(row, folder, keys)
    if not why and row.first > 1 and audit.pruned(session, row.journal)[0] != row.first - 1:
        why = "the segment before it is still in the table"
    if why:
        raise SegmentFault(f"{row.file}: {why}; its entries stay in the table")
    _read_back(row, folder)
    gone = session.execute(
        delete(AuditEntry).where(
            AuditEntry.journal == row.journal, AuditEntry.seq.between(row.first, row.last),
            AuditEntry.event.not_in(KEPT_EVENTS),
        )
    )  # fmt: skip
    row.pruned_at = clock.text(now)
    audit.append(
        session, writer, "audit-segment", now, state="pruned", chain=row.journal, first=row.first, last=row.last,
        file=row.file, who=who,
    )  # fmt: skip
    return int(getattr(gone, "rowcount", 0))


def newest(row: AuditSegment) -> datetime:
    """When the youngest of its entries was recorded."""
    return clock.parse(str(json.loads(row.document)["newest"]))


def fault(row: AuditSegment, folder: Path, keys: Register | None) -> str:
    """Why a segment doesn't hold, "" where it does: its row, its statement's signature, its file."""
    body = json.loads(row.document)
    key = keys.key(row.key_id) if keys else None
    if key is None or key.state == "revoked":
        return f"its key {row.key_id} is {'revoked' if key else 'not in the register of signing keys'}"
    if not signing.holds(key.public_key, row.document, base64.b64decode(row.signature)):
        return "its signature doesn't hold"
    told = (row.journal, row.first, row.last, row.hash, FORMAT)
    if told != tuple(body[name] for name in ("journal", "first", "last", "hash", "format")):
        return "its row is not what was signed"
    try:
        with (folder / row.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"its file can't be read ({error.strerror}): put it back into {folder}"
    return "" if digest == body["sha256"] else "its file is not the one that was signed"


def faults(session: Session, folder: Path, keys: Register | None) -> tuple[int, list[tuple[AuditSegment, str]]]:
    """How many segments there are, and each that doesn't hold, follows not the one before it, or differs from what
    stayed in the table."""
    found = []
    ends: dict[str, tuple[int, str]] = {}
    rows = session.scalars(select(AuditSegment).order_by(AuditSegment.journal, AuditSegment.first)).all()
    for row in rows:
        why = fault(row, folder, keys)
        expected = ends.get(row.journal, (0, ""))
        if not why and (row.first - 1, json.loads(row.document)["before"]) != expected:
            why = "it doesn't follow the segment before it"
        if not why and row.pruned_at:
            why = _differs(session, row, folder)
        if why:
            found.append((row, why))
        ends[row.journal] = (row.last, row.hash)
    return len(rows), found


def entries(file: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a segment's file: hash and payload."""
    with gzip.open(file, "rb") as lines:
        for line in lines:
            yield line[:64].decode("ascii"), line[65:].rstrip(b"\n")


def _differs(session: Session, row: AuditSegment, folder: Path) -> str:
    """What stayed in the table of a pruned segment must be what its file says."""
    inside = AuditEntry.seq.between(row.first, row.last)
    stayed = session.execute(
        select(AuditEntry.seq, AuditEntry.hash, PAYLOAD).where(AuditEntry.journal == row.journal, inside)
    ).all()
    if not stayed:
        return ""
    wanted: dict[int, Any] = {seq: (digest, payload) for seq, digest, payload in stayed}
    for number, line in enumerate(entries(folder / row.file), row.first):
        if number in wanted and wanted[number] != line:
            return f"entry {number}, which stayed in the table, is not what was sealed"
    return ""


def _read_back(row: AuditSegment, folder: Path) -> None:
    body = json.loads(row.document)
    prev, number = body["before"], row.first - 1
    for digest, payload in entries(folder / row.file):
        number += 1
        why, _ = chain.fault(row.journal, number, digest, payload, prev)
        if why:
            raise SegmentFault(f"{row.file}, read back: entry {number}: {why}")
        prev = digest
    if (number, prev) != (row.last, row.hash):
        raise SegmentFault(f"{row.file}, read back: it ends with entry {number}, not {row.last}")


def _hash_before(session: Session, part: Part) -> str:
    if part.first == 1:
        return ""
    sealed = session.scalars(
        select(AuditSegment.hash).where(AuditSegment.journal == part.journal, AuditSegment.last == part.first - 1)
    ).first()
    if sealed is None:
        raise SegmentFault(
            f"chain {part.journal}: what is before entry {part.first} isn't sealed yet; nothing is sealed"
        )
    return sealed
