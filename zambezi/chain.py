"""The audit chain: entries that name their predecessor, so that a changed byte shows.

A sealed entry is a payload, kept as the very bytes that were hashed, and its hash. The payload is
canonical JSON that holds the chain's name (`journal`), its place in it (`seq`, from 1), the hash of the
entry before (`prev`, empty for the first) and the facts. One chain a writer: each Orthanc node, ris,
gateway, migration, operations. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from zambezi import clock

#: A million entries are walked every night: this saves json.loads its guess of the encoding.
_read = json.JSONDecoder().decode
#: As canonical JSON is written; made once, for every image that comes has an entry.
_written = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True)
class Sealed:
    """One entry: `payload` is what was hashed, `hash` is lower-case hex SHA-256."""

    journal: str
    seq: int
    hash: str
    payload: bytes

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The payload, read once: for reading only. ValueError where it isn't JSON."""
        facts: dict[str, Any] = _read(self.payload.decode())
        return facts


def seal(journal: str, seq: int, prev: str, event: str, at: datetime, facts: Mapping[str, Any]) -> Sealed:
    """Seal the event as entry `seq` of `journal` behind the entry whose hash is `prev`."""
    body = {**facts, "journal": journal, "seq": seq, "prev": prev, "event": event, "at": clock.text(at)}
    payload = _written(body).encode()
    return Sealed(journal, seq, hashlib.sha256(payload).hexdigest(), payload)


@dataclass(frozen=True)
class Broken:
    """The first place where a chain doesn't hold, and why in words."""

    journal: str
    seq: int
    why: str


def first_broken(entries: Iterable[Sealed], after: Sealed | None = None) -> Broken | None:
    """Walk entries in order of `seq` (behind `after`, if that one is known to be good); None if all hold."""
    seq, prev = (after.seq, after.hash) if after else (0, "")
    for entry in entries:
        if entry.seq != seq + 1:
            return missing(entry.journal, seq + 1, entry.seq)
        why, facts = fault(entry.journal, entry.seq, entry.hash, entry.payload, prev)
        if why:
            return Broken(entry.journal, entry.seq, why)
        vars(entry)["facts"] = facts  # they were read just now: whoever takes the entry over needn't again
        seq, prev = entry.seq, entry.hash
    return None


def missing(journal: str, expected: int, found: int) -> Broken:
    """Where a number in the chain is left out."""
    return Broken(journal, expected, f"entry {expected} is missing: the next one found is {found}")


def fault(journal: str, seq: int, digest: str, payload: bytes, prev: str) -> tuple[str, dict[str, Any]]:
    """Why this is not entry `seq` behind the one whose hash is `prev` ("" if it is), and its facts."""
    if hashlib.sha256(payload).hexdigest() != digest:
        return "the sealed payload is not what was hashed", {}
    try:
        facts: dict[str, Any] = _read(payload.decode())
    except ValueError:
        return "the sealed payload is not JSON", {}
    if facts.get("prev") != prev:
        return "its predecessor is not the entry before it", facts
    if facts.get("seq") != seq or facts.get("journal") != journal:
        return "it was sealed as another entry", facts
    return "", facts
