"""Pages of migrations: how far each is, what waits for a person, its certificate."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, current_app, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import certificate, lanes, ledger, progress
from zambezi import signing
from zambezi.access import requires
from zambezi.database.tables import MigrationProject, MigrationStudy

pages = Blueprint("migrations", __name__, template_folder="templates")
pages.navigation = (("migrations.index", _("Migrations")),)  # type: ignore[attr-defined]  # read by the application

#: So many of a project's studies are listed on its page; the certificate names all of them.
LISTED = 60

PROJECT_STATES = {
    "inventory": ("◔", _("Inventory is being taken")),
    "planned": ("○", _("Inventoried, not started")),
    "running": ("◑", _("Running inside its windows")),
    "paused": ("⏸", _("Paused")),
    "finished": ("●", _("Finished, not certified yet")),
    "certified": ("✓", _("Certified")),
}
STUDY_STATES = {
    "ready": ("○", _("Waiting its turn")),
    "moving": ("◑", _("Being moved")),
    "verifying": ("◕", _("Being compared")),
    "verified": ("●", _("Verified")),
    "retrying": ("↻", _("Failed, will be tried again")),
    "divergent": ("⚠", _("Differs from the source: a person must look")),
    "conflict": ("⚠", _("The archive had something else under the same UID: a person must look")),
    "vanished": ("⚠", _("The source names less than before: a person must look")),
    "incomplete": ("⚠", _("Verified but for objects that can't be had: a person must look")),
    "parked": ("⚠", _("Stopped: a person must look")),
    "held": ("⚠", _("Held: whose study it is, a person must say")),
    "skipped": ("–", _("Left out by the plan")),
    "waived": ("–", _("Left as it is, by a person's decision")),
    "rolled-back": ("–", _("Rolled back")),
}
KINDS = {
    "done": _("proven"),
    "under-way": _("under way"),
    "held": _("held"),
    "failed": _("failed"),
    "waiting": _("waiting"),
    "left-out": _("left out"),
}
VERDICTS = {
    "expected": _("expected"),
    "stored": _("stored, not compared"),
    "equal": _("equal to the source"),
    "different": _("different from the source"),
    "missing": _("missing"),
    "rolled-back": _("taken back"),
}
#: Colours of the bar; the words beside it say the same.
COLOURS = {
    "done": "#1a7f37",
    "under-way": "#0a5fb4",
    "held": "#b26a00",
    "failed": "#b3261e",
    "waiting": "#9aa4ae",
    "left-out": "#6b5b95",
}


@pages.get("/migrations")
@requires("migration.read")
def index() -> Any:
    """All migrations, each with its bar."""
    parts = current_app.extensions["zambezi"]
    with parts.sessions.begin() as session:
        projects = session.scalars(select(MigrationProject).order_by(MigrationProject.id.desc())).all()
        facts = [(project, _facts(session, project)) for project in projects]
    return render_template(
        "migrations.html", projects=facts, bar=progress.bar, states=PROJECT_STATES, kinds=KINDS, colours=COLOURS
    )


@pages.get("/migrations/<int:project_id>")
@requires("migration.read")
def show(project_id: int) -> Any:
    """One migration: how far, how fast, until when, how its source is; the studies that need a person first."""
    parts = current_app.extensions["zambezi"]
    find, now = request.args.get("find", "").strip()[:64], parts.clock()
    with parts.sessions.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        facts = _facts(session, project)
        picture = progress.picture(session, project_id)
        rate = progress.hourly(progress.stretches(session, project_id, now), now)
        studies = _found(session, project_id, find) if find else _listed(session, project_id)
        certified = certificate.latest(session, project_id)
    step = {"planned": "running", "paused": "running", "running": "paused"}.get(project.state, "")
    return render_template(
        "migration.html", project=project, facts=facts, picture=picture, studies=studies, certified=certified,
        key_name=signing.key_id(certified.public_key) if certified else "", states=PROJECT_STATES,
        study_states=STUDY_STATES, kinds=KINDS, colours=COLOURS, listed=LISTED, bar=progress.bar, find=find, step=step,
        rank=lanes.rank,
        rate=rate if any(count for _hour, count in rate) else None, may_run=current_user.may("migration.run"),
    )  # fmt: skip


def _facts(session: Session, project: MigrationProject) -> dict[str, Any]:
    parts = current_app.extensions["zambezi"]
    settings = parts.settings.migration.sources.get(project.source)
    return progress.of(session, project, parts.clock(), settings, parts.settings.site)


def _listed(session: Session, project_id: int) -> list[MigrationStudy]:
    """What needs a person, what is being worked on, then the rest, a part of each state: an index has them in order."""
    study, found = MigrationStudy, list[MigrationStudy]()
    order = (study.priority.desc(), study.study_date.desc(), study.id.desc())
    for state in (*ledger.FOR_A_PERSON, "held", "retrying", "moving", "verifying", "ready", *ledger.AT_REST):
        if len(found) >= LISTED:
            break
        query = select(study).where(study.project_id == project_id, study.state == state).order_by(*order)
        known = {row.id for row in found}
        found += [row for row in session.scalars(query.limit(LISTED - len(found))) if row.id not in known]
    return found


def _found(session: Session, project_id: int, find: str) -> list[MigrationStudy]:
    """The study of this UID, or the studies of this patient, the newest first."""
    study = MigrationStudy
    query = select(study).where(study.project_id == project_id, (study.study_uid == find) | (study.patient_id == find))
    return list(session.scalars(query.order_by(study.study_date.desc()).limit(LISTED)))
