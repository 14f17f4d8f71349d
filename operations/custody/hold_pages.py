"""The hold's pages: what lies there and why, both sides of a conflict, and what is to become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response, abort, current_app, redirect, render_template, request, session
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from operations.custody import archived, picture, sides
from operations.custody.archived import Archived
from operations.custody.hold_commands import OPEN_STATES
from zambezi import audit, clock, corrections, hold, holding
from zambezi.access import requires
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry, Held
from zambezi.holding import HoldRefused
from zambezi.orthanc_client import OrthancClient, OrthancError

pages = Blueprint("hold", __name__, template_folder="templates")
pages.navigation = (("hold.index", _("Hold")),)  # type: ignore[attr-defined]  # read by the application

ROWS = 100
#: The pages' audit chain, and whose reader in Orthanc they are.
CHAIN = "ris"
#: Larger objects are neither compared tag by tag nor drawn: a page must not fill the machine's memory.
LARGEST = 256 * 2**20
#: A view is recorded once a sign-in; none lasts longer.
LONGEST_SIGN_IN = timedelta(hours=24)

WHY = {
    "conflict": _("conflicts with the archive"),
    "no-identity": _("has no Study or SOP Instance UID"),
    "identity": _("its identity isn't what the archive takes"),
    "unreadable": _("can't be read"),
    "quarantine": _("is in quarantine"),
    "corrected": _("copy from before a correction"),
    "deleted": _("copy of what was deleted"),
    "found": _("nobody has accounted for it"),
}
STATES = {
    "comparing": ("◔", _("Being compared")),
    "waiting": ("⚠", _("Waits for a person")),
    "kept": ("●", _("Safe copy")),
    "same": ("✓", _("Same content as the archive's")),
    "releasing": ("◑", _("On its way into the archive")),
    "released": ("✓", _("Released into the archive")),
    "discard-asked": ("‼", _("Second person wanted: discard")),
    "discarded": ("✕", _("Discarded")),
}
#: The label under which exceptions lead here (zambezi.holding.OPEN), for the catalogue.
OPEN_LABEL = _("Open in the hold")


@dataclass(frozen=True)
class Found:
    """A row with the bytes of both sides, as far as they can be had; `trouble` says what can't."""

    held: Held
    content: bytes | None
    other: Archived | None
    trouble: str = ""
    is_archive_silent: bool = False


@pages.get("/hold")
@requires("hold.read")
def index() -> Any:
    """What lies in the hold, the oldest first; without filters what needs somebody. No patient's data."""
    why, state = request.args.get("why", "")[:16], request.args.get("state", "open")[:16]
    page = max(0, request.args.get("page", 0, type=int))
    query = select(Held)
    if why:
        query = query.where(Held.why == why)
    if state == "open":
        query = query.where(Held.state.in_(OPEN_STATES))
    elif state != "all":
        query = query.where(Held.state == state)
    with _parts().sessions.begin() as database:
        total = database.scalar(select(func.count()).select_from(query.subquery())) or 0
        rows = database.scalars(query.order_by(Held.held_at, Held.id).offset(page * ROWS).limit(ROWS)).all()
    return render_template(
        "hold.html", rows=rows, why=why, state=state, total=total, page=page, more=total > (page + 1) * ROWS,
        whys=WHY, states=STATES,
    )  # fmt: skip


@pages.get("/hold/<int:held_id>")
@requires("hold.read")
def show(held_id: int) -> Any:
    """One object and what the archive holds in its place, side by side; recorded as a view before it is shown."""
    return _shown(held_id)


@pages.get("/hold/<int:held_id>/picture/<side>")
@requires("hold.read")
def drawn(held_id: int, side: str) -> Any:
    """The picture of one side: `held` or `archived`; as text why there is none."""
    if side not in ("held", "archived"):
        abort(404)
    found = _found(held_id)
    _record_view(found.held)
    archive = found.other.content if found.other else None
    content = found.content if side == "held" else archive
    if content is None:
        abort(404)
    try:
        return Response(picture.draw(content), mimetype="image/png")
    except picture.NoPicture as why:
        return Response(str(why), status=422, mimetype="text/plain")


@pages.post("/hold/<int:held_id>/release")
@requires("hold.decide")
def release(held_id: int) -> Any:
    """Let it go into the archive."""
    return _decided(
        held_id, lambda s, held, now: holding.ask_release(s, held, current_user.login, _reason(), now, CHAIN)
    )


