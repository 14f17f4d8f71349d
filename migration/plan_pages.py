"""Pages of plans: the plan in words, a new one shown on real studies and taken, and whose the held studies are."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, abort, current_app, redirect, render_template, request, url_for
from flask_babel import get_locale
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import deciding, plan_document, plan_file, plan_pdf, plan_text, plans, whose
from migration.plan_text import Language
from zambezi.access import requires
from zambezi.config.load import ConfigurationFaults
from zambezi.database.tables import MigrationMatch, MigrationProject, Patient, PlanVersion

pages = Blueprint("migration_plans", __name__, template_folder="templates")

#: A page decides so many studies, evenly spread over the inventory; the command decides all.
MOST = 400

EVIDENCE = {
    "same-id": _("same identifier"),
    "same-id-issuer": _("same identifier and issuer"),
    "former-id": _("a former identifier"),
    "other-id": _("other identifier"),
    "other-issuer": _("same number of another issuer"),
    "same-name": _("same name"),
    "like-name": _("similar name"),
    "other-name": _("other name"),
    "same-birth": _("same birth date"),
    "same-birth-guessed": _("same birth date, which looks guessed"),
    "swapped-birth": _("birth date with day and month swapped"),
    "guessed-birth": _("birth dates near each other, one looks guessed"),
    "near-birth": _("birth date with one digit different"),
    "same-year": _("same year of birth"),
    "other-birth": _("other birth date"),
    "same-sex": _("same sex"),
    "other-sex": _("other sex"),
    "newborn": _("one is a newborn under the mother's name"),
}
STATES = {"ready": _("will move"), "held": _("held"), "skipped": _("left out")}
#: What a source says of a patient, in the order in which both sides stand beside each other.
ROWS = (
    ("PatientName", _("Name")), ("PatientID", _("Identifier")), ("IssuerOfPatientID", _("Issuer")),
    ("PatientBirthDate", _("Birth date")), ("PatientSex", _("Sex")),
)  # fmt: skip


@pages.get("/migrations/<int:project_id>/plan")
@requires("migration.read")
def show(project_id: int) -> Any:
    """The plan in force in words, how far it is carried out, its versions."""
    return _shown(project_id)


@pages.post("/migrations/<int:project_id>/plan")
@requires("migration.run")
def preview(project_id: int) -> Any:
    """What a plan would do to studies of the inventory; nothing is changed."""
    written = request.form.get("document", "")
    with _parts().reading() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        try:
            plan = plan_file.checked(plan_file.parsed(written.encode(), "plan"))
        except ConfigurationFaults as faults:
            return _shown(project_id, written, str(faults)), 422
        found = plans.preview(session, project, plan, most=MOST)
    return render_template("plan_preview.html", project=project, found=found, written=written, states=STATES)


@pages.post("/migrations/<int:project_id>/plan/take")
@requires("migration.run")
def take(project_id: int) -> Any:
    """Make it the next version; the migration process carries it out, and the page shows how far it is."""
    written = request.form.get("document", "")
    with _parts().reading() as session:
        session.get(MigrationProject, project_id) or abort(404)
    try:
        plans.record(
            _parts().sessions, project_id, plan_file.parsed(written.encode(), "plan"), who=current_user.login,
            because=request.form.get("because", "")[:1000], now=_parts().clock(),
        )  # fmt: skip
    except ConfigurationFaults as faults:
        return _shown(project_id, written, str(faults)), 422
    except plans.PlanRefused as refused:
        return _shown(project_id, written, str(refused)), 409
    return redirect(url_for(".show", project_id=project_id, said="saved"), 303)


@pages.get("/migrations/<int:project_id>/plan.pdf")
@requires("migration.read")
def document(project_id: int) -> Any:
    """The plan document; `lang` is pt or en, else the reader's."""
    asked = request.args.get("lang")
    language: Language = "en" if asked == "en" else "pt" if asked == "pt" else _language()
    site = _parts().settings.site
    with _parts().reading() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        found = plan_document.of(session, project, _parts().settings, _parts().clock())
    name = f"plan-{project.name}-{found.version}-{language}.pdf"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return Response(plan_pdf.build(found, language, site.zone), mimetype="application/pdf", headers=headers)


@pages.get("/migrations/<int:project_id>/plan/<int:version>.json")
@requires("migration.run")
def version(project_id: int, version: int) -> Any:
    """A version's document, as it was taken."""
    query = select(PlanVersion).where(PlanVersion.project_id == project_id, PlanVersion.version == version)
    with _parts().reading() as session:
        found = session.scalars(query).first() or abort(404)
    return Response(_pretty(found.document), mimetype="application/json")


