"""Conflicts, looked at closer: does what came say something else than what the archive holds, or only in other bytes?

The plugin sees that the raw bytes differ, and puts the newcomer into the hold (`comparing`). Here, off the hot path,
both sides' canonical digests (zambezi.digest) are compared: the same content in another encoding needs nobody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import or_
from sqlalchemy.orm import Session

from operations.custody import archived
from operations.custody.worker import RETRY, WRITER, Desk
from zambezi import clock, elements, hold, holding, leases, rewriting
from zambezi.database.tables import Held
from zambezi.digest import Unreadable, differences, fingerprint
from zambezi.orthanc_client import OrthancError

log = logging.getLogger("zambezi.custody")

LEASE = timedelta(minutes=2)
#: So long after an arrival was held, Orthanc has stored it or never will; where nothing is there, it is looked again.
ARRIVES_WITHIN, LOOK_AGAIN = timedelta(minutes=2), timedelta(seconds=5)


@dataclass(frozen=True)
class Verdict:
    """What the comparison showed: `same`, or `waiting` for a person, with the tags that differ."""

    state: str
    reason: str
    differs: list[str] = field(default_factory=list)


def is_too_early(held_at: datetime, now: datetime) -> bool:
    """Whether the archive's copy may still be on its way: an arrival is held before Orthanc stores anything."""
    return now - held_at < ARRIVES_WITHIN


def verdict(newcomer: bytes, other: bytes | None) -> Verdict:
    """Compare what came with what the archive holds (None: nothing, any more)."""
    if other is None:
        return Verdict("waiting", "The archive's copy, with which it conflicted, is not there: its place is free.")
    if newcomer == other:
        return Verdict("same", "The archive holds these very bytes.")
    try:
        came = fingerprint(newcomer)
    except Unreadable as why:
        return Verdict("waiting", f"What came can't be taken apart to the end, so it could not be compared: {why}")
    try:
        there = fingerprint(other)
    except Unreadable as why:
        return Verdict("waiting", f"The archive's own copy can't be taken apart to the end: {why}")
    if came.digest == there.digest:
        return Verdict("same", "It says the same as the archive's copy, in another encoding.")
    tags = differences(came, there)
    if tags == [elements.name(rewriting.ORIGINALS)] and rewriting.is_same_but_for_moment(newcomer, other):
        return Verdict("same", "It is the archive's copy, put right by the same rules at another moment.")
    shown = ", ".join(tags[:5]) + (f" and {len(tags) - 5} more" if len(tags) > 5 else "")
    return Verdict("waiting", f"The same SOP Instance UID came with other content: {shown} differ.", tags)


def look(state: str) -> leases.Look:
    """Whether `claim` may find a row in this state."""
    return leases.Look(Held, ready=(state,), working=state)


def claim(session: Session, desk: Desk, state: str) -> tuple[Held, leases.Lease] | None:
    """One row in this state that nobody is working on; it stays in the state until the work is done."""
    now = desk.now()
    free = or_(Held.lease_until.is_(None), Held.lease_until <= clock.text(now))
    return leases.claim(
        session, Held, ready=(state,), working=state, now=now, owner=desk.owner, lease=LEASE, where=(free,)
    )


_CONFLICTS = look("comparing")


class Comparing:
    """Compares one conflict a round."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def round(self) -> bool:
        """Compare one newcomer with the archive's copy; True if there was one."""
        desk = self._desk
        if not _CONFLICTS(desk.sessions, desk.now()):
            return False
        with desk.sessions.begin() as session:
            claimed = claim(session, desk, "comparing")
        if claimed is None:
            return False
        row, lease = claimed
        try:
            with leases.Keeper(desk.sessions, lease, desk.now, LEASE):
                fault, found = self._look(row)
            with desk.sessions.begin() as session:
                if found is None:
                    leases.finish(session, lease, "comparing", next_at=clock.text(desk.now() + LOOK_AGAIN), attempts=0)
                    return True
                held = leases.finish(session, lease, "comparing", attempts=0)
                if fault:
                    holding.checked(session, held, fault, desk.now(), WRITER)
                holding.compared(session, held, found.state, found.reason, found.differs, desk.now(), WRITER)
        except leases.Fenced as why:
            log.warning("%s", why)
        except OrthancError:
            with desk.sessions.begin() as session:
                leases.finish(session, lease, "comparing", next_at=clock.text(desk.now() + RETRY.wait(row.attempts, 0)))
            raise
        return True

    def _look(self, row: Held) -> tuple[str, Verdict | None]:
        """What is wrong with the file, and the verdict; None while the archive's copy may still come."""
        try:
            content = hold.get(self._desk.environment.hold_dir, row.sha256)
        except hold.NotHeld as why:
            return str(why), Verdict("waiting", f"It could not be compared: {why}")
        early = is_too_early(clock.parse(row.held_at), self._desk.now())
        ids = archived.ids(self._desk.orthanc, row.sop_uid, row.orthanc_id)
        if early and row.orthanc_id not in (None, *ids):
            return "", None
        for orthanc_id in ids:
            other = archived.fetch(self._desk.orthanc, orthanc_id)
            if other:
                return "", verdict(content, other.content)
        return "", None if early else verdict(content, None)
