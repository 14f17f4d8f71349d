"""The audit trail: who did and saw what, the newest first; who saw a patient, what a person did; and as a file.

Whoever looks here is in the trail, too, before anything is shown.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

from flask import Blueprint, Response, abort, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import select

from ris_service import words
from ris_service.languages import reason_told
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import audit_export, audit_search, clock
from zambezi.access import requires
from zambezi.audit_message import Source
from zambezi.audit_search import Wanted
from zambezi.database.tables import AuditEntry, User
from zambezi.events import EVENTS

pages = Blueprint("audit", __name__)
pages.navigation = (("audit.index", _("Audit")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS = 100
#: Nobody turns more pages than that; the time narrows a search better.
_PAGES = 1000


@pages.get("/audit")
@requires("audit.read")
def index() -> Any:
    """Entries that fit, and where each stands in its chain."""
    wanted = _wanted()
    page = min(max(0, request.args.get("page", 0, type=int)), _PAGES)
    _note("search", wanted)
    with parts().reading() as database:
        query = audit_search.query(database, wanted)
        rows = database.scalars(query.offset(page * ROWS).limit(ROWS + 1)).all()
    return render_template(
        "audit.html", entries=[(row, _facts(row)) for row in rows[:ROWS]], more=len(rows) > ROWS, page=page,
        asked=_asked(), wanted=wanted, events=EVENTS, formats=audit_export.FORMATS,
    )  # fmt: skip


@pages.get("/audit/seen")
@requires("audit.read")
def seen() -> Any:
    """Who has seen images or reports of a patient."""
    patient = request.args.get("patient", "").strip()[:64]
    found, names = [], {}
    if patient:
        _note("seen", Wanted(patient=patient))
        with parts().reading() as database:
            found = audit_search.who_saw(database, patient)
            logins = [one.who for one in found]
            rows = database.scalars(select(User).where(User.login.in_(logins)))
            names = {user.login: user.name for user in rows}
    return render_template("audit_seen.html", patient=patient, found=found, names=names)


@pages.get("/audit/person")
@requires("audit.read")
def person() -> Any:
    """What somebody has done, by event."""
    wanted = Wanted(who=_wanted().who, since=_wanted().since, until=_wanted().until)
    found, name = [], ""
    if wanted.who:
        _note("person", wanted)
        with parts().reading() as database:
            found = audit_search.what_did(database, wanted.who, wanted.since, wanted.until)
            name = database.scalars(select(User.name).where(User.login == wanted.who)).first() or ""
    return render_template("audit_person.html", wanted=wanted, asked=_asked(), found=found, name=name)


@pages.get("/audit/export.<kind>")
@requires("audit.read")
def export(kind: str) -> Any:
    """The entries that fit as a file, written while it is sent."""
    if kind not in audit_export.FORMATS:
        abort(404)
    wanted = _wanted()
    with parts().reading() as database:
        try:
            count = audit_export.count(database, audit_search.query(database, wanted))
        except audit_export.TooMany:
            return render_template("audit_too_many.html", most=audit_export.MOST, asked=_asked()), 413
    _note("export", wanted, anew=True, format=kind, count=count)
    source, sessions = Source(parts().settings.site.name, socket.gethostname()), parts().reading

    def pieces() -> Iterator[str]:
        with sessions() as database:
            rows = audit_export.rows(database, audit_search.query(database, wanted))
            yield from audit_export.written(kind, rows, source)

    name = f"audit-{parts().clock():%Y%m%d-%H%M%S}.{kind}"
    return Response(
        pieces(), mimetype=audit_export.FORMATS[kind], headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _note(how: str, wanted: Wanted, *, anew: bool = False, **facts: Any) -> None:
    found = parts()
    with found.sessions.begin() as database:
        audit_search.note(database, CHAIN, me().login, how, wanted, found.clock(), anew=anew, **facts)


def _wanted() -> Wanted:
    """What the address asks for; days are the site's, the last one whole. What isn't understood isn't asked for."""
    given = {name: request.args.get(name, "").strip() for name in ("who", "patient", "study", "event")}
    return Wanted(
        given["who"][:200], given["patient"][:64], given["study"][:64],
        given["event"] if given["event"] in EVENTS else "",
        _begin(request.args.get("from", "")), _begin(request.args.get("to", ""), timedelta(days=1)),
        bool(request.args.get("failed")),
    )  # fmt: skip


def _asked() -> dict[str, str]:
    """The address's own words, for links and the form."""
    names = ("who", "patient", "study", "event", "from", "to", "failed")
    return {name: request.args[name].strip()[:200] for name in names if request.args.get(name, "").strip()}


def _begin(day: str, further: timedelta = timedelta()) -> str:
    try:
        begin = datetime.combine(date.fromisoformat(day.strip()) + further, time(), parts().settings.site.zone)
    except (ValueError, OverflowError):
        return ""
    return clock.text(begin)


def _facts(row: AuditEntry) -> list[tuple[str, str]]:
    return [(name, _short(_said(name, value))) for name, value in audit_search.facts_of(row)]


def _said(name: str, value: object) -> str:
    said = words.fact_value(name, value)
    return reason_told(said)[0] if name in ("reason", "because") else said


def _short(value: str) -> str:
    """Digests and UIDs by their beginning: enough to compare, and the row stays one line."""
    limit = 16 if len(value) >= 40 and " " not in value else 200
    return value if len(value) <= limit else value[:limit] + "…"
