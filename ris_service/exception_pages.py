"""What waits for a person, from every room: a list, a page an item, decisions about one, several or all of a kind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, abort, current_app, redirect, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from ris_service import words
from ris_service.app import permission_of
from ris_service.languages import language, reason_told
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import clock, exception_kinds, exceptions
from zambezi.access import requires
from zambezi.database.tables import AuditEntry, ExceptionItem, ExceptionRule
from zambezi.exceptions import Place, Selection, Waiting

pages = Blueprint("exceptions", __name__)
pages.navigation = (("exceptions.index", _("Exceptions")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS = 100
#: Decided by one press of a button at most; what is left is asked again.
MOST_AT_ONCE = 5000
AGES = (1, 3, 7, 30)
#: What the rooms suggest to do, in words.
ACTIONS = {
    "Try again now": _("Try again now"),
    "Cancel": _("Cancel"),
    "Open the order": _("Open the order"),
    "Open the study": _("Open the study"),
    "Open the migration": _("Open the migration"),
    "Open the import": _("Open the import"),
    "Open the held studies": _("Open the held studies"),
    "Open the other study": _("Open the other study"),
    "Open in the hold": _("Open in the hold"),
    "Open the deletion": _("Open the deletion"),
    "Correction": _("Correction"),
    "Study": _("Study"),
    "Studies": _("Studies"),
}
#: Entries of the audit trail that may speak of an item, and how many of the newest are looked at.
HISTORY_EVENTS = ("exception-decided", "alerted")
HISTORY_DEPTH = 20_000


@dataclass(frozen=True)
class Action:
    """What the reader may do about an item: a link, or a button."""

    label: str
    href: str
    is_post: bool


@dataclass(frozen=True)
class Shown:
    """An item in the reader's language. `lang` is "en" where it has no words of its own and stands as it was noted;
    `note` is a machine's own sentence, which is English where nobody has written its Portuguese (`note_lang`)."""

    row: ExceptionItem
    title: str
    what: str
    suggestion: str
    lang: str
    note: str
    note_lang: str
    actions: tuple[Action, ...]


def count_for_me() -> int:
    """How much waits, for those who may decide it."""
    if not me().may("exception.decide"):
        return 0
    # A page may be written in the middle of its own transaction: this one must not wait for it.
    with parts().reading() as database:
        return exceptions.count(database, Selection(), parts().clock())


pages.badges = {"exceptions.index": count_for_me}  # type: ignore[attr-defined]  # read by ris_service.app


@pages.get("/exceptions")
@requires("exception.read")
def index() -> Any:
    """Undecided ones, the oldest first; or those that were decided, the last first."""
    chosen = selection_of(request.args)
    now = parts().clock()
    with parts().sessions.begin() as database:
        rows, after = exceptions.found(database, chosen, now, ROWS, Place.read(request.args.get("after", "")))
        total = exceptions.count(database, chosen, now)
        everything = exceptions.waiting(database)
        rules = rules_of(database, rows)
    hidden = 0 if chosen.decided else sum(one.count for one in everything) - total
    return render_template(
        "exceptions.html", items=[shown(row) for row in rows], chosen=chosen, total=total, hidden=hidden, after=after,
        is_first="after" not in request.args, query=query_of(chosen), rooms=_rooms(everything, chosen), rules=rules,
        kinds=_kinds(everything, chosen), ages=AGES, may_decide=me().may("exception.decide"), link=link,
        may_see=me().may("images.view"), title_of=title_of,
    )  # fmt: skip


@pages.get("/exceptions/<int:item_id>")
@requires("exception.read")
def item(item_id: int) -> Any:
    """One item, with all that the audit trail tells of it."""
    with parts().sessions.begin() as database:
        row = database.get(ExceptionItem, item_id) or abort(404)
        told = history(database, row)
        rules = rules_of(database, [row])
    return render_template(
        "exception.html", one=shown(row), history=told, rules=rules, title_of=title_of,
        may_decide=me().may("exception.decide"), may_see=me().may("images.view"), may_audit=me().may("audit.read"),
        is_ruled=row.kind in exception_kinds.RULED, source=str((row.facts or {}).get("source", "")), link=link,
    )  # fmt: skip


