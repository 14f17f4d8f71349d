"""What waits for a person: nothing that can't be handled disappears (DESIGN rule 4).

Every room puts its items here (`wait`) and takes them away when they are settled (`decide`). Persons and rules find
them by a `Selection` and settle many at once (`decide_items`); each decision is an entry of the audit trail.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import audit, clock
from zambezi.database.tables import ExceptionItem, ExceptionRule
from zambezi.exception_kinds import KINDS

#: Decided in one statement and one transaction at most: other writers get in between.
BATCH = 200


def wait(
    session: Session, room: str, reference: str, *, what: str, suggestion: str, now: datetime, kind: str = "",
    study_uid: str | None = None, actions: Sequence[Mapping[str, str]] = (),
    facts: Mapping[str, str | int] | None = None,
) -> None:  # fmt: skip
    """Put it before a person; what was decided before is open again, what still waits goes on waiting since it began.

    `kind` is one of zambezi.exception_kinds, whose words speak of `facts`; `what` and `suggestion` say the same in
    English, for a kind without words. None of them names a patient. `facts["reason"]` is a machine's own sentence.
    `actions` are pages where something can be done about it: {"label": English sentence of a catalogue, "href": path,
    "method": "post" where it is a button}.
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {
        "what": what, "suggestion": suggestion, "since": clock.text(now), "kind": kind, "study_uid": study_uid,
        "actions": [dict(action) for action in actions], "facts": dict(facts or {}), "alerted_at": None,
        "decided_at": None, "decided_by": None, "decision": None, "rule_id": None,
    }  # fmt: skip
    statement = insert(ExceptionItem).values(room=room, reference=reference[:200], **said)
    waits = ExceptionItem.decided_at.is_(None)
    still = {
        "since": case((waits, ExceptionItem.since), else_=statement.excluded.since),
        "alerted_at": case((waits, ExceptionItem.alerted_at), else_=None),
    }
    session.execute(statement.on_conflict_do_update(index_elements=["room", "reference"], set_={**said, **still}))


def is_known(session: Session, room: str, reference: str) -> bool:
    """Whether this waits, or was decided before."""
    query = select(ExceptionItem.id).where(ExceptionItem.room == room, ExceptionItem.reference == reference[:200])
    return session.scalars(query).first() is not None


def is_waiting(session: Session, room: str, reference: str) -> bool:
    """Whether this waits for a person now."""
    query = select(ExceptionItem.id).where(
        ExceptionItem.room == room, ExceptionItem.reference == reference[:200], ExceptionItem.decided_at.is_(None)
    )
    return session.scalars(query).first() is not None


def decide(
    session: Session, room: str, reference: str, *, who: str, decision: str, now: datetime, writer: str | None = None
) -> None:
    """It waits no longer; nothing happens where it didn't wait.

    Audited as `exception-decided` in `writer`'s chain; without one the caller's own event tells of it.
    """
    found = session.scalars(
        update(ExceptionItem)
        .where(
            ExceptionItem.room == room, ExceptionItem.reference == reference[:200], ExceptionItem.decided_at.is_(None)
        )
        .values(decided_at=clock.text(now), decided_by=who[:80], decision=decision)
        .returning(ExceptionItem)
    ).all()
    if writer:
        for item in found:
            _audit(session, item, writer, now, None)


def decide_items(
    session: Session, ids: Collection[int], *, who: str, decision: str, now: datetime, writer: str,
    rule: ExceptionRule | None = None,
) -> list[int]:  # fmt: skip
    """Settle those of the items that still wait, with an audit entry each; the ids of those that were settled."""
    if len(ids) > BATCH:
        raise ValueError(f"{len(ids)} items at once; at most {BATCH} in one transaction")
    found = session.scalars(
        update(ExceptionItem)
        .where(ExceptionItem.id.in_(ids), ExceptionItem.decided_at.is_(None))
        .values(decided_at=clock.text(now), decided_by=who[:80], decision=decision, rule_id=rule.id if rule else None)
        .returning(ExceptionItem)
    ).all()
    for item in sorted(found, key=lambda one: one.id):
        _audit(session, item, writer, now, rule)
    return sorted(item.id for item in found)


