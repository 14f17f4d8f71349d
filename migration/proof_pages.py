"""The page of a migration's proof: levels, sample, certificate as file, on paper, and what verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template, send_file
from flask_babel import get_locale
from flask_babel import lazy_gettext as _
from sqlalchemy import func, select

from migration import certificate, certificate_pdf, rollback, sampling, verifier
from migration.pages import STUDY_STATES
from zambezi import signing
from zambezi.access import requires
from zambezi.database.tables import MigrationProject, MigrationSample, MigrationStudy

pages = Blueprint("migration_proof", __name__, template_folder="templates")

#: Which level was asked for, the plan says: verified is not always compared with the source.
STATES = STUDY_STATES
#: What each level of proof says.
LEVELS = (
    _("not proven: missing, left out, or taken back"),
    _("set: the source names it and the archive holds it"),
    _("arrival: the file on the disk is, byte for byte, what the archive received"),
    _("source: compared with the source itself, and equal"),
)


@pages.get("/migrations/<int:project_id>/proof")
@requires("migration.read")
def show(project_id: int) -> Any:
    """How far the studies are proven, the sample, the certificate."""
    with current_app.extensions["zambezi"].sessions.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        of_project = MigrationStudy.project_id == project_id
        levels = session.execute(
            select(
                MigrationStudy.level, func.count(), func.sum(MigrationStudy.stored), func.sum(MigrationStudy.size)
            )
            .where(of_project)
            .group_by(MigrationStudy.level)
            .order_by(MigrationStudy.level.desc())
        ).all()  # fmt: skip
        certified = certificate.latest(session, project_id)
        drawn = session.get(MigrationSample, project_id)
        batches = rollback.batches(session, project_id)
    return render_template(
        "migration_proof.html", project=project, levels=levels, level_words=LEVELS, drawn=drawn, certified=certified,
        batches=batches, states=STATES, of_source=sampling.wants_source(project.plan),
        key_name=signing.key_id(certified.public_key) if certified else "",
    )  # fmt: skip


@pages.get("/migrations/<int:project_id>/certificate")
@requires("migration.read")
def download(project_id: int) -> Any:
    """The newest certificate, as a file that verifies anywhere; in pieces, for it may be large."""
    sessions = current_app.extensions["zambezi"].sessions
    with sessions.begin() as session:
        made = certificate.latest(session, project_id) or abort(404)
        name = session.get_one(MigrationProject, project_id).name
    headers = {"Content-Disposition": f'attachment; filename="certificate-{name}.jsonl"'}
    return Response(certificate.lines(sessions, made.id), mimetype="application/x-ndjson", headers=headers)


@pages.get("/migrations/<int:project_id>/certificate.pdf")
@requires("migration.read")
def on_paper(project_id: int) -> Any:
    """What it says, for people, in the reader's language."""
    parts = current_app.extensions["zambezi"]
    with parts.sessions.begin() as session:
        made = certificate.latest(session, project_id) or abort(404)
        name = session.get_one(MigrationProject, project_id).name
    language, site = "pt" if str(get_locale()).startswith("pt") else "en", parts.settings.site
    body = certificate_pdf.of(parts.sessions, made.id, language, site.name, site.zone)
    headers = {"Content-Disposition": f'inline; filename="certificate-{name}.pdf"'}
    return Response(body, mimetype="application/pdf", headers=headers)


@pages.get("/migrations/verifier.py")
@requires("migration.read")
def program() -> Any:
    """The program that verifies certificates without an installation."""
    return send_file(Path(verifier.__file__), mimetype="text/x-python", as_attachment=True)