@pages.post("/exceptions/<int:item_id>/decide")
@requires("exception.decide")
def decide(item_id: int) -> Any:
    """Record what was decided; 409 if somebody else has decided meanwhile."""
    return _decided([item_id], Selection())


@pages.post("/exceptions/decide")
@requires("exception.decide")
def decide_selected() -> Any:
    """Record one decision for all that were selected; 409 if others have decided every one of them meanwhile."""
    chosen = sorted({int(number) for number in request.form.getlist("item") if number.isdecimal()})
    if not 0 < len(chosen) <= exceptions.BATCH:
        abort(400)
    return _decided(chosen, selection_of(request.form))


@pages.get("/exceptions/all")
@requires("exception.decide")
def ask_for_all() -> Any:
    """How many of a kind there are, before one decision is recorded for all of them."""
    chosen = replace(selection_of(request.args), decided=False)
    if not chosen.kind:
        return redirect("/exceptions", 303)
    now = parts().clock()
    with parts().sessions.begin() as database:
        total = exceptions.count(database, chosen, now)
        first, _after = exceptions.found(database, chosen, now, 5)
    return render_template(
        "exceptions_all.html", chosen=chosen, total=total, items=[shown(row) for row in first], query=query_of(chosen),
        seen=clock.text(now), link=link, title_of=title_of, most=MOST_AT_ONCE,
    )  # fmt: skip


@pages.post("/exceptions/all")
@requires("exception.decide")
def decide_all() -> Any:
    """Record one decision for all of a kind that waited when they were counted; what came since goes on waiting."""
    chosen, decision = replace(selection_of(request.form), decided=False), _decision()
    seen = _seen(request.form.get("seen", ""))
    if not chosen.kind:
        abort(400)
    done, after = 0, None
    while done < MOST_AT_ONCE:
        with parts().sessions.begin() as database:
            # In the order in which they came: the first that came after the count ends it.
            rows, after = exceptions.found(database, chosen, seen, exceptions.BATCH, after)
            ids = [row.id for row in rows if row.since <= clock.text(seen)]
            done += len(
                exceptions.decide_items(
                    database, ids, who=me().login, decision=decision, now=parts().clock(), writer=CHAIN
                )
            )
        if after is None or len(ids) < len(rows):
            break
    if not done:
        abort(409)
    return redirect("/exceptions?said=decided", 303)


def _decided(ids: list[int], back: Selection) -> Any:
    decision = _decision()
    with parts().sessions.begin() as database:
        if not database.scalars(select(ExceptionItem.id).where(ExceptionItem.id.in_(ids))).first():
            abort(404)
        if not exceptions.decide_items(
            database, ids, who=me().login, decision=decision, now=parts().clock(), writer=CHAIN
        ):
            abort(409)
    return redirect(link(query_of(back) | {"said": "decided"}), 303)


def _decision() -> str:
    return request.form.get("decision", "").strip()[:1000] or abort(400)


def _seen(written: str) -> datetime:
    try:
        return min(clock.parse(written), parts().clock())
    except ValueError:
        abort(400)


def selection_of(given: Mapping[str, str]) -> Selection:
    """What a page's filters say; nonsense narrows nothing."""
    older = given.get("older", "")
    return Selection(
        room=given.get("room", "")[:40], kind=given.get("kind", "")[:40], study=given.get("study", "").strip()[:64],
        source=given.get("source", "").strip()[:200], text=given.get("q", "").strip()[:100],
        older_days=int(older) if older.isdecimal() and len(older) < 5 else 0, decided=given.get("show") == "decided",
    )  # fmt: skip


def query_of(chosen: Selection) -> dict[str, str]:
    """The same as the parameters of an address, without what is empty."""
    names = {"older_days": "older", "text": "q"}
    found = {names.get(name, name): str(value) for name, value in asdict(chosen).items() if value and name != "decided"}
    return found | ({"show": "decided"} if chosen.decided else {})


