"""Who is told what, and when: pure decisions, and the list of functions that find what there is to tell.

A *concern* is one thing that goes on, such as an exception that waits. It is told once it is due, once by each
channel, in one message with all others that are due; not before the interval since the last message is over. Once a
day a digest tells of everything that goes on. Alerts hold ids, kinds, counts and ages, never a patient's data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.config.settings import Alerts, Site
from zambezi.database.tables import ExceptionItem
from zambezi.exception_kinds import KINDS, title

#: After a failure the channel is tried again, each time after twice the wait.
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=1)
#: Bounds of a message: so many lines, so many ids in each.
MOST_GROUPS = 40
MOST_IDS = 20


@dataclass(frozen=True)
class Concern:
    """One thing that goes on. `key` names it as long as it does; the same thing that comes again has another.

    `since` is as zambezi.clock.text; `due_at` is when a person must be told; `exception` is the item's id.
    """

    key: str
    room: str
    kind: str
    since: str
    due_at: datetime
    is_serious: bool = False
    exception: int | None = None


#: Items that persons are told of as conditions (operations.watching), which needs no database.
TOLD_OTHERWISE = ("disk-low",)


def waiting_exceptions(session: Session, settings: Alerts) -> list[Concern]:
    """Exceptions that nobody has decided: serious kinds at once, the others when they are old enough."""
    item = ExceptionItem
    query = select(item.id, item.room, item.kind, item.since).where(
        item.decided_at.is_(None), item.kind.not_in(TOLD_OTHERWISE)
    )
    return [
        Concern(
            f"exception {id} {since}", room, kind, since, clock.parse(since) + patience(kind, settings),
            is_serious(kind), id,
        )
        for id, room, kind, since in session.execute(query)
    ]  # fmt: skip


Source = Callable[[Session, Alerts], list[Concern]]
#: Where concerns come from; each gives all that goes on, due or not.
SOURCES: tuple[Source, ...] = (waiting_exceptions,)


def is_serious(kind: str) -> bool:
    """Whether a person is told of the kind at once, unless the configuration says otherwise."""
    return kind in KINDS and KINDS[kind].serious


def patience(kind: str, settings: Alerts) -> timedelta:
    """How long an exception of the kind waits before anybody is told."""
    if kind in settings.hours_of_kind:
        return timedelta(hours=settings.hours_of_kind[kind])
    return timedelta() if is_serious(kind) else timedelta(hours=settings.hours)


@dataclass(frozen=True)
class Channel:
    """How a channel stands: when it told last, the site's day of its last digest, and its failures in a row."""

    sent_at: datetime | None = None
    digest_day: str = ""
    failures: int = 0
    next_at: datetime | None = None


