"""Several nodes, one recorder: what of their journals holds, in the central database.

Each node's entries are committed centrally as they are. Of a node that another one had relieved, those that tell of
stores don't hold (`fenced_entries`): the other one's tell of the same. What only that node knows (views, refusals,
what it held, what was deleted through it) holds all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.chain import Sealed
from zambezi.database.tables import ChainHead, FencedEntries, FollowerLease, NodeJournal

#: The one row of follower_lease.
LEASE = 1
#: A node that didn't answer for so long is away.
AWAY = timedelta(seconds=60)
#: Told by whoever records, from /changes.
_RECORDED = {
    "study-began", "stored", "stored-again", "study-completed", "routed", "priors-wanted", "hl7-triggered", "conflict",
}  # fmt: skip


def is_recorded(facts: Mapping[str, Any]) -> bool:
    """Whether an entry comes from following /changes: the same would be told by another node that follows."""
    return facts["event"] in _RECORDED or (facts["event"] == "deleted" and facts.get("noticed") != "seen")


def ranges(session: Session, journal: str) -> list[FencedEntries]:
    """What of a journal doesn't hold, in its order."""
    query = select(FencedEntries).where(FencedEntries.journal == journal).order_by(FencedEntries.first)
    return list(session.scalars(query))


def holding(session: Session, entries: Sequence[Sealed]) -> list[Sealed]:
    """The entries of one journal's batch that hold. The journal's head is locked: a grant comes before or after."""
    fences = ranges(session, entries[0].journal) if entries else []
    if not fences:
        return list(entries)
    held = []
    for entry in entries:
        facts = entry.facts
        if facts["event"] == "lease-taken":
            lease = session.get(FollowerLease, LEASE)
            if lease and (lease.fence, lease.lease_owner) == (facts["epoch"], facts["node"]):
                for fence in fences:
                    fence.last = entry.seq - 1 if fence.last is None else fence.last
        is_fenced = any(f.first <= entry.seq and (f.last is None or entry.seq <= f.last) for f in fences)
        if not (is_fenced and is_recorded(facts)):
            held.append(entry)
    return held


def one_again(session: Session) -> None:
    """The archive has one node now, and nobody to be relieved by: what its journal says from here on holds."""
    for fence in session.scalars(select(FencedEntries).where(FencedEntries.last.is_(None))):
        head = session.get(ChainHead, fence.journal)
        fence.last = head.seq if head else 0
    session.execute(delete(NodeJournal))
    # The epoch stays: the nodes know it, should there be several again.
    session.execute(update(FollowerLease).values(state="free", lease_owner=None, lease_until=None))


def has_all(session: Session, now: datetime) -> bool:
    """Whether every node answers, and all its journal is in the central database. True where there is one node."""
    newest = {row.node: row for row in session.scalars(select(NodeJournal).order_by(NodeJournal.seen_at))}
    for row in newest.values():
        head = session.get(ChainHead, row.journal)
        if row.seen_at < clock.text(now - AWAY) or head is None or head.seq < row.seq:
            return False
    return True
