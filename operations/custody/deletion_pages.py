"""Deletions and legal holds: who asked, who must confirm, when it happens, what is gone and how it comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from zambezi import deletions
from zambezi.access import ROLES, requires
from zambezi.database.tables import Deletion, LegalHold, Series, Study, User
from zambezi.deletions import Refused

pages = Blueprint("deletions", __name__, template_folder="templates")
pages.navigation = (("deletions.index", _("Deletions")),)  # type: ignore[attr-defined]  # read by the application

#: What pages write goes into the RIS's own audit chain.
CHAIN = "ris"
PERMISSION = "deletion.decide"
ROWS = 100

STATES = {
    "asked": ("○", _("Waits for a second person")),
    "confirmed": ("◔", _("Confirmed, the waiting time runs")),
    "due": ("◑", _("Copies go to the hold")),
    "deleting": ("◕", _("Being deleted")),
    "retrying": ("↻", _("Failed, will be tried again")),
    "done": ("●", _("Deleted, copies in the hold")),
    "withdrawn": ("✕", _("Withdrawn")),
    "parked": ("⚠", _("Stopped: a person must look")),
    "restoring": ("◑", _("Being put back")),
    "restored": ("✓", _("Back in the archive")),
}
CODES = {
    "quality": _("Quality: the images can't be used"),
    "patient-safety": _("Patient safety: the images mislead, such as those of another patient"),
    "wrong-worklist": _("A wrong worklist entry was chosen"),
    "expired": _("The time for which they must be kept is over"),
    "duplicate": _("The same images are there twice"),
    "other": _("Another reason"),
}
REFUSALS = {
    "code": _("Choose why the images are to go."),
    "reason": _("Say in words why: at most a thousand characters."),
    "unknown-study": _("The archive has no such study."),
    "unknown-series": _("The study has no such series."),
    "legal-hold": _("A legal hold stands on these images: nothing of them may be deleted."),
    "asked-already": _("A deletion of the same images was asked for already and is not over."),
    "same-person": _("You asked for it: another person must confirm it."),
    "unconfirmed": _("A legal hold stopped it: it must be confirmed anew first."),
    "about": _("Name one study or one patient."),
    "lifted": _("This legal hold was lifted already."),
    "state": _("It has changed meanwhile: look at what it is now."),
}


@pages.get("/deletions")
@requires(PERMISSION)
def index() -> Any:
    """Those that are not over, or all; the newest first."""
    show_all = request.args.get("show") == "all"
    with _parts().sessions.begin() as session:
        query = select(Deletion, Study).outerjoin(
            Study, (Study.study_uid == Deletion.study_uid) & (Study.orthanc_id == Deletion.study_orthanc_id)
        )
        if not show_all:
            query = query.where(Deletion.state.in_((*deletions.OPEN, "restoring")))
        rows = session.execute(query.order_by(Deletion.id.desc()).limit(ROWS)).all()
        total = session.scalar(select(func.count()).select_from(Deletion)) or 0
    return render_template(
        "deletions.html", rows=rows, total=total, show_all=show_all, states=STATES, codes=CODES, listed=ROWS
    )


@pages.get("/deletions/new")
@requires(PERMISSION)
def new() -> Any:
    """The form that asks for a deletion: what there is, and what happens with it."""
    return _form(request.args.get("study", ""), request.args.get("archive", ""))


@pages.post("/deletions")
@requires(PERMISSION)
def ask() -> Any:
    """Ask; another person confirms."""
    study_uid, orthanc_id = request.form.get("study", ""), request.form.get("archive", "")
    parts = _parts()
    try:
        with parts.sessions.begin() as session:
            made = deletions.ask(
                session, study_uid=study_uid, study_orthanc_id=orthanc_id,
                series_uid=request.form.get("series") or None, code=request.form.get("code", ""),
                reason=request.form.get("reason", ""), who=current_user.login, now=parts.clock(), writer=CHAIN,
            )  # fmt: skip
    except Refused as refused:
        return _form(study_uid, orthanc_id, refused)
    return redirect(url_for("deletions.show", number=made.id), 303)


@pages.get("/deletions/<int:number>")
@requires(PERMISSION)
def show(number: int) -> Any:
    """One deletion: what goes, who decided, when, and what can be done now."""
    return _page(number)


@pages.post("/deletions/<int:number>/confirm")
@requires(PERMISSION)
def confirm(number: int) -> Any:
    """The second person, who has looked, wants it, too."""
    if not request.form.get("looked"):
        abort(400)
    waiting = timedelta(hours=_parts().settings.deletion.waiting_hours)
    return _decide(
        number,
        lambda session, one, now: deletions.confirm(session, one, current_user.login, now, CHAIN, waiting),
    )


@pages.post("/deletions/<int:number>/withdraw")
@requires(PERMISSION)
def withdraw(number: int) -> Any:
    """Nothing goes."""
    reason = request.form.get("reason", "")
    return _decide(
        number, lambda session, one, now: deletions.withdraw(session, one, current_user.login, now, CHAIN, reason)
    )


@pages.post("/deletions/<int:number>/again")
@requires(PERMISSION)
def again(number: int) -> Any:
    """What was in the way is put right."""
    return _decide(number, lambda session, one, now: deletions.again(session, one, current_user.login, now, CHAIN))


@pages.post("/deletions/<int:number>/restore")
@requires(PERMISSION)
def restore(number: int) -> Any:
    """Put every held copy back."""
    reason = request.form.get("reason", "")
    return _decide(
        number, lambda session, one, now: deletions.restore(session, one, current_user.login, reason, now, CHAIN)
    )


@pages.get("/legal-holds")
@requires(PERMISSION)
def legal_holds() -> Any:
    """Those that stand, and those that were lifted; the form that sets one."""
    return _holds(request.args.get("study", ""))


@pages.post("/legal-holds")
@requires(PERMISSION)
def set_legal_hold() -> Any:
    """Nothing of the study, or of the patient, is deleted from now on."""
    parts = _parts()
    try:
        with parts.sessions.begin() as session:
            deletions.set_legal_hold(
                session, study_uid=request.form.get("study"), patient_id=request.form.get("patient"),
                reason=request.form.get("reason", ""), who=current_user.login, now=parts.clock(), writer=CHAIN,
            )  # fmt: skip
    except Refused as refused:
        return _holds(request.form.get("study", ""), refused)
    return redirect(url_for("deletions.legal_holds"), 303)


@pages.post("/legal-holds/<int:number>/lift")
@requires(PERMISSION)
def lift_legal_hold(number: int) -> Any:
    """It stands no longer."""
    parts = _parts()
    try:
        with parts.sessions.begin() as session:
            hold = session.get(LegalHold, number) or abort(404)
            reason = request.form.get("reason", "")
            deletions.lift_legal_hold(session, hold, reason, current_user.login, parts.clock(), CHAIN)
    except Refused as refused:
        return _holds("", refused)
    return redirect(url_for("deletions.legal_holds"), 303)


def _parts() -> Any:
    return current_app.extensions["zambezi"]


def _decide(number: int, act: Callable[[Session, Deletion, Any], object]) -> Any:
    parts = _parts()
    try:
        with parts.sessions.begin() as session:
            act(session, session.get(Deletion, number) or abort(404), parts.clock())
    except Refused as refused:
        return _page(number, refused)
    return redirect(url_for("deletions.show", number=number), 303)


def _page(number: int, refused: Refused | None = None) -> Any:
    parts = _parts()
    with parts.sessions.begin() as session:
        deletion = session.get(Deletion, number) or abort(404)
        study = session.get(Study, (deletion.study_uid, deletion.study_orthanc_id))
        listed = deletions.items(session, deletion)
        holds = deletions.standing_holds(session, deletion.study_uid)
        gone = deletions.gone_counts(session, [number]).get(number, 0)
        copies = deletions.receivers(session, deletion.study_uid, [one.orthanc_id for one in listed])
        series = _series(session, deletion.study_uid)
        others = _who_may_confirm(session, deletion.asked_by)
    mine = deletions.person(current_user.login) == deletions.person(deletion.asked_by)
    page = render_template(
        "deletion.html", deletion=deletion, study=study, listed=listed, holds=holds, gone=gone, copies=copies,
        series=[one for one in series if deletion.series_uid in (None, one.series_uid)], others=others, mine=mine,
        states=STATES, codes=CODES, refusal=REFUSALS[refused.why] if refused else "",
        may_withdraw=deletion.state in deletions.WITHDRAWN_FROM and not gone,
        may_restore=deletion.state == "done" or (deletion.state == "parked" and gone > 0),
        may_confirm=deletion.state in ("asked", "parked") and deletion.confirmed_by is None and not holds and not mine,
        may_repeat=deletion.state in ("parked", "retrying") and deletion.confirmed_by is not None and not holds,
        waiting_hours=parts.settings.deletion.waiting_hours, keep_days=parts.settings.deletion.keep_days,
    )  # fmt: skip
    return page, 409 if refused else 200


def _form(study_uid: str, orthanc_id: str, refused: Refused | None = None) -> Any:
    parts = _parts()
    with parts.sessions.begin() as session:
        studies = session.scalars(select(Study).where(Study.study_uid == study_uid)).all()
        chosen = [one for one in studies if orthanc_id in ("", one.orthanc_id)]
        if not chosen:
            abort(404)
        series = _series(session, study_uid)
        holds = deletions.standing_holds(session, study_uid)
        open_ones = [one for one in deletions.of_study(session, study_uid) if one.state in deletions.OPEN]
        others = _who_may_confirm(session, current_user.login)
    page = render_template(
        "deletion_new.html", studies=studies, study=chosen[0], series=series, holds=holds, open_ones=open_ones,
        codes=CODES, others=others, refusal=REFUSALS[refused.why] if refused else "", form=request.form,
        longest=deletions.LONGEST_REASON, waiting_hours=parts.settings.deletion.waiting_hours,
        keep_days=parts.settings.deletion.keep_days,
    )  # fmt: skip
    return page, 409 if refused else 200


def _holds(study_uid: str, refused: Refused | None = None) -> Any:
    with _parts().sessions.begin() as session:
        rows = session.scalars(
            select(LegalHold).order_by(LegalHold.lifted_at.is_not(None), LegalHold.id.desc()).limit(ROWS)
        ).all()
    page = render_template(
        "legal_holds.html", rows=rows, study=study_uid, refusal=REFUSALS[refused.why] if refused else "",
        form=request.form, longest=deletions.LONGEST_REASON,
    )  # fmt: skip
    return page, 409 if refused else 200


def _series(session: Session, study_uid: str) -> Sequence[Series]:
    query = select(Series).where(Series.study_uid == study_uid, Series.instances > 0)
    return session.scalars(query.order_by(Series.modality, Series.series_uid)).all()


def _who_may_confirm(session: Session, asked_by: str) -> list[str]:
    """The names of those who may be the second person."""
    roles = [role for role, held in ROLES.items() if PERMISSION in held]
    people = session.scalars(select(User).where(User.role.in_(roles), User.disabled_at.is_(None)).order_by(User.name))
    return [one.name for one in people if deletions.person(one.login) != deletions.person(asked_by)]
