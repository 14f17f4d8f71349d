"""Studies that a person who sees a part of the site opens: by their part, or in an emergency with a reason.

A yes/no filter can't narrow a list, so such a person's token names the studies that it opens
(zambezi.access.tokens); what was opened in a sign-in is kept here, and the token is written from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.access import may
from zambezi.access.scope import Part, Scope, part_of
from zambezi.access.tokens import Token
from zambezi.config.settings import Access
from zambezi.database.tables import Order, Study, StudyOpening, User

#: So many studies a token names, the latest, and so many more of emergencies: a cookie has room for 4 KB.
NAMED, NAMED_IN_EMERGENCIES = 16, 8
#: What was opened longer ago belongs to no sign-in that is still alive.
KEPT = timedelta(days=2)
#: A reason is a sentence that another person can judge.
SHORTEST_REASON = 10


def scope_of(user: User) -> Scope:
    """The part of the site that an account sees."""
    return Scope(
        _split(user.scope_sites), _split(user.scope_modalities), user.scope_referrer,
        own_only=may(user.role, "images.view-own") and not may(user.role, "images.view"),
    )  # fmt: skip


def _split(joined: str) -> frozenset[str]:
    return frozenset(one for one in joined.split("\\") if one)


def part_of_study(settings: Access, study: Study, order: Order | None) -> Part:
    """What counts of a study: who sent it, and what its order says."""
    return part_of(
        sites_of(settings), aets=(study.sender, order.station_aet if order else None),
        source=order.source if order else None, modalities=study.modalities,
        referrer=order.referring_physician if order else None,
    )  # fmt: skip


def part_of_order(settings: Access, order: Any) -> Part:
    """What counts of an order without images; `order` is an Order or a row with the same columns."""
    return part_of(
        sites_of(settings), aets=(order.station_aet,), source=order.source, modalities=order.modality,
        referrer=order.referring_physician,
    )  # fmt: skip


def part_of_row(settings: Access, row: Any) -> Part:
    """The same of a row with `modalities`, `sender`, `station_aet`, `source` and `referring_physician`."""
    return part_of(
        sites_of(settings), aets=(row.sender, row.station_aet), source=row.source, modalities=row.modalities,
        referrer=row.referring_physician,
    )  # fmt: skip


def sites_of(settings: Access) -> Mapping[str, tuple[Sequence[str], Sequence[str]]]:
    """The sites as zambezi.access.scope wants them."""
    return {name: (one.aets, one.peers) for name, one in settings.sites.items()}


def note(session: Session, token: Token, study_uid: str, now: datetime, ends: int | None = None) -> None:
    """This sign-in opens the study from now on."""
    session.execute(delete(StudyOpening).where(StudyOpening.opened_at < clock.text(now - KEPT)))
    session.add(
        StudyOpening(
            session=token.session, login=token.subject, study_uid=study_uid, ends=ends, opened_at=clock.text(now)
        )
    )
    session.flush()


def named(session: Session, token: Token, now_s: int) -> Token:
    """The token with what its sign-in has opened, the latest studies first to stay."""
    rows = session.scalars(
        select(StudyOpening).where(StudyOpening.session == token.session).order_by(StudyOpening.id.desc()).limit(200)
    ).all()
    studies = list(dict.fromkeys(row.study_uid for row in rows if row.ends is None))[:NAMED]
    until: dict[str, int] = {}
    for row in rows:
        if row.ends is not None and row.ends > now_s:
            until[row.study_uid] = max(row.ends, until.get(row.study_uid, 0))
    latest = tuple(list(until.items())[:NAMED_IN_EMERGENCIES])
    return replace(token, studies=tuple(studies), until=latest)


def broken_open(session: Session, session_id: str, study_uid: str, now_s: int) -> bool:
    """Whether this sign-in opened the study in an emergency that still lasts."""
    query = select(StudyOpening.id).where(
        StudyOpening.session == session_id, StudyOpening.study_uid == study_uid, StudyOpening.ends > now_s
    )
    return session.scalars(query).first() is not None


def says_enough(reason: str) -> bool:
    """Whether another person can judge this reason: some words, and not too short."""
    return len(reason.split()) >= 2 and len(reason.strip()) >= SHORTEST_REASON


def break_glass(
    session: Session, token: Token, role: str, study_uid: str, reason: str, settings: Access, now: datetime,
    writer: str, ip: str,
) -> int:  # fmt: skip
    """Open a study outside of the person's part, for a while: audited, and put before another person; when it ends.

    ValueError where the reason says nothing (`says_enough`).
    """
    if not says_enough(reason):
        raise ValueError(f"the reason needs at least {SHORTEST_REASON} characters in words")
    ends = int((now + timedelta(minutes=settings.emergency_minutes)).timestamp())
    note(session, token, study_uid, now, ends)
    audit.append(
        session, writer, "glass-broken", now, who=token.subject, role=role, session=token.session, study_uid=study_uid,
        reason=reason.strip()[:500], ends=ends, ip=ip,
    )  # fmt: skip
    exceptions.wait(
        session, "access", f"{token.session} {study_uid}", now=now, kind="glass-broken", study_uid=study_uid,
        facts={"source": token.subject, "reason": reason.strip()[:500]},
        actions=[{"label": "Open the study", "href": f"/studies/{study_uid}"}],
        what=f"{token.subject} opened a study outside of their part of the site, as an emergency.",
        suggestion="Ask whether it was needed; if not, talk with the person and their head.",
    )  # fmt: skip
    return ends
