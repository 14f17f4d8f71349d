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
from typing import Any

from zambezi import clock


@dataclass(frozen=True)
class Sealed:
    """One entry: `payload` is what was hashed, `hash` is lower-case hex SHA-256."""

    journal: str
    seq: int
    hash: str
    payload: bytes

    @property
    def facts(self) -> dict[str, Any]:
        """The payload, read."""
        facts: dict[str, Any] = json.loads(self.payload)
        return facts


def seal(journal: str, seq: int, prev: str, event: str, at: datetime, facts: Mapping[str, Any]) -> Sealed:
    """Seal the event as entry `seq` of `journal` behind the entry whose hash is `prev`."""
    body = {**facts, "journal": journal, "seq": seq, "prev": prev, "event": event, "at": clock.text(at)}
    payload = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
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
            return Broken(entry.journal, seq + 1, f"entry {seq + 1} is missing: the next one found is {entry.seq}")
        if hashlib.sha256(entry.payload).hexdigest() != entry.hash:
            return Broken(entry.journal, entry.seq, "the sealed payload is not what was hashed")
        try:
            facts = json.loads(entry.payload)
        except ValueError:
            return Broken(entry.journal, entry.seq, "the sealed payload is not JSON")
        if facts.get("prev") != prev:
            return Broken(entry.journal, entry.seq, "its predecessor is not the entry before it")
        if (facts.get("journal"), facts.get("seq")) != (entry.journal, entry.seq):
            return Broken(entry.journal, entry.seq, "it was sealed as another entry")
        seq, prev = entry.seq, entry.hash
    return None
