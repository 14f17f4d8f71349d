"""What others noted for the journal: queries (Lua), incidents (recovery), refusals (the door)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from plugins.journal import Journal
from plugins.refusals import Refusals
from plugins.spool import Spool, Taken
from zambezi import clock

#: So many refusals wait for a journal that takes nothing; beyond, the oldest are lost.
REFUSED = 2000


class Noted:
    """Takes over what was noted on behalf of the follower."""

    def __init__(self, journal: Journal, queries: Spool, incidents: Spool, refusals: Refusals) -> None:
        self._journal = journal
        self._queries = queries
        self._incidents = incidents
        self._refusals = refusals
        self._refused: list[dict[str, Any]] = []

    def record(self, now: datetime) -> None:
        """Queries, incidents and refusals that were noted since, in one commit."""
        queries = self._lines(self._queries)
        incidents = self._lines(self._incidents)
        # What can't be committed now (a disk without room) is, once it can.
        self._refused = refused = [*self._refused, *self._refusals.take(now)][-REFUSED:]
        if queries is None and incidents is None and not refused:
            return
        with self._journal.transaction() as transaction:
            for one in queries.lines if queries else ():
                query = _query(one)
                transaction.append("queried", now, **query)
                if query["aet"]:
                    transaction.set_later(f"seen {query['aet']}", clock.text(now))
            for one in incidents.lines if incidents else ():
                transaction.append("incident", now, **{k: v for k, v in one.items() if k not in _SEALED})
            for one in refused:
                transaction.append("refused", now, **one)
            for taken, what in ((queries, "queries"), (incidents, "incidents")):
                if taken and taken.left_out:
                    reason = f"{taken.left_out} lines of {what} could not be read and are not in the journal"
                    transaction.append("incident", now, reason=reason)
                if taken:
                    transaction.set_meta(taken.key, str(taken.number))
        self._refused = []
        if queries is not None:
            self._queries.forget()
        if incidents is not None:
            self._incidents.forget()

    def _lines(self, spool: Spool) -> Taken | None:
        return spool.take(int(self._journal.meta(spool.key) or 0))


_SEALED = ("journal", "seq", "prev", "event", "at")


def _query(line: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a `queried` entry; how long a query may be is bounded."""
    asked = line.get("query")
    query = asked if isinstance(asked, dict) else {}
    level = str(query.get("0008,0052", "")).strip() or None
    cut = {
        str(tag): value if isinstance(value, (list, dict)) else str(value)[:256]
        for tag, value in list(query.items())[:100]
    }
    told = {name: str(line.get(name, ""))[:64] for name in ("aet", "ip", "called_aet", "kind")}
    return {**told, "level": level, "query": cut}
