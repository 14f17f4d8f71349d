"""Deliveries: what was routed where, how far it is, and the buttons for what stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import func, select

from ris_service import words
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import breakers, clock, outbox, windows
from zambezi.access import requires
from zambezi.config.settings import Destination, Hl7Peer, PriorSource
from zambezi.database.tables import Delivery

pages = Blueprint("deliveries", __name__)
pages.navigation = (("deliveries.index", _("Deliveries")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS = 100
#: Not at rest: what somebody may be waiting for.
UNFINISHED = ("due", "sending", "retrying", "parked")
RETRIED = ("parked", "retrying", "cancelled")
CANCELLED = ("due", "retrying", "parked", "sending")
#: Breakers of whole queues: a disk of ours is full.
QUEUES = {
    "queue:dicom": _("all images out"),
    "queue:hl7": _("all messages out"),
    "queue:migration": _("all migrations"),
}


@pages.get("/deliveries")
@requires("delivery.read")
def index() -> Any:
    """Unfinished ones unless another state is asked for, the newest first."""
    state = request.args.get("state", "unfinished")
    if state not in words.DELIVERY and state != "all":
        state = "unfinished"
    page = max(0, request.args.get("page", 0, type=int))
    states = {"unfinished": UNFINISHED, "all": tuple(words.DELIVERY)}.get(state, (state,))
    with parts().sessions.begin() as database:
        query = select(Delivery).where(Delivery.state.in_(states)).order_by(Delivery.created_at.desc(), Delivery.id)
        rows = database.scalars(query.offset(page * ROWS).limit(ROWS + 1)).all()
        total = database.scalar(select(func.count()).select_from(Delivery).where(Delivery.state.in_(states))) or 0
        paused = breakers.paused(database)
        awaited = outbox.awaited(database, [one.id for one in rows if one.state == "due"])
        hidden = (database.scalar(select(func.count()).select_from(Delivery)) or 0) - total
    waiting = {(one.kind, one.destination) for one in rows if one.state in ("due", "retrying")}
    opening = {place: _opening(*place) for place in waiting}
    return render_template(
        "deliveries.html", deliveries=rows[:ROWS], more=len(rows) > ROWS, page=page, state=state, total=total,
        hidden=hidden, retried=RETRIED, cancelled=CANCELLED, may_manage=me().may("delivery.manage"),
        may_see=me().may("images.view"), paused=[one for one in paused if not one.name.startswith("source:")],
        queues=QUEUES, opening=opening, awaited=awaited,
    )  # fmt: skip


@pages.post("/deliveries/resume/<name>")
@requires("delivery.manage")
def resume(name: str) -> Any:
    """Go on at once with a destination that is paused."""
    with parts().sessions.begin() as database:
        closed, retried = outbox.resume(database, name, now=parts().clock(), writer=CHAIN, who=me().login)
        if not closed and not retried:
            abort(409)
    return redirect("/deliveries?said=resumed", 303)


@pages.post("/deliveries/<delivery_id>/retry")
@requires("delivery.manage")
def retry(delivery_id: str) -> Any:
    """Try again at once, with all attempts anew."""
    with parts().sessions.begin() as database:
        if not outbox.retry(database, delivery_id, now=parts().clock(), writer=CHAIN, who=me().login):
            abort(409)
    return redirect("/deliveries?said=retry", 303)


@pages.post("/deliveries/<delivery_id>/cancel")
@requires("delivery.manage")
def cancel(delivery_id: str) -> Any:
    """Not any more."""
    with parts().sessions.begin() as database:
        if not outbox.cancel(database, delivery_id, now=parts().clock(), writer=CHAIN, who=me().login):
            abort(409)
    return redirect("/deliveries?said=cancelled", 303)


def _opening(kind: str, destination: str) -> str:
    """From when on a destination may be sent to; "" where it may now, or the configuration doesn't name it."""
    settings = parts().settings
    places: dict[str, Mapping[str, Destination | PriorSource | Hl7Peer]] = {
        "dicom": settings.destinations, "fetch": settings.prior_sources, "hl7": settings.hl7.peers,
    }  # fmt: skip
    place = places[kind].get(destination)
    now = parts().clock()
    if place is None or windows.is_open(place.windows, now, settings.site.zone, settings.site.holidays):
        return ""
    opens = windows.next_opening(place.windows, now, settings.site.zone, settings.site.holidays)
    return clock.text(opens) if opens else ""
