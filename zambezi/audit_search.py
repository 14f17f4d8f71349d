"""Looking things up in the audit trail: by person, patient, study, event, time and outcome; and what was looked up.

Whoever reads the trail stands in it, too (`audit-used`), before anything is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, text
from sqlalchemy.orm import Session

from zambezi import audit, clock
from zambezi.database.tables import AuditEntry, Study

#: By which a person saw something of a patient: images, a report, what lies in the hold.
SEEING = ("viewed", "report-read")
#: Of no patient more studies are looked at.
MOST_STUDIES = 500
#: The same search by the same person within this time is one entry.
_ONE_SEARCH = timedelta(minutes=10)
#: Facts that a list of accesses needn't repeat: a patient's particulars, what a query asked, long lists.
PARTICULARS = ("patient_name", "birth_date", "sex", "query", "instances", "listed", "original")


@dataclass(frozen=True)
class Wanted:
    """What to look for; "" means any. `since` and `until` as zambezi.clock.text, `until` exclusive."""

    who: str = ""
    patient: str = ""
    study: str = ""
    event: str = ""
    since: str = ""
    until: str = ""
    failed: bool = False

    @property
    def said(self) -> dict[str, str | bool]:
        """What is looked for, for the trail."""
        return {name: value for name, value in asdict(self).items() if value}


def query(session: Session, wanted: Wanted) -> Select[AuditEntry]:
    """The entries that fit, the newest first."""
    found = select(AuditEntry)
    if wanted.who:
        found = found.where(AuditEntry.who == wanted.who)
    if wanted.patient:
        found = found.where(
            or_(AuditEntry.patient_id == wanted.patient, AuditEntry.study_uid.in_(studies(session, wanted.patient)))
        )
    if wanted.study:
        found = found.where(AuditEntry.study_uid == wanted.study)
    if wanted.event:
        found = found.where(AuditEntry.event == wanted.event)
    if wanted.since:
        found = found.where(AuditEntry.at >= wanted.since)
    if wanted.until:
        found = found.where(AuditEntry.at < wanted.until)
    if wanted.failed:
        found = found.where(text("outcome > 0"))  # as the index has it
    return found.order_by(AuditEntry.at.desc(), AuditEntry.journal, AuditEntry.seq.desc())


def studies(session: Session, patient: str) -> list[str]:
    """Study UIDs that are a patient's now, or were when they came: a correction may have moved them since."""
    now = select(Study.study_uid).where(Study.patient_id == patient)
    then = select(AuditEntry.study_uid).where(
        AuditEntry.patient_id == patient, AuditEntry.event == "study-began", AuditEntry.study_uid.is_not(None)
    )
    both = now.union(then).subquery()
    return [uid for uid in session.scalars(select(both.c.study_uid).limit(MOST_STUDIES)) if uid]


@dataclass(frozen=True)
class Seen:
    """That a person saw something of a patient: how often, of how many studies, when first and last."""

    who: str
    times: int
    studies: int
    first: str
    last: str


def who_saw(session: Session, patient: str) -> list[Seen]:
    """Who has seen this patient, the last one first."""
    wanted = or_(AuditEntry.patient_id == patient, AuditEntry.study_uid.in_(studies(session, patient)))
    rows = session.execute(
        select(
            AuditEntry.who, func.count(), func.count(AuditEntry.study_uid.distinct()),
            func.min(AuditEntry.at), func.max(AuditEntry.at),
        )
        .where(and_(AuditEntry.event.in_(SEEING), wanted))
        .group_by(AuditEntry.who)
        .order_by(func.max(AuditEntry.at).desc())
    )  # fmt: skip
    return [Seen(who or "", times, many, first, last) for who, times, many, first, last in rows]


@dataclass(frozen=True)
class Did:
    """That a person did something: which event, how often, how often in vain, when first and last."""

    event: str
    times: int
    failed: int
    first: str
    last: str


def what_did(session: Session, who: str, since: str = "", until: str = "") -> list[Did]:
    """What this person has done, what was done most first."""
    asked = select(
        AuditEntry.event, func.count(), func.count().filter(AuditEntry.outcome > 0),
        func.min(AuditEntry.at), func.max(AuditEntry.at),
    ).where(AuditEntry.who == who)  # fmt: skip
    if since:
        asked = asked.where(AuditEntry.at >= since)
    if until:
        asked = asked.where(AuditEntry.at < until)
    rows = session.execute(asked.group_by(AuditEntry.event).order_by(func.count().desc(), AuditEntry.event))
    return [Did(*row) for row in rows]


def note(
    session: Session,
    writer: str,
    who: str,
    how: str,
    wanted: Wanted,
    now: datetime,
    *,
    anew: bool = False,
    **facts: Any,
) -> None:
    """Record that somebody read the trail: `how` is search, seen, person, tail or export.

    The same within ten minutes is one entry, unless it is `anew`: what leaves the house is told each time.
    """
    about = {"patient_id": wanted.patient, "study_uid": wanted.study}
    told = {"how": how, "search": wanted.said, **facts, **{name: value for name, value in about.items() if value}}
    if not anew:
        recent = session.scalars(
            select(AuditEntry.payload).where(
                AuditEntry.who == who, AuditEntry.event == "audit-used", AuditEntry.at >= clock.text(now - _ONE_SEARCH)
            )
        )
        for payload in recent:
            known = json.loads(payload)
            if {name: known.get(name) for name in told} == told:
                return
    audit.append(session, writer, "audit-used", now, who=who, **told)


def facts_of(row: AuditEntry) -> Iterator[tuple[str, Any]]:
    """The facts of an entry that a list shows: neither what has a column of its own, nor a patient's particulars."""
    known = {"journal", "seq", "prev", "event", "at", "who", "study_uid", "session", *PARTICULARS}
    for name, value in sorted(json.loads(row.payload).items()):
        if name not in known and value not in ("", None):
            yield name, value


def of_arguments(given: dict[str, str]) -> Wanted:
    """What a page's address or a form asks for: only what there is, each cut to what fits."""
    texts = {one.name: given.get(one.name, "").strip()[:200] for one in fields(Wanted) if one.name != "failed"}
    return Wanted(**texts, failed=bool(given.get("failed")))
