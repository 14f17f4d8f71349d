"""Pages of old systems' records: what would come of them, how an import stands, and what a person must decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, abort, current_app, redirect, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration.records import deciding, evaluating, importing, mapping, reconciling
from migration.records.deciding import CannotDecide
from migration.records.importing import Job
from migration.records.mapping import KINDS, MappingFault
from migration.records.rows import of_kept
from zambezi.access import requires
from zambezi.database.tables import LegacyImport, LegacyRow, Patient

pages = Blueprint("old_records", __name__, template_folder="templates")

#: Rows on one page.
ROWS = 100
KIND_WORDS = {"patient": _("Patients"), "exam": _("Exams"), "report": _("Reports")}
STATES = {
    "taken": ("●", _("Taken")),
    "held": ("⚠", _("Held: whose it is, a person must say")),
    "changed": ("⚠", _("Changed in the old system since it was taken")),
    "refused": ("⚠", _("Refused: it can't be taken as it is")),
    "waiting": ("○", _("Waiting for its patient")),
    "left-out": ("–", _("Left out by a person's decision")),
    "gone": ("–", _("No longer in the old system")),
}
IMPORT_STATES = {"previewed": _("Previewed, nothing taken yet"), "running": _("Under way, or interrupted"),
                 "done": _("Done")}  # fmt: skip
VERBS = {
    "same-as": _("Is this patient"),
    "register": _("Is nobody of these: register"),
    "accept": _("Take what the old system says now"),
    "keep": _("Keep what was taken"),
    "leave-out": _("Leave out"),
    "bring-back": _("Bring back"),
}
FIELDS_SAID = {
    "PatientID": _("Patient ID"), "Issuer": _("Issuer"), "Name": _("Name"), "FamilyName": _("Family name"),
    "GivenName": _("Given name"), "BirthDate": _("Birth date"), "Sex": _("Sex"),
    "AccessionNumber": _("Accession number"), "StudyUID": _("Study Instance UID"),
    "PlacerNumber": _("Number of who ordered"), "FillerNumber": _("Number of who performed"),
    "ProcedureCode": _("Procedure code"), "ProcedureText": _("Procedure"), "Modality": _("Modality"),
    "PerformedAt": _("Performed"), "Status": _("State"), "Priority": _("Priority"),
    "ReferringPhysician": _("Referring physician"), "ClinicalInformation": _("Clinical information"),
    "Text": _("Text"), "File": _("File"), "Content": _("Document"), "WrittenAt": _("Written"), "Author": _("Author"),
    "Title": _("Title"),
}  # fmt: skip
LINKS = {
    "exams": _("exams"),
    "reports": _("reports"),
    "reports without a study": _("reports without a study"),
    "reports whose study is another patient's": _("reports whose study is another patient's"),
    "exams without images": _("exams without images"),
    "exams without a report": _("exams without a report"),
    "studies without an exam": _("studies without an exam"),
    "documents in the archive": _("documents in the archive"),
    "documents that came with their study": _("documents that came with their study"),
    "documents that wait for their study": _("documents that wait for their study"),
    "documents that the archive could not take": _("documents that the archive could not take"),
}


@pages.get("/migrations/records")
@requires("migration.read")
def index() -> Any:
    """All old systems whose records were looked at."""
    with current_app.extensions["zambezi"].sessions.begin() as session:
        found = session.scalars(select(LegacyImport).order_by(LegacyImport.name)).all()
        shown = [(one, importing.states(session, one)) for one in found]
    return render_template("records_all.html", imports=shown, **_words())


@pages.get("/migrations/records/<name>")
@requires("migration.read")
def show(name: str) -> Any:
    """One import: rows by state, links, and the rows of a state."""
    state, kind = request.args.get("state", ""), request.args.get("kind", "")
    after = request.args.get("after", 0, type=int)
    with current_app.extensions["zambezi"].sessions.begin() as session:
        imported = _import(session, name)
        counts = importing.states(session, imported)
        links = reconciling.counts(session, name)
        query = select(LegacyRow).where(LegacyRow.import_id == imported.id, LegacyRow.id > after)
        query = query.where(LegacyRow.state == state if state in STATES else LegacyRow.state.in_(importing.OPEN))
        query = query.where(LegacyRow.kind == kind) if kind in KINDS else query
        rows = session.scalars(query.order_by(LegacyRow.id).limit(ROWS + 1)).all()
    return render_template(
        "records.html", imported=imported, counts=counts, links=links, rows=rows[:ROWS], state=state, kind=kind,
        more=rows[ROWS - 1].id if len(rows) > ROWS else 0, **_words(),
    )  # fmt: skip


@pages.get("/migrations/records/<name>/preview")
@requires("migration.read")
def preview(name: str) -> Any:
    """What would come of sample rows: each field as it stands there, and what it becomes."""
    with current_app.extensions["zambezi"].sessions.begin() as session:
        imported = _import(session, name)
    return render_template("records_preview.html", imported=imported, **_words())


@pages.get("/migrations/records/<name>/rows/<int:row_id>")
@requires("migration.read")
def row(name: str, row_id: int) -> Any:
    """One row: what stood there, what it means, who may be meant, what can be decided."""
    return _row_page(name, row_id, "")


@pages.post("/migrations/records/<name>/rows/<int:row_id>")
@requires("migration.run")
def decide(name: str, row_id: int) -> Any:
    """Carry a decision out, with the person's name and reason."""
    verb, because = request.form.get("verb", ""), request.form.get("because", "").strip()
    if verb not in VERBS:
        abort(400)
    with current_app.extensions["zambezi"].sessions.begin() as session:
        imported = _import(session, name)
    try:
        deciding.decide(_job(imported), row_id, verb, because, request.form.get("patient", type=int))  # type: ignore[arg-type]  # one of VERBS
    except (CannotDecide, MappingFault) as error:
        return _row_page(name, row_id, str(error)), 409
    return redirect(f"/migrations/records/{name}/rows/{row_id}?said=decided", 303)


