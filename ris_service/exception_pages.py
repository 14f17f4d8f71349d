"""What waits for a person: everything that couldn't be handled, with its reason, until somebody decides."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import func, select

from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import audit, clock
from zambezi.access import requires
from zambezi.database.tables import ExceptionItem

pages = Blueprint("exceptions", __name__)
pages.navigation = (("exceptions.index", _("Exceptions")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS = 100


@pages.get("/exceptions")
@requires("exception.read")
def index() -> Any:
    """Undecided ones, the oldest first; or those that were decided, the newest first."""
    decided = request.args.get("show") == "decided"
    is_decided = ExceptionItem.decided_at.is_not(None)
    with parts().sessions.begin() as database:
        query = select(ExceptionItem).where(is_decided if decided else ~is_decided)
        query = query.order_by(ExceptionItem.decided_at.desc() if decided else ExceptionItem.since, ExceptionItem.id)
        items = database.scalars(query.limit(ROWS)).all()
        total = database.scalar(select(func.count()).select_from(ExceptionItem).where(~is_decided)) or 0
    return render_template(
        "exceptions.html", items=items, decided=decided, total=total, may_decide=me().may("exception.decide"),
        may_manage=me().may("delivery.manage"),
    )  # fmt: skip


@pages.post("/exceptions/<int:item_id>/decide")
@requires("exception.decide")
def decide(item_id: int) -> Any:
    """Record what was decided; 409 if somebody else has decided meanwhile."""
    decision = request.form.get("decision", "").strip()[:1000]
    if not decision:
        abort(400)
    with parts().sessions.begin() as database:
        item = database.get(ExceptionItem, item_id, with_for_update=True) or abort(404)
        if item.decided_at is not None:
            abort(409)
        now = parts().clock()
        item.decided_at, item.decided_by, item.decision = clock.text(now), me().login, decision
        audit.append(
            database, CHAIN, "incident", now, who=me().login, room=item.room, reference=item.reference,
            decision=decision,
        )  # fmt: skip
    return redirect("/exceptions?said=decided", 303)