@dataclass(frozen=True)
class Message:
    """What is told: `about` is alert, digest or test; `new` was never told by this channel, `open` goes on."""

    about: str
    new: tuple[Concern, ...] = ()
    open: tuple[Concern, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The message to send now, or none; `because` says why."""

    message: Message | None
    because: str


def decide(
    concerns: Sequence[Concern], told: Collection[str], channel: Channel, settings: Alerts, zone: tzinfo, now: datetime
) -> Decision:
    """Whether to tell now, and of what. `told` are the keys that the channel has told of."""
    if channel.next_at and timedelta() < channel.next_at - now <= LONGEST_WAIT:
        return Decision(None, "waiting after a failure")
    known = set(told)
    new = tuple(one for one in concerns if one.due_at <= now and one.key not in known)
    is_digest = bool(concerns) and digest_is_due(channel.digest_day, settings, zone, now)
    if not new and not is_digest:
        return Decision(None, "nothing new")
    # A clock that was put back must not silence the channel: a message from the future doesn't count.
    if channel.sent_at and timedelta() <= now - channel.sent_at < timedelta(minutes=settings.interval_minutes):
        return Decision(None, "the last message was a moment ago")
    if is_digest:
        return Decision(Message("digest", new, tuple(concerns)), "the hour of the digest has come")
    return Decision(Message("alert", new, tuple(concerns)), f"{len(new)} not told yet")


def digest_is_due(last_day: str, settings: Alerts, zone: tzinfo, now: datetime) -> bool:
    """Whether today's digest hour of the site has come and no digest was sent today."""
    wall = now.astimezone(zone)
    return settings.digest_hour is not None and wall.hour >= settings.digest_hour and last_day != day(zone, now)


def day(zone: tzinfo, now: datetime) -> str:
    """The site's day, as 2026-03-02."""
    return now.astimezone(zone).date().isoformat()


def back_off(failures: int) -> timedelta:
    """How long to wait after so many failures in a row (from 1)."""
    doublings = min(failures - 1, 20)
    return min(FIRST_WAIT * (1 << doublings), LONGEST_WAIT)


def document(message: Message, site: Site, page_address: str, now: datetime) -> dict[str, Any]:
    """The message as JSON: what a webhook gets, and what a mail is written from."""
    new = {one.key for one in message.new}
    shown = message.open if message.about == "digest" else message.new
    by_sort = sorted(shown, key=lambda one: (not one.is_serious, one.room, one.kind, one.since))
    groups = [
        _group(list(found), new, message.open, site, page_address)
        for _, found in groupby(by_sort, key=lambda one: (not one.is_serious, one.room, one.kind))
    ]
    return {
        "about": message.about,
        "site": site.name,
        "at": clock.text(now),
        "new": len(message.new),
        "serious": sum(one.is_serious for one in message.new),
        "open": len(message.open),
        "groups": groups[:MOST_GROUPS],
        "more_groups": max(0, len(groups) - MOST_GROUPS),
        "href": f"{page_address}/exceptions",
    }


def _group(
    found: list[Concern], new: set[str], everything: Sequence[Concern], site: Site, page_address: str
) -> dict[str, Any]:
    first = found[0]
    same = [one for one in everything if (one.room, one.kind) == (first.room, first.kind)]
    ids = [one.exception for one in found if one.exception is not None and one.key in new] or [
        one.exception for one in found if one.exception is not None
    ]
    query = urlencode({name: value for name, value in (("room", first.room), ("kind", first.kind)) if value})
    return {
        "room": first.room,
        "kind": first.kind,
        "title": title(first.kind, site.language) or first.room,
        "serious": first.is_serious,
        "new": sum(one.key in new for one in found),
        "open": len(same),
        "oldest": min(one.since for one in same),
        "ids": ids[:MOST_IDS],
        "href": f"{page_address}/exceptions?{query}",
    }


_WORDS = {
    "pt": {
        "test": "ensaio do aviso", "new": "novas", "open": "à espera", "oldest": "a mais antiga há",
        "serious": "graves",
        "alert": "à espera de uma pessoa", "digest": "resumo do dia", "more": "e mais {n} linhas; veja a página",
        "tried": "Isto é um ensaio: os avisos chegam aqui.", "see": "Ver e decidir", "ids": "n.º",
        "units": (("minuto", "minutos"), ("hora", "horas"), ("dia", "dias")),
    },
    "en": {
        "test": "test of the alert", "new": "new", "open": "waiting", "oldest": "the oldest for", "serious": "serious",
        "alert": "waiting for a person", "digest": "the day's digest", "more": "and {n} more lines; see the page",
        "tried": "This is a test: alerts arrive here.", "see": "See and decide", "ids": "no.",
        "units": (("minute", "minutes"), ("hour", "hours"), ("day", "days")),
    },
}  # fmt: skip


def mail(told: dict[str, Any], language: str, now: datetime) -> tuple[str, str]:
    """Subject and text of a mail, from `document`, in pt or en."""
    words: dict[str, Any] = _WORDS[language]
    begin = " ".join(f"Zambezi, {told['site']}".split())
    if told["about"] == "test":
        return f"{begin}: {words['test']}", f"{words['tried']}\n\n{told['href']}\n"
    if told["about"] == "digest":
        subject = f"{begin}: {words['digest']}, {words['open']}: {told['open']}"
    else:
        subject = f"{begin}: {words['alert']}: {told['new']}"
        subject += f" ({words['serious']}: {told['serious']})" if told["serious"] else ""
    lines = []
    for group in told["groups"]:
        mark = "! " if group["serious"] else "- "
        oldest = lasting(now - clock.parse(group["oldest"]), language)
        counts = f"{words['new']} {group['new']}, {words['open']} {group['open']}"
        lines.append(f"{mark}{group['title']} ({group['room']}): {counts}, {words['oldest']} {oldest}")
        if group["ids"]:
            lines.append(f"  {words['ids']} {', '.join(map(str, group['ids']))}")
        lines.append(f"  {group['href']}")
    if told["more_groups"]:
        lines.append(words["more"].format(n=told["more_groups"]))
    return subject, "\n".join([*lines, "", f"{words['see']}: {told['href']}", ""])


def lasting(waited: timedelta, language: str) -> str:
    """A stretch of time in words, such as 3 hours, in pt or en."""
    minutes = max(0, int(waited.total_seconds() // 60))
    units: Any = _WORDS[language]["units"]
    number, (one, many) = (
        (minutes, units[0]) if minutes < 120 else (minutes // 60, units[1]) if minutes < 2880 else
        (minutes // 1440, units[2])
    )  # fmt: skip
    return f"{number} {one if number == 1 else many}"