def _row_page(name: str, row_id: int, fault: str) -> str:
    with current_app.extensions["zambezi"].sessions.begin() as session:
        imported = _import(session, name)
        found = session.get(LegacyRow, row_id)
        if found is None or found.import_id != imported.id:
            abort(404)
        ids = [one["patient"] for one in found.candidates]
        known = {one.id: one for one in session.scalars(select(Patient).where(Patient.id.in_(ids)))}
        candidates = [(known[one["patient"]], one) for one in found.candidates if one["patient"] in known]
    return render_template(
        "records_row.html", imported=imported, row=found, fields=_fields(imported, found), candidates=candidates,
        allowed=deciding.ALLOWED[found.state] if current_user.may("migration.run") else (), fault=fault, **_words(),
    )  # fmt: skip


def _fields(imported: LegacyImport, found: LegacyRow) -> tuple[evaluating.Shown, ...]:
    """Each field of the row by the mapping as it is now; none where the mapping has lost the section."""
    try:
        job = _job(imported)
    except MappingFault:  # one that an earlier version of this program took
        return ()
    records = job.mapping.of(found.kind)  # type: ignore[arg-type]  # the ledger's kinds are the mapping's
    if records is None:
        return ()
    raw = of_kept(found.place, found.raw)
    return evaluating.meant(found.kind, records, raw, job.zone, job.now()).fields  # type: ignore[arg-type]  # as above


def _job(imported: LegacyImport) -> Job:
    parts = current_app.extensions["zambezi"]
    found = mapping.read(imported.mapping)
    zone = ZoneInfo(found.time_zone) if found.time_zone else parts.settings.site.zone
    return Job(
        parts.sessions, found, imported.mapping, imported.mapping_sha256, Path(imported.folder), zone,
        current_user.login, parts.clock,
    )  # fmt: skip


def _import(session: Session, name: str) -> LegacyImport:
    try:
        return importing.find(session, name)
    except LookupError:
        abort(404)


def _words() -> dict[str, Any]:
    return {"kinds": KIND_WORDS, "states": STATES, "import_states": IMPORT_STATES, "verbs": VERBS, "link_words": LINKS,
            "fields_said": FIELDS_SAID}  # fmt: skip
