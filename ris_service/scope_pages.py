"""Which part of the site an account sees: some sites, some modalities, the orders of one physician."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request
from sqlalchemy import select

from ris_service.languages import gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from ris_service.worklist_pages import modalities
from zambezi import opening, users
from zambezi.access import requires
from zambezi.database.tables import Order, User

pages = Blueprint("scopes", __name__)


@pages.get("/users/<int:user_id>/scope")
@requires("user.manage")
def show(user_id: int) -> Any:
    """The form: what is empty doesn't narrow."""
    return _form(user_id)


@pages.post("/users/<int:user_id>/scope")
@requires("user.manage")
def change(user_id: int) -> Any:
    """From now on the account sees this part; its sign-ins end."""
    found = parts()
    sites, chosen = request.form.getlist("site"), request.form.getlist("modality")
    if set(sites) - set(found.settings.access.sites) or set(chosen) - set(modalities()):
        abort(400)
    try:
        with found.sessions.begin() as database:
            user = database.get(User, user_id) or abort(404)
            users.set_scope(
                database, user, sites=sites, modalities=chosen, referrer=request.form.get("referrer", ""),
                now=found.clock(), writer=CHAIN, by=me().login,
            )  # fmt: skip
    except users.UserRefused:
        return _form(user_id, gettext("That is too much for one account.")), 400
    return redirect("/users?said=scope", 303)


def _form(user_id: int, fault: str = "") -> str:
    with parts().sessions.begin() as database:
        user = database.get(User, user_id) or abort(404)
        scope = opening.scope_of(user)
        known = database.scalars(select(Order.referring_physician).distinct().limit(500)).all()
    return render_template(
        "scope.html", user=user, scope=scope, sites=sorted(parts().settings.access.sites), modalities=modalities(),
        referrers=sorted(name for name in known if name), fault=fault,
    )  # fmt: skip
