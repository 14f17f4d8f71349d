"""What others noted for the journal: queries (Lua), incidents (recovery), callers (Orthanc's log), refusals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from plugins import callers
from plugins.journal import Journal, Transaction
from plugins.refusals import ADMISSION, Refusals
from plugins.spool import Spool, Taken
from zambezi import clock

#: So many refusals wait for a journal that takes nothing; beyond, the oldest are lost.
REFUSED = 2000


class Noted:
    """Takes over what was noted on behalf of the follower."""

    def __init__(
        self, journal: Journal, queries: Spool, incidents: Spool, refusals: Refusals, called: Spool | None = None
    ) -> None:
        self._journal = journal
        self._queries = queries
        self._incidents = incidents
        self._refusals = refusals
        self._callers = called
        self._refused: list[dict[str, Any]] = []

    def record(self, now: datetime) -> None:
        """Queries, incidents, callers and refusals that were noted since, in one commit."""
        queries = self._lines(self._queries)
        incidents = self._lines(self._incidents)
        called = self._lines(self._callers) if self._callers else None
        # What can't be committed now (a disk without room) is, once it can.
        self._refused = refused = [*self._refused, *self._refusals.take(now)][-REFUSED:]
        if queries is None and incidents is None and called is None and not refused:
            return
        with self._journal.transaction() as transaction:
            for one in queries.lines if queries else ():
                query = _query(one)
                transaction.append("queried", now, **query)
                if query["aet"]:
                    transaction.set_later(f"seen {query['aet']}", clock.text(now))
                    sign = "worklist" if query["kind"] == "worklist" else "query"
                    callers.note(transaction, query["aet"], query["ip"], sign, clock.text(now))
            for one in incidents.lines if incidents else ():
                transaction.append("incident", now, **{k: v for k, v in one.items() if k not in _SEALED})
            for one in called.lines if called else ():
                _called(transaction, one, now)
            for one in refused:
                transaction.append("refused", now, **one)
                if one["path"] == ADMISSION:
                    reason, count = one["reason"], one["count"]
                    callers.note(
                        transaction, one["who"] or "", "", "refused", clock.text(now), reason=reason, count=count
                    )
            for taken, what in ((queries, "queries"), (incidents, "incidents"), (called, "Orthanc's log")):
                if taken and taken.left_out:
                    reason = f"{taken.left_out} lines of {what} could not be read and are not in the journal"
                    transaction.append("incident", now, reason=reason)
                # Orthanc's log is counted on by whoever reads it, and what was lost of it is told by that (_called).
                if taken and taken is queries and taken.is_full:
                    reason = (
                        f"queries came faster than they could be recorded: after the {len(taken.lines)} before this"
                        " entry some may have come that are not in the journal"
                    )
                    transaction.append("incident", now, reason=reason, count=len(taken.lines))
                if taken:
                    transaction.set_meta(taken.key, str(taken.number))
        self._refused = []
        if queries is not None:
            self._queries.forget()
        if incidents is not None:
            self._incidents.forget()
        if called is not None and self._callers:
            self._callers.forget()

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


def _called(transaction: Transaction, line: Mapping[str, Any], now: datetime) -> None:
    """A line that operations.dicom_log wrote."""
    said = line.get("at")
    at = clock.text(datetime.fromtimestamp(said, UTC)) if isinstance(said, (int, float)) else clock.text(now)
    who = callers.facts(line, "aet", "ip", "called_aet")
    count = line["count"] if isinstance(line.get("count"), int) else 1
    kind = line.get("kind")
    if kind == "sign":
        sign = callers.sign_of(str(line.get("request")))
        if sign:
            callers.note(transaction, who["aet"], who["ip"], sign, at)
            transaction.set_later(f"seen {who['aet']}", at)
    elif kind == "associated":
        requests = line.get("requests")
        asked = {str(name)[:32]: n for name, n in requests.items()} if isinstance(requests, dict) else {}
        transaction.append("associated", now, **who, last_at=at, count=count, requests=asked)
        callers.note(transaction, who["aet"], who["ip"], "associated", at, count=count)
        transaction.set_later(f"seen {who['aet']}", at)
    elif kind == "retrieve":
        told = callers.facts(line, "request", "target")
        transaction.append("retrieve-asked", now, **who, kind=told["request"], target=told["target"] or None)
    elif kind == "refused":
        reason = str(line.get("reason", ""))[:200]
        transaction.append("refused", now, **who, door="dicom", reason=reason, times=count)
        callers.note(
            transaction, who["aet"], who["ip"], "refused", at, called_aet=who["called_aet"], reason=reason, count=count
        )
    elif kind == "lost":
        reason = f"{count} requests for images (C-MOVE, C-GET) came too fast to be told one by one"
        transaction.append("incident", now, reason=reason, count=count)