def _audit(session: Session, item: ExceptionItem, writer: str, now: datetime, rule: ExceptionRule | None) -> None:
    facts: dict[str, Any] = {"exception": item.id, "room": item.room, "reference": item.reference, "kind": item.kind}
    if item.study_uid:
        facts["study_uid"] = item.study_uid
    if rule:
        facts |= {"rule": rule.name, "made_by": rule.made_by}
    audit.append(session, writer, "exception-decided", now, **facts, who=item.decided_by, decision=item.decision)


@dataclass(frozen=True)
class Selection:
    """Which items; what is empty doesn't narrow. `study` is a Study Instance UID, `older_days` the least age."""

    room: str = ""
    kind: str = ""
    study: str = ""
    source: str = ""
    older_days: int = 0
    text: str = ""
    decided: bool = False

    def conditions(self, now: datetime) -> list[ColumnElement[bool]]:
        """The same for a query."""
        item = ExceptionItem
        found: list[ColumnElement[bool]] = [item.decided_at.is_not(None) if self.decided else item.decided_at.is_(None)]
        if self.room:
            found.append(item.room == self.room)
        if self.kind:
            found.append(item.kind == self.kind)
        if self.study:
            found.append(item.study_uid == self.study)
        if self.source:
            found.append(item.facts["source"].as_string() == self.source)
        if self.older_days:
            found.append(item.since <= clock.text(now - timedelta(days=self.older_days)))
        for word in self.text.split():
            columns = (item.what, item.suggestion, item.reference, item.decision, cast(item.facts, Text))
            found.append(or_(*(c.icontains(word, autoescape=True) for c in columns), item.kind.in_(_kinds(word))))
        return found


def _kinds(word: str) -> list[str]:
    """Kinds whose words hold this one, in either language: a page shows those and not the stored English."""
    word = word.casefold()
    return [
        name
        for name, kind in KINDS.items()
        if any(word in f"{w.title} {w.what} {w.suggestion}".casefold() for w in (kind.en, kind.pt))
    ]


@dataclass(frozen=True)
class Place:
    """Where a page of a list ends, so that the next begins behind it: the moment it is sorted by, and the id."""

    moment: str
    id: int

    def __str__(self) -> str:
        return f"{self.moment}~{self.id}"

    @classmethod
    def read(cls, written: str) -> Place | None:
        """What `str` made; None for anything else."""
        moment, _, number = written.partition("~")
        try:
            return cls(clock.text(clock.parse(moment)), int(number))
        except ValueError:
            return None


def found(
    session: Session, selection: Selection, now: datetime, limit: int, after: Place | None = None
) -> tuple[list[ExceptionItem], Place | None]:
    """One page of items and the place behind it (None at the end): the longest waiting, or the last decided, first."""
    item = ExceptionItem
    query = select(item).where(*selection.conditions(now))
    if selection.decided:
        query = query.order_by(item.decided_at.desc(), item.id.desc())
        if after:
            query = query.where(
                or_(item.decided_at < after.moment, and_(item.decided_at == after.moment, item.id < after.id))
            )
    else:
        query = query.order_by(item.since, item.id)
        if after:
            query = query.where(or_(item.since > after.moment, and_(item.since == after.moment, item.id > after.id)))
    rows = list(session.scalars(query.limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Place((last.decided_at or last.since) if selection.decided else last.since, last.id)


def count(session: Session, selection: Selection, now: datetime) -> int:
    """How many items there are in it."""
    query = select(func.count()).select_from(ExceptionItem).where(*selection.conditions(now))
    return session.scalars(query).one()


@dataclass(frozen=True)
class Waiting:
    """How many of a kind wait in a room, and since when the oldest does (as zambezi.clock.text)."""

    room: str
    kind: str
    count: int
    oldest: str


def waiting(session: Session) -> list[Waiting]:
    """What waits, by room and kind, the longest waiting first."""
    oldest = func.min(ExceptionItem.since)
    rows = session.execute(
        select(ExceptionItem.room, ExceptionItem.kind, func.count(), oldest)
        .where(ExceptionItem.decided_at.is_(None))
        .group_by(ExceptionItem.room, ExceptionItem.kind)
        .order_by(oldest, ExceptionItem.room, ExceptionItem.kind)
    )
    return [Waiting(room, kind, number, since) for room, kind, number, since in rows]
