"""Several nodes on one index: who records, what the others are brought, and which node is away.

Each second: ask every node, renew the lease of the one that records or, where it ran out, grant it to another, and
bring each node the others' entries that are in the central database. `chosen` is pure. Several gateways may do so at
the same time: the lease is one row, and bringing entries twice is no harm.
"""

from __future__ import annotations

import heapq
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from gateway.effects import WRITER
from zambezi import clock, exceptions, leases, nodes
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditEntry, ChainHead, FencedEntries, FollowerLease, NodeJournal
from zambezi.leases import Fenced, Lease
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancUnreachable

log = logging.getLogger("zambezi.nodes")

#: A node that doesn't answer for so long is relieved, if another one answers.
LEASE = timedelta(seconds=15)
EVERY_S = 1.0
#: Entries brought to a node at once.
BROUGHT = 1000
_BROUGHT_EVENTS = ("study-began", "stored", "stored-again", "study-completed", "routed", "deleted")
_ASK_S = 5.0

Status = Mapping[str, Any]


def chosen(holder: str, lease_until: str, answering: Sequence[str], now: datetime) -> str:
    """The node that records from now on: the one that does, while it answers or its lease lasts; else the first
    that answers. Empty where nobody can.
    """
    if holder and (holder in answering or lease_until > clock.text(now)):
        return holder
    return answering[0] if answering else ""


