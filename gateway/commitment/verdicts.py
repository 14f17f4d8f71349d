"""Whether instances that a station asks about are safe here: decided from what index and disk have. Pure.

Failure Reasons are those of PS3.3 C.14.1.1. An instance is safe where every copy that the index has is of the asked
SOP class and lies on the disk with the size and MD5 it came with, and no other content under its UID waits in the hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119


@dataclass(frozen=True)
class Copy:
    """An instance as the index has it (size, md5), and as it lies on the disk (file_size -1: it doesn't)."""

    study_uid: str
    sop_class: str
    size: int
    md5: str
    file_size: int
    file_md5: str


@dataclass(frozen=True)
class Failed:
    """Not safe: the Failure Reason for the station, and the same for a person."""

    sop_class: str
    sop_uid: str
    reason: int
    why: str

    @property
    def told(self) -> list[Any]:
        return [self.sop_class, self.sop_uid, self.reason, self.why]


@dataclass(frozen=True)
class Verdict:
    """Of one request: what isn't safe, which studies it is about, and whether time may still help."""

    safe: tuple[tuple[str, str], ...]
    failed: tuple[Failed, ...]
    study_uids: tuple[str, ...]
    may_come: bool

    @property
    def why(self) -> str:
        """The reasons, each once with how often, for a person."""
        counts: dict[str, int] = {}
        for one in self.failed:
            counts[one.why] = counts.get(one.why, 0) + 1
        return "; ".join(f"{why} ({count})" for why, count in counts.items())

    @property
    def digest(self) -> str:
        """SHA-256 over the UIDs that are safe, sorted, a line each: the audit trail can show for which we answered."""
        lines = "".join(f"{sop_uid}\n" for sop_uid in sorted(uid for _, uid in self.safe))
        return hashlib.sha256(lines.encode()).hexdigest()


def decide(
    asked: Sequence[tuple[str, str]], copies: Mapping[str, Sequence[Copy]], held: Collection[str]
) -> Verdict:  # fmt: skip
    """The verdict over (SOP class, SOP instance) pairs; `held`: UIDs of which another content waits in the hold."""
    failed: list[Failed] = []
    safe: list[tuple[str, str]] = []
    may_come = False
    for sop_class, sop_uid in asked:
        found = copies.get(sop_uid, ())
        fault = _fault(sop_class, found, sop_uid in held)
        if fault is None:
            safe.append((sop_class, sop_uid))
            continue
        failed.append(Failed(sop_class, sop_uid, *fault))
        # Images are on their way while the station asks already; the hold compares by itself what came twice.
        may_come = may_come or not found or sop_uid in held
    studies = sorted({copy.study_uid for found in copies.values() for copy in found})
    return Verdict(tuple(safe), tuple(failed), tuple(studies), may_come)


def _fault(sop_class: str, copies: Sequence[Copy], is_held: bool) -> tuple[int, str] | None:
    for copy in copies:
        if copy.sop_class and copy.sop_class != sop_class:
            return CLASS_CONFLICT, "the archive has it with another SOP class"
        if copy.file_size < 0:
            return PROCESSING_FAILURE, "its file is not on the disk"
        if copy.file_size != copy.size:
            return PROCESSING_FAILURE, "its file has another size than what came"
        if not copy.md5 or copy.file_md5 != copy.md5:
            return PROCESSING_FAILURE, "its file has other bytes than what came"
    if is_held:
        return PROCESSING_FAILURE, "another content under its UID waits in the hold"
    return None if copies else (NO_SUCH_INSTANCE, "the archive doesn't have it")
