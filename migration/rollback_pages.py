"""Taking a batch back, on pages: what would go and what stays, asked for by one person, confirmed by another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, current_app, redirect, render_template, request, url_for
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy.orm import Session

from migration import rollback
from zambezi.access import requires
from zambezi.database.tables import MigrationProject
from zambezi.deletions import LONGEST_REASON, Refused
from zambezi.orthanc_client import OrthancClient, OrthancError

pages = Blueprint("migration_rollback", __name__, template_folder="templates")

#: Studies whose instances that stay are listed.
LISTED = 100
DELETIONS = {
    "asked": _("waits for a second person"),
    "confirmed": _("confirmed, the waiting time runs"),
    "due": _("copies go to the hold"),
    "deleting": _("being taken out"),
    "retrying": _("failed, will be tried again"),
    "done": _("taken out, copies in the hold"),
    "withdrawn": _("withdrawn"),
    "parked": _("stopped: a person must look"),
    "restoring": _("being put back"),
    "restored": _("back in the archive"),
}
REFUSALS = {
    "reason": _("Say in words why: at most 900 characters."),
    "archive": _("The archive can't be asked now. Nothing was done."),
}


@pages.get("/migrations/<int:project_id>/rollback/<int:batch>")
@requires("migration.read")
def show(project_id: int, batch: int) -> Any:
    """What would go, what stays and why, and how far it is."""
    return _shown(project_id, batch)


@pages.post("/migrations/<int:project_id>/rollback/<int:batch>")
@requires("migration.run")
def ask(project_id: int, batch: int) -> Any:
    """Ask for it; another person must confirm."""
    parts, because = current_app.extensions["zambezi"], request.form.get("reason", "").strip()
    if not because or len(because) > LONGEST_REASON - 100:
        return _shown(project_id, batch, "reason")
    try:
        with parts.sessions.begin() as session:
            project = session.get(MigrationProject, project_id) or abort(404)
            for taken in _preview(session, project, batch):
                if taken.going and not taken.refused:
                    _ask(session, project, taken, because)
    except OrthancError:
        return _shown(project_id, batch, "archive")
    return redirect(url_for("migration_rollback.show", project_id=project_id, batch=batch), 303)


def _ask(session: Session, project: MigrationProject, taken: rollback.Taken, because: str) -> None:
    """Of one study; what may not be deleted (a legal hold) is left, and the page goes on saying that it is there."""
    try:
        with session.begin_nested():
            rollback.ask(
                session, project, taken, because, current_user.login, current_app.extensions["zambezi"].clock()
            )
    except Refused as why:
        taken.refused = str(why)


@pages.post("/migrations/<int:project_id>/rollback/<int:batch>/confirm")
@requires("deletion.decide")
def confirm(project_id: int, batch: int) -> Any:
    """As the second person: all that was asked for of this batch."""
    parts = current_app.extensions["zambezi"]
    with parts.sessions.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        waiting = timedelta(hours=parts.settings.deletion.waiting_hours)
        rollback.confirm(session, project, batch, current_user.login, parts.clock(), waiting)
    return redirect(url_for("migration_rollback.show", project_id=project_id, batch=batch), 303)


def _preview(session: Session, project: MigrationProject, batch: int) -> list[rollback.Taken]:
    parts = current_app.extensions["zambezi"]
    client = OrthancClient(parts.environment, parts.keys, "ris", timeout_s=20)
    source = parts.settings.migration.sources.get(project.source)
    aet = rollback.source_aet(client, source.peer) if source else ""
    return list(rollback.preview(session, client, project, batch, aet))


def _shown(project_id: int, batch: int, refusal: str = "") -> Any:
    parts = current_app.extensions["zambezi"]
    with parts.sessions.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        asked = rollback.of_batch(session, project_id, batch)
        try:
            found = _preview(session, project, batch)
        except OrthancError:
            found, refusal = [], "archive"
    going = sum(one.told["going"] for one in found if not one.refused)
    return render_template(
        "migration_rollback.html", project=project, batch=batch, found=found, listed=LISTED, going=going, asked=asked,
        deletion_states=DELETIONS,
        may_confirm=any(one.state == "asked" and one.asked_by != current_user.login for one in asked),
        waiting=parts.settings.deletion.waiting_hours, refusal=REFUSALS.get(refusal, ""), longest=LONGEST_REASON - 100,
        reason=request.form.get("reason", ""),
    ), 422 if refusal == "reason" else 200  # fmt: skip