def link(query: Mapping[str, str], path: str = "/exceptions") -> str:
    """An address of these pages."""
    return f"{path}?{urlencode(query)}" if query else path


def shown(row: ExceptionItem) -> Shown:
    """The item as the reader of this request sees it."""
    facts = row.facts or {}
    said = exception_kinds.words(row.kind, language(), facts)
    note = str(facts.get("reason", ""))
    actions = () if row.decided_at else tuple(_actions(row))
    if said is None or (language() == "en" and not facts):  # what was noted says more than a kind without facts
        note = "" if note in row.what else note
        return Shown(row, title_of(row), row.what, row.suggestion, "en", *reason_told(note), actions)
    note = note if facts else row.what
    return Shown(row, said.title, said.what, said.suggestion, language(), *reason_told(note), actions)


def title_of(row: ExceptionItem | Waiting) -> str:
    """What the item's kind is called; its room where it has none."""
    return exception_kinds.title(row.kind, language()) if row.kind else words.of(words.ROOM, row.room)


def _actions(row: ExceptionItem) -> Iterable[Action]:
    """What can be done about it, as far as the reader may: who can't open a page isn't shown its door."""
    for action in row.actions or []:
        href, is_post = action.get("href", ""), action.get("method") == "post"
        if href.startswith("/") and not href.startswith("//") and _may(href, "POST" if is_post else "GET"):
            yield Action(words.of(ACTIONS, action.get("label", "")), href, is_post)


def _may(href: str, method: str) -> bool:
    try:
        endpoint, _values = current_app.url_map.bind("").match(href.partition("?")[0], method=method)
    except HTTPException:  # a page that this installation doesn't have
        return False
    return me().may(permission_of(current_app, endpoint))


def _rooms(everything: list[Waiting], chosen: Selection) -> list[tuple[str, str]]:
    """Rooms to choose from: (code, words with how many wait)."""
    found = dict.fromkeys(words.ROOM, 0) | ({chosen.room: 0} if chosen.room else {})
    for one in everything:
        found[one.room] = found.get(one.room, 0) + one.count
    return [(code, _counted(words.of(words.ROOM, code), number)) for code, number in found.items()]


def _kinds(everything: list[Waiting], chosen: Selection) -> list[tuple[str, str]]:
    """Kinds to choose from: what waits (in the chosen room), and everything there is where decided ones are shown."""
    found = dict.fromkeys(exception_kinds.KINDS, 0) if chosen.decided else {}
    for one in everything:
        if one.kind and chosen.room in ("", one.room):
            found[one.kind] = found.get(one.kind, 0) + one.count
    if chosen.kind:
        found.setdefault(chosen.kind, 0)
    titles = {code: exception_kinds.title(code, language()) for code in found}
    return [(code, _counted(titles[code], found[code])) for code in sorted(found, key=lambda code: titles[code])]


def _counted(label: str, number: int) -> str:
    return f"{label} ({number})" if number else label


def rules_of(database: Session, rows: Iterable[ExceptionItem]) -> dict[int, ExceptionRule]:
    """The rules that decided some of the items, by id."""
    ids = {row.rule_id for row in rows if row.rule_id}
    return {rule.id: rule for rule in database.scalars(select(ExceptionRule).where(ExceptionRule.id.in_(ids)))}


def history(database: Session, row: ExceptionItem) -> list[dict[str, Any]]:
    """The facts of the audit trail's entries about the item, the last first."""
    query = select(AuditEntry.payload).where(AuditEntry.event.in_(HISTORY_EVENTS))
    query = query.order_by(AuditEntry.at.desc(), AuditEntry.seq.desc()).limit(HISTORY_DEPTH)
    found = []
    for payload in database.scalars(query.execution_options(yield_per=1000)):
        if b'"exceptions":[' not in payload and f'"exception":{row.id},'.encode() not in payload:
            continue
        facts = json.loads(payload)
        if facts.get("exception") == row.id or row.id in facts.get("exceptions", ()):
            found.append(facts)
    return found
