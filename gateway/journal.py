"""Following the archive's journal: every sealed entry into the central database, with what it means there.

`Follower` commits a batch of entries, their effects (gateway.effects) and the cursor (the journal's
ChainHead) in one transaction: after a crash it goes on where that stood, and reading an entry twice is impossible.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.effects import WRITER, Effects
from zambezi import audit, chain, clock, exceptions, nodes
from zambezi.chain import Sealed
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditEntry, ChainHead, NodeJournal
from zambezi.orthanc_client import OrthancClient, OrthancRefused

log = logging.getLogger("zambezi.journal")

BATCH = 500
WAIT_S = 10


class Follower:
    """Takes over what the plugin of one Orthanc has recorded; used by one thread."""

    def __init__(
        self, sessions: Sessions, settings: Zambezi, orthanc: OrthancClient, now: Callable[[], datetime] = clock.now,
        node: str = "", is_first: bool = True,
    ) -> None:  # fmt: skip
        self._node, self._is_first = node, is_first
        self._sessions = sessions
        self._settings = settings
        self._orthanc = orthanc
        self._now = now
        self._journal = ""
        self.seq = 0
        self.head = 0

    def follow(self, wait_s: int = WAIT_S) -> int:
        """Take over the next batch, waiting for it at most so long; how many entries."""
        if not self._journal:
            self._journal = str(self._orthanc.get("/zambezi/status")["journal"])
            self._note_new_journal()
        with self._sessions.begin() as session:
            seq, head = audit.head(session, self._journal)
        query = {"journal": self._journal, "since": seq, "hash": head, "limit": BATCH, "wait": wait_s}
        try:
            answer = self._orthanc.request("GET", "/zambezi/journal", params=query, timeout_s=wait_s + 30).json()
        except OrthancRefused as refused:
            if refused.status != 409:
                raise
            self._journal, before = "", self._journal
            if str(self._orthanc.get("/zambezi/status")["journal"]) != before:
                return 0  # another journal, noted as such when it is asked for next, not this one changed
            return self._fork(before, seq)
        if answer["journal"] != self._journal:
            self._journal = ""
            return 0
        entries = [Sealed(self._journal, e["seq"], e["hash"], e["payload"].encode()) for e in answer["entries"]]
        self.seq, self.head = seq + len(entries), answer["head"]
        if entries:
            self._commit(entries, (seq, head))
        return len(entries)

    def _commit(self, entries: Sequence[Sealed], behind: tuple[int, str]) -> None:
        with self._sessions.begin() as session:
            if audit.locked_head(session, entries[0].journal) != behind:
                return  # another gateway has committed them meanwhile
            audit.take_over(session, entries)
            Effects(session, self._settings, self._now()).carry_out(nodes.holding(session, entries))

    def _note_new_journal(self) -> None:
        """A journal that was never followed while another one was: somebody took the old file away."""
        with self._sessions.begin() as session:
            if not self._node:
                nodes.one_again(session)
            others = self._before(session)
            if not others or self._journal in others:
                return
            now = self._now()
            # The head makes it known, so that this is said once.
            session.add(ChainHead(journal=self._journal, seq=0, hash=""))
            why = f"the archive began a new journal {self._journal}; before there was {', '.join(sorted(others))}"
            audit.append(session, WRITER, "incident", now, reason=why, new_journal=self._journal)
            exceptions.wait(
                session, "archive", f"journal {self._journal}", now=now, what=why, kind="journal-new",
                facts={"source": self._journal, "reason": why},
                suggestion="Find out why plugin/journal.db was lost; entries not followed before that are lost.",
            )  # fmt: skip
        log.error("%s", why)

    def _before(self, session: Session) -> list[str]:
        """The journals that this archive, or this node of several, had until now."""
        every = session.scalars(select(ChainHead.journal).where(ChainHead.journal.like("orthanc-%"))).all()
        if not self._node:
            return list(every)
        owners = {row.journal: row.node for row in session.scalars(select(NodeJournal))}
        # Before there were several nodes, what was recorded was the first one's.
        return [one for one in every if owners.get(one, self._node if self._is_first else "") == self._node]

    def _fork(self, journal: str, seq: int) -> int:
        """The plugin's journal isn't the one we followed (an old copy of its file was put back, or it was changed).

        That is an incident. Following goes on from the last entry that both have: what the journal now says
        behind it is kept, sealed by us, in a chain of its own (`...-fork`), and carried out.
        """
        fork = f"{journal}-fork"
        with self._sessions.begin() as session:
            place = _place_in_fork(session, fork)
        try:
            if place is None:
                place = self._common(journal, seq)
                self._note_fork(journal, fork, place, seq)
            entries, head = self._read(journal, *place)
        except OrthancRefused as refused:
            if refused.status != 409:
                raise
            place = self._common(journal, seq)
            self._note_fork(journal, fork, place, seq)
            entries, head = self._read(journal, *place)
        broken = chain.first_broken(entries, Sealed(journal, *place, b""))
        if broken:
            raise ValueError(f"journal {journal}, entry {broken.seq}: {broken.why}")
        with self._sessions.begin() as session:
            for entry in entries:
                facts = entry.facts
                about = {name: facts[name] for name in ("study_uid", "sop_uid", "who") if name in facts}
                audit.append(
                    session, fork, facts["event"], clock.parse(facts["at"]), **about,
                    original=entry.payload.decode(), original_seq=entry.seq, original_hash=entry.hash,
                )  # fmt: skip
            # The places in the journal are used a second time: the hash keeps deliveries apart.
            Effects(session, self._settings, self._now(), salted=True).carry_out(entries)
        self.seq, self.head = place[0] + len(entries), head
        return len(entries)

    def _note_fork(self, journal: str, fork: str, place: tuple[int, str], seq: int) -> None:
        why = f"journal {journal} is not the one that was followed to entry {seq}: it differs behind entry {place[0]}"
        now = self._now()
        with self._sessions.begin() as session:
            audit.append(session, fork, "incident", now, reason=why, original_seq=place[0], original_hash=place[1])
            audit.append(session, WRITER, "incident", now, reason=why, forked=journal)
            exceptions.wait(
                session, "archive", f"journal {journal}", now=now, what=why, kind="journal-changed",
                facts={"source": journal, "place": place[0], "reason": why},
                suggestion="Find out who replaced or changed plugin/journal.db. Following goes on meanwhile.",
            )  # fmt: skip
        log.error("%s", why)

    def _read(self, journal: str, since: int, head: str, limit: int = BATCH) -> tuple[list[Sealed], int]:
        query = {"journal": journal, "since": since, "hash": head, "limit": limit, "wait": 0}
        answer = self._orthanc.request("GET", "/zambezi/journal", params=query).json()
        return [Sealed(journal, e["seq"], e["hash"], e["payload"].encode()) for e in answer["entries"]], answer["head"]

    def _common(self, journal: str, below: int) -> tuple[int, str]:
        """The last entry that the plugin's journal and the central table have both, by halving."""
        with self._sessions.begin() as session:
            low, known = audit.pruned(session, journal)  # what is before it lies in sealed segments, without rows here
        if low and not self._has(journal, low, known):
            return 0, ""
        high = below
        while low < high:
            middle = (low + high + 1) // 2
            with self._sessions.begin() as session:
                here = session.get_one(AuditEntry, (journal, middle)).hash
            if self._has(journal, middle, here):
                low, known = middle, here
            else:
                high = middle - 1
        return low, known

    def _has(self, journal: str, seq: int, digest: str) -> bool:
        """Whether the plugin's journal has this entry."""
        try:
            self._read(journal, seq, digest, limit=1)
        except OrthancRefused as refused:
            if refused.status != 409:
                raise
            return False
        return True


def _place_in_fork(session: Session, fork: str) -> tuple[int, str] | None:
    seq, _ = audit.head(session, fork)
    if not seq:
        return None
    facts = json.loads(session.get_one(AuditEntry, (fork, seq)).payload)
    return facts["original_seq"], facts["original_hash"]
