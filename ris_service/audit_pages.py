"""The audit trail: who did and saw what, the newest first, by study, person or event."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import select

from ris_service.parts import parts
from zambezi.access import requires
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry
from zambezi.events import EVENTS

pages = Blueprint("audit", __name__)
pages.navigation = (("audit.index", _("Audit")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS = 100
#: Facts with a column of their own, and a patient's particulars, which a list of accesses needn't repeat.
_ELSEWHERE = {
    "journal", "seq", "prev", "event", "at", "who", "study_uid", "session",
    "patient_name", "birth_date", "sex", "query", "instances",
}  # fmt: skip


@pages.get("/audit")
@requires("audit.read")
def index() -> Any:
    """Entries that fit, and where each stands in its chain."""
    study, who = request.args.get("study", "").strip()[:64], request.args.get("who", "").strip()[:200]
    event = request.args.get("event", "")
    page = max(0, request.args.get("page", 0, type=int))
    query = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.journal, AuditEntry.seq.desc())
    if study:
        query = query.where(AuditEntry.study_uid == study)
    if who:
        query = query.where(AuditEntry.who == who)
    if event in EVENTS:
        query = query.where(AuditEntry.event == event)
    with parts().sessions.begin() as database:
        rows = database.scalars(query.offset(page * ROWS).limit(ROWS + 1)).all()
    return render_template(
        "audit.html", entries=[(row, _facts(row)) for row in rows[:ROWS]], more=len(rows) > ROWS, page=page,
        study=study, who=who, event=event, events=EVENTS,
    )  # fmt: skip


def _facts(row: AuditEntry) -> list[tuple[str, str]]:
    facts = Sealed(row.journal, row.seq, row.hash, row.payload).facts
    shown = ((name, value) for name, value in sorted(facts.items()) if name not in _ELSEWHERE and value != "")
    return [(name, _short(str(value))) for name, value in shown]


def _short(value: str) -> str:
    """Digests and UIDs by their beginning: enough to compare, and the row stays one line."""
    limit = 16 if len(value) >= 40 and " " not in value else 200
    return value if len(value) <= limit else value[:limit] + "…"
