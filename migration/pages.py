"""Pages of migrations: how far each is, what waits for a person, its certificate."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template
from flask_babel import lazy_gettext as _
from sqlalchemy import func, select

from migration import certificate, progress
from zambezi import signing
from zambezi.access import requires
from zambezi.database.tables import Certificate, MigrationInstance, MigrationProject, MigrationStudy

pages = Blueprint("migrations", __name__, template_folder="templates")
pages.navigation = (("migrations.index", _("Migrations")),)  # type: ignore[attr-defined]  # read by the application

#: So many of a project's studies are listed on its page; the certificate names all of them.
LISTED = 200

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
    "verified": ("●", _("Equal to the source")),
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
    "done": _("equal to the source"),
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
        facts = [(project, progress.of(session, project, parts.clock())) for project in projects]
    return render_template(
        "migrations.html", projects=facts, bar=progress.bar, states=PROJECT_STATES, kinds=KINDS, colours=COLOURS
    )


@pages.get("/migrations/<int:project_id>")
@requires("migration.read")
def show(project_id: int) -> Any:
    """One migration: progress by year, coverage, the studies that need a person first."""
    parts = current_app.extensions["zambezi"]
    with parts.sessions.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        facts = progress.of(session, project, parts.clock())
        years = progress.by_year(session, project_id)
        of_project = MigrationStudy.project_id == project_id
        rank = MigrationStudy.state.in_(("divergent", "parked", "retrying")).desc()
        studies = session.scalars(
            select(MigrationStudy)
            .where(of_project)
            .order_by(rank, MigrationStudy.study_date.desc(), MigrationStudy.id)
            .limit(LISTED)
        ).all()
        verdicts = session.execute(
            select(MigrationInstance.verdict, func.count())
            .join(MigrationStudy, MigrationStudy.id == MigrationInstance.study_id)
            .where(of_project)
            .group_by(MigrationInstance.verdict)
        ).all()
        certified = _latest(session, project_id)
    return render_template(
        "migration.html", project=project, facts=facts, years=years, studies=studies, verdicts=verdicts,
        certified=certified, key_name=signing.key_id(certified.public_key) if certified else "",
        states=PROJECT_STATES, study_states=STUDY_STATES, verdict_words=VERDICTS, kinds=KINDS, colours=COLOURS,
        listed=LISTED, bar=progress.bar,
    )  # fmt: skip


@pages.get("/migrations/<int:project_id>/certificate")
@requires("migration.read")
def download(project_id: int) -> Any:
    """The newest certificate, as a file that verifies anywhere."""
    with current_app.extensions["zambezi"].sessions.begin() as session:
        made = _latest(session, project_id) or abort(404)
        body, name = certificate.to_file(made), session.get_one(MigrationProject, project_id).name
    headers = {"Content-Disposition": f'attachment; filename="certificate-{name}.json"'}
    return Response(body, mimetype="application/json", headers=headers)


def _latest(session: Any, project_id: int) -> Certificate | None:
    query = select(Certificate).where(Certificate.project_id == project_id).order_by(Certificate.id.desc())
    found: Certificate | None = session.scalars(query).first()
    return found