@pages.get("/migrations/<int:project_id>/held")
@requires("migration.read")
def held(project_id: int) -> Any:
    """Patients of the source of whom a person must say who they are, each beside those who resemble it."""
    return _held(project_id)


@pages.post("/migrations/<int:project_id>/held/<int:match_id>")
@requires("migration.run")
def decide(project_id: int, match_id: int) -> Any:
    """One patient is somebody here, or one of its own."""
    chosen = request.form.get("whose", "")
    with _parts().reading() as session:
        row = session.get(MigrationMatch, match_id)
        if row is None or row.project_id != project_id:
            abort(404)
    if chosen != "own" and not chosen.isdecimal():
        return _held(project_id, str(_("Choose whose the studies are."))), 422
    try:
        deciding.decide(
            _parts().sessions, match_id, None if chosen == "own" else int(chosen),
            given_id=request.form.get("given", "").strip()[:64] if chosen == "own" else "", who=current_user.login,
            because=request.form.get("because", "")[:1000], now=_parts().clock(),
        )  # fmt: skip
    except deciding.DecisionRefused as refused:
        return _held(project_id, str(refused)), 409
    return redirect(url_for(".held", project_id=project_id, said="decided"), 303)


@pages.post("/migrations/<int:project_id>/held")
@requires("migration.run")
def decide_all(project_id: int) -> Any:
    """All with one candidate and at least this score: first how many that are, then it is done."""
    try:
        least = min(100, max(50, int(request.form.get("least", ""))))
    except ValueError:
        return _held(project_id, str(_("Give the score in hundredths, such as 75."))), 422
    how = {"who": current_user.login, "because": request.form.get("because", "")[:1000], "now": _parts().clock()}
    if request.form.get("sure") != "yes" or not how["because"].strip():
        found = len(deciding.by_score(_parts().sessions, project_id, least / 100))
        return _held(project_id, counted=(least, found, how["because"]))
    deciding.decide_all(_parts().sessions, project_id, least / 100, **how)
    return redirect(url_for(".held", project_id=project_id, said="decided"), 303)


def _shown(project_id: int, written: str = "", fault: str = "") -> str:
    parts = _parts()
    with parts.reading() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        found = plan_document.of(session, project, parts.settings, parts.clock())
        several = plans.versions(session, project_id)
        left = plans.undecided(session, project)
        waiting = deciding.count_held(session, project_id)
    current = next((one for one in several if one.version == found.version), None)
    if not written and current is not None:
        pretty = _pretty(current.document)
        written = pretty if len(pretty) < 20_000 else ""
    return render_template(
        "plan.html", project=project, found=found, text=plan_text.write(found, _language(), parts.settings.site.zone),
        versions=several, left=left, waiting=waiting, written=written, fault=fault,
        may_run=current_user.may("migration.run"),
    )  # fmt: skip


def _held(project_id: int, fault: str = "", counted: tuple[int, int, str] | None = None) -> str:
    parts = _parts()
    after = max(0, request.args.get("after", 0, type=int))
    with parts.reading() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        total, faults = deciding.count_held(session, project_id), deciding.impossible(session, project_id)
        rows = [(row, _candidates(session, row)) for row in deciding.held(session, project_id, after)]
    return render_template(
        "plan_held.html", project=project, rows=rows, total=total, after=after, fault=fault, counted=counted,
        faults=faults, labels=ROWS, evidence=EVIDENCE, may_run=current_user.may("migration.run"),
        needs_other=(whose.TAKEN, whose.STRANGER, whose.SHARED), more=len(rows) == deciding.SHOWN,
    )  # fmt: skip


def _candidates(session: Session, row: MigrationMatch) -> list[dict[str, Any]]:
    """Who resembles it: what is known of each here, and what speaks for and against it."""
    told = []
    for one in row.candidates:
        patient = session.get(Patient, one["patient"])
        if patient is None:
            continue
        said = {
            "PatientName": f"{patient.family_name}^{patient.given_name}".rstrip("^"), "PatientID": patient.patient_id,
            "IssuerOfPatientID": patient.issuer, "PatientBirthDate": patient.birth_date or "",
            "PatientSex": patient.sex or "",
        }  # fmt: skip
        told.append({"patient": patient.id, "score": one["score"], "said": said, "reasons": one["reasons"]})
    return told


def _pretty(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False)


def _language() -> Language:
    locale = get_locale()
    return "pt" if locale is not None and locale.language == "pt" else "en"


def _parts() -> Any:
    return current_app.extensions["zambezi"]
