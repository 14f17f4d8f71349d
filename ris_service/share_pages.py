"""Links that share studies: made and revoked by those who may, opened by whoever was given one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, session
from flask_babel import lazy_gettext as _
from sqlalchemy import select
from sqlalchemy.orm import Session

from ris_service import exams
from ris_service.languages import gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import sharing, users
from zambezi.access import PUBLIC, narrowed, requires
from zambezi.database.tables import ShareLink

pages = Blueprint("shares", __name__)
pages.navigation = (("shares.index", _("Shared links")),)  # type: ignore[attr-defined]  # read by ris_service.app

#: Links a page shows, the newest.
ROWS = 100
DAYS = (1, 3, 7, 14, 30, 90, 180, 366)
#: Why a link does not open, in words that tell a stranger no more than that.
WHY = {
    "locked": _("Too many wrong PINs: wait a quarter of an hour."),
    "pin-wrong": _("That PIN is not right. After several wrong ones the link is closed."),
}


@pages.get("/shares")
@requires("share.make")
@narrowed
def index() -> Any:
    """Links of one's own; administrators see everybody's."""
    return _list()


@pages.get("/shares/new")
@requires("share.make")
@narrowed
def new() -> Any:
    """The form for a link to the study that is named, and to others of the same patient."""
    return _form(request.args.get("study", ""))


@pages.post("/shares")
@requires("share.make")
@narrowed
def make() -> Any:
    """Make the link; it is shown this once."""
    found = parts()
    now = found.clock()
    uids = request.form.getlist("study")[: sharing.MOST_STUDIES + 1]
    days = request.form.get("days", 7, type=int)
    try:
        with found.sessions.begin() as database:
            if not uids:
                abort(404)
            for uid in uids:
                exams.one(database, uid)  # one patient's, and for this person's eyes
            link, secret = sharing.make(
                database, studies=uids, who=me().login, recipient=request.form.get("recipient", ""),
                expires=now + timedelta(days=days), pin=request.form.get("pin", "").strip(),
                download=request.form.get("may") == "download", longest_days=found.settings.access.share_days, now=now,
                writer=CHAIN,
            )  # fmt: skip
    except sharing.ShareRefused:
        fault = gettext(
            "The link can't be made like this. A PIN has 4 to 12 digits; the link ends within %(days)s days.",
            days=found.settings.access.share_days,
        )
        return _form(uids[0], fault), 400
    return _list(made=f"{request.host_url}s/{secret}", until=link.expires_at)


@pages.post("/shares/<int:share_id>/revoke")
@requires("share.make")
@narrowed
def revoke(share_id: int) -> Any:
    """The link opens nothing any more, nor does what was opened by it."""
    found = parts()
    with found.sessions.begin() as database:
        link = database.get(ShareLink, share_id)
        if link is None or not (link.made_by == me().login or _sees_all()):
            abort(404)
        sharing.revoke(database, link, me().login, found.clock(), CHAIN)
    return redirect("/shares?said=share-revoked", 303)


@pages.get("/s/<secret>")
@requires(PUBLIC)
def door(secret: str) -> Any:
    """What the link's holder sees first: a button, and a field where there is a PIN. Opening is a decision of theirs,
    not of a program that looks at links."""
    with parts().sessions.begin() as database:
        link = sharing.find(database, secret)
    decided = sharing.verdict(link, None, parts().clock()) if link else None
    if link is None or decided is None or decided.why in ("expired", "revoked"):
        return render_template("share_door.html", link=None), 404
    return _door(link, "" if decided.why != "locked" else str(WHY["locked"]))


@pages.post("/s/<secret>")
@requires(PUBLIC)
def enter(secret: str) -> Any:
    """Open the link: this browser carries its token from now on."""
    found = parts()
    now = found.clock()
    given = request.form.get("pin", "").strip()[:64]
    with found.sessions.begin() as database:
        link = sharing.find(database, secret)
    if link is None:
        return render_template("share_door.html", link=None), 404
    # Outside a transaction: Argon2 is slow on purpose. A lock is looked at first, so that guessing costs nothing here.
    asked = link.pin_hash is not None and given and sharing.verdict(link, None, now).why == "pin-wanted"
    right = users.is_password(link.pin_hash or "", given) if asked else None
    with found.sessions.begin() as database:
        link = database.get(ShareLink, link.id, with_for_update=True) or abort(404)
        token, decided = sharing.enter(
            database, link, right, found.settings.session, now, CHAIN, request.remote_addr or ""
        )
    if token is not None:
        session.put(token)  # type: ignore[attr-defined]  # TokenSession, after its commit
        return redirect("/shared", 303)
    if decided.why in ("expired", "revoked"):
        return render_template("share_door.html", link=None), 404
    return _door(link, str(WHY.get(decided.why, ""))), 403


def _door(link: ShareLink, fault: str) -> str:
    return render_template("share_door.html", link=link, fault=fault)


def _sees_all() -> bool:
    return me().may("user.manage")


def _list(made: str = "", until: str = "") -> str:
    query = select(ShareLink).order_by(ShareLink.id.desc()).limit(ROWS)
    if not _sees_all():
        query = query.where(ShareLink.made_by == me().login)
    now = parts().clock()
    with parts().sessions.begin() as database:
        rows = [(link, _state(link, now), _named(database, link)) for link in database.scalars(query)]
    return render_template("shares.html", rows=rows, made=made, until=until)


def _state(link: ShareLink, now: datetime) -> str:
    return "open" if (why := sharing.verdict(link, True, now).why) == "open" else why


def _named(database: Session, link: ShareLink) -> str:
    """The first study in words; "" where who reads the list may not see it."""
    found = exams.seen_of_study(database, link.studies[0])
    return f"{found[0].patient_name}, {found[0].modalities} {found[0].description}".strip(", ") if found else ""


def _form(study_uid: str, fault: str = "") -> str:
    with parts().sessions.begin() as database:
        exam = exams.one(database, study_uid)
        others = exams.others_of_patient(database, exam)[: sharing.MOST_STUDIES - 1]
    longest = parts().settings.access.share_days
    return render_template(
        "share_new.html", exam=exam, others=others, days=[d for d in DAYS if d <= longest] or [longest], fault=fault,
        form=request.form,
    )  # fmt: skip