@pages.post("/hold/<int:held_id>/replace")
@requires("hold.decide")
def replace(held_id: int) -> Any:
    """Let it take the place of the archived copy that the page showed."""
    shown = request.form.get("archived", "")
    found = _found(held_id)
    if found.other is None or found.other.orthanc_id != shown:
        abort(409)

    def ask(database: Session, held: Held, now: datetime) -> None:
        wanted = {"instances": [shown], "replace": held_id}
        holding.ask_replace(
            database, held,
            lambda: corrections.ask(database, "replace", wanted, _reason(), current_user.login, now, CHAIN),
            current_user.login, _reason(), now, CHAIN,
        )  # fmt: skip

    return _decided(held_id, ask)


@pages.post("/hold/<int:held_id>/discard")
@requires("hold.decide")
def discard(held_id: int) -> Any:
    """Ask that it is discarded; another person confirms."""
    return _decided(
        held_id, lambda s, held, now: holding.ask_discard(s, held, current_user.login, _reason(), now, CHAIN)
    )


@pages.post("/hold/<int:held_id>/confirm")
@requires("hold.decide")
def confirm(held_id: int) -> Any:
    """The second person agrees that it is discarded."""
    return _decided(held_id, lambda s, held, now: holding.confirm_discard(s, held, current_user.login, now, CHAIN))


@pages.post("/hold/<int:held_id>/withdraw")
@requires("hold.decide")
def withdraw(held_id: int) -> Any:
    """It is not discarded after all."""
    return _decided(held_id, lambda s, held, now: holding.withdraw_discard(s, held, current_user.login, now, CHAIN))


def _shown(held_id: int, refused: str = "") -> Any:
    found = _found(held_id)
    _record_view(found.held)
    other = found.other.content if found.other else None
    compared = sides.compare(found.content, other) if found.content is not None else None
    return render_template(
        "held.html", held=found.held, sides=compared, other=found.other, trouble=found.trouble, whys=WHY, states=STATES,
        is_archive_silent=found.is_archive_silent, may_decide=current_user.may("hold.decide"), refused=refused,
        may_see_study=current_user.may("images.view"),
    )  # fmt: skip


def _decided(held_id: int, act: Callable[[Session, Held, datetime], None]) -> Any:
    try:
        with _parts().sessions.begin() as database:
            held = database.get(Held, held_id) or abort(404)
            act(database, held, _parts().clock())
    except (HoldRefused, corrections.CorrectionRefused) as why:
        return _shown(held_id, str(why)), 409
    return redirect(f"/hold/{held_id}?said=decided", 303)


def _found(held_id: int) -> Found:
    parts = _parts()
    with parts.sessions.begin() as database:
        held = database.get(Held, held_id) or abort(404)
    content, trouble = None, ""
    if held.size > LARGEST:
        return Found(held, None, None, f"it is too large for a page: {held.size:,} bytes")
    try:
        content = hold.get(parts.environment.hold_dir, held.sha256)
    except hold.NotHeld as why:
        trouble = str(why)
    orthanc = OrthancClient(parts.environment, parts.keys, CHAIN, timeout_s=20)
    try:
        for orthanc_id in archived.ids(orthanc, held.sop_uid, held.orthanc_id):
            other = archived.fetch(orthanc, orthanc_id, LARGEST)
            if other:
                return Found(held, content, other, trouble)
    except OrthancError:
        return Found(held, content, None, trouble, is_archive_silent=True)
    return Found(held, content, None, trouble)


def _record_view(held: Held) -> None:
    """A `viewed` entry, committed before anything is shown; once for each sign-in and object."""
    now, sign_in = _parts().clock(), _sign_in()
    with _parts().sessions.begin() as database:
        recent = select(AuditEntry).where(
            AuditEntry.event == "viewed", AuditEntry.who == current_user.login, AuditEntry.journal == CHAIN,
            AuditEntry.at >= clock.text(now - LONGEST_SIGN_IN),
        )  # fmt: skip
        for row in database.scalars(recent):
            facts = Sealed(row.journal, row.seq, row.hash, row.payload).facts
            if (facts.get("session"), facts.get("held")) == (sign_in, held.id):
                return
        audit.append(
            database, CHAIN, "viewed", now, who=current_user.login, session=sign_in, role=current_user.role,
            kind=current_user.kind, study_uid=held.study_uid, held=held.id, path=f"/hold/{held.id}",
            ip=request.remote_addr,
        )  # fmt: skip


def _sign_in() -> str:
    return str(session.token.session)  # type: ignore[attr-defined]  # the RIS's sessions carry the signed token


def _reason() -> str:
    return request.form.get("reason", "").strip()[:1000]


def _parts() -> Any:
    return current_app.extensions["zambezi"]