class Nodes:
    """Used by one thread. `clients` are in the order of ZAMBEZI_NODES."""

    def __init__(
        self, sessions: Sessions, clients: Mapping[str, OrthancClient], now: Callable[[], datetime] = clock.now
    ) -> None:
        self._sessions = sessions
        self._clients = clients
        self._now = now
        self._begun = False
        #: For the sign of life.
        self.holder, self.epoch, self.away = "", 0, list[str]()

    @property
    def told(self) -> dict[str, Any]:
        return {"records": self.holder, "epoch": self.epoch, "away": self.away}

    def round(self) -> float:
        """Seconds to wait before the next. Raises DBAPIError."""
        now = self._now()
        told: dict[str, Status] = {}
        for name, client in self._clients.items():
            with suppress(OrthancUnreachable):
                told[name] = client.request("GET", "/zambezi/status", timeout_s=_ASK_S).json()
        with self._sessions.begin() as session:
            self._see(session, told, now)
            self._grant(session, told, now)
        with self._sessions.begin() as session:
            messages = {name: self._message(session, name, status) for name, status in told.items()}
        all_know = len(told) == len(self._clients) and not any(one["entries"] for one in messages.values())
        for name, message in messages.items():
            try:
                self._clients[name].request(
                    "PUT", "/zambezi/standing", json={**message, "all_know": all_know}, timeout_s=30
                )
            except OrthancError as error:
                log.warning("node %s could not be told who records: %s", name, error)
        return 0.2 if any(len(one["entries"]) == BROUGHT for one in messages.values()) else EVERY_S

    def _see(self, session: Session, told: Mapping[str, Status], now: datetime) -> None:
        """Keep what each node says of its journal; whose journal nobody can read is said to a person."""
        if not self._begun:
            # What left the configuration isn't waited for.
            session.execute(delete(NodeJournal).where(NodeJournal.node.not_in(list(self._clients))))
            self._begun = True
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        for name, status in told.items():
            said = {"node": name, "seq": status["seq"], "seen_at": clock.text(now)}
            session.execute(
                insert(NodeJournal)
                .values(journal=status["journal"], **said)
                .on_conflict_do_update(index_elements=["journal"], set_=said)
            )
        newest = {row.node: row for row in session.scalars(select(NodeJournal).order_by(NodeJournal.seen_at))}
        self.away = []
        for name, row in newest.items():
            head = session.get(ChainHead, row.journal)
            if row.seen_at < clock.text(now - nodes.AWAY):
                self.away.append(name)
                self._missing(session, row, head.seq if head else 0, now)
            elif name in told and head is not None and head.seq >= row.seq:
                exceptions.decide(
                    session, "archive", f"node {name}", who=WRITER, now=now, writer=WRITER,
                    decision="the node is back, and its whole journal is in the central database",
                )  # fmt: skip

    def _missing(self, session: Session, row: NodeJournal, seq: int, now: datetime) -> None:
        reference = f"node {row.node}"
        exceptions.wait(
            session, "archive", reference, now=now, kind="node-away",
            facts={"source": row.node, "journal": row.journal, "place": seq, "since": row.seen_at[:19]},
            what=f"node {row.node} of the archive doesn't answer since {row.seen_at[:19]}; what only its journal "
            f"{row.journal} knows behind entry {seq} (who looked, who was refused, what it held) is missing here",
            suggestion="The other nodes go on. Bring its machine or its disk back: the missing entries then come by "
            "themselves.",
        )  # fmt: skip

    def _grant(self, session: Session, told: Mapping[str, Status], now: datetime) -> None:
        insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        session.execute(
            insert(FollowerLease)
            .values(id=nodes.LEASE, state="free", attempts=0, next_at=clock.text(now), fence=0)
            .on_conflict_do_nothing()
        )
        row = session.scalars(select(FollowerLease).with_for_update()).one()
        known = max((max(one["epoch"], one["marked"]) for one in told.values()), default=0)
        if known > row.fence:
            log.warning("the nodes know epoch %s, the database %s; going beyond it", known, row.fence)
            row.fence, row.state, row.lease_owner = known, "free", None  # a database from a backup
            session.flush()
        holder = row.lease_owner or ""
        # Who answers, but can't follow (its disk is full, say), is as good as away.
        able = sorted((n for n in told if not told[n]["follower"]["error"]), key=lambda n: not told[n]["records"])
        name = chosen(holder, row.lease_until or "", able, now)
        if name and name == holder:
            if name in able:
                with suppress(Fenced):
                    leases.renew(session, Lease(FollowerLease, row.id, row.fence, holder), now=now, lease=LEASE)
        elif name:
            row.next_at = clock.text(now)
            session.flush()
            claimed = leases.claim(
                session, FollowerLease, ready=("free",), working="following", now=now, owner=name, lease=LEASE
            )
            if claimed:
                row = claimed[0]
                self._fence(session, holder)
                log.warning("node %s records from now on, epoch %s; before: %s", name, row.fence, holder or "none")
        self.holder, self.epoch = row.lease_owner or "", row.fence

    def _fence(self, session: Session, relieved: str) -> None:
        """What the relieved node records from here on doesn't hold, until it has the right again."""
        for journal in session.scalars(select(NodeJournal.journal).where(NodeJournal.node == relieved)).all():
            head = session.scalars(select(ChainHead).where(ChainHead.journal == journal).with_for_update()).first()
            if not any(one.last is None for one in nodes.ranges(session, journal)):
                session.add(FencedEntries(journal=journal, first=(head.seq if head else 0) + 1, last=None))
                session.flush()

    def _message(self, session: Session, name: str, status: Status) -> dict[str, Any]:
        """What a node is told: who records, and the others' entries behind those that it has."""
        mine, applied = status["journal"], status["applied"]
        others = session.scalars(
            select(ChainHead).where(
                ChainHead.journal.like("orthanc-%"), ChainHead.journal.not_like("%-fork"), ChainHead.journal != mine
            )
        ).all()
        heads = {head.journal: head.seq for head in others}
        behind = {j: applied.get(j, 0) for j, seq in heads.items() if seq > applied.get(j, 0)}
        found = {j: _entries(session, j, since, heads[j]) for j, since in behind.items()}
        entries = list(heapq.merge(*found.values(), key=lambda one: one.at))[:BROUGHT]
        through = dict(behind)
        for one in entries:
            through[one.journal] = one.seq
        for journal, rows in found.items():
            if len(rows) < BROUGHT and (not rows or through[journal] == rows[-1].seq):
                through[journal] = heads[journal]  # nothing more that a node needs
        fenced = {j: nodes.ranges(session, j) for j in found}
        return {
            "holder": self.holder, "epoch": self.epoch, "heads": heads, "through": through,
            "entries": [one.payload.decode() for one in entries if not _is_fenced(one, fenced[one.journal])],
            "fenced": [[one.first, one.last] for one in nodes.ranges(session, mine)],
        }  # fmt: skip


def _entries(session: Session, journal: str, since: int, head: int) -> list[AuditEntry]:
    query = (
        select(AuditEntry)
        .where(
            AuditEntry.journal == journal, AuditEntry.seq > since, AuditEntry.seq <= head,
            AuditEntry.event.in_(_BROUGHT_EVENTS),
        )
        .order_by(AuditEntry.seq)
        .limit(BROUGHT)
    )  # fmt: skip
    return list(session.scalars(query))


def _is_fenced(row: AuditEntry, fences: Sequence[FencedEntries]) -> bool:
    inside = any(one.first <= row.seq and (one.last is None or row.seq <= one.last) for one in fences)
    return inside and nodes.is_recorded(json.loads(row.payload))
