"""Pages of the sources: what each can do and how it fares; and what an inventory found, before a byte moves."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, current_app, render_template
from flask_babel import lazy_gettext as _

from migration import directory, findings
from zambezi.access import requires
from zambezi.database.tables import MigrationProject

pages = Blueprint("migration_sources", __name__, template_folder="templates")

#: Abilities, as migration.probing names those of DICOM; other kinds name their own.
ABILITIES = {
    "C-ECHO as the archive": _("answers the archive's echo"),
    "association as ourselves": _("lets in the migration's own AE title"),
    "C-FIND, study root": _("answers queries, study root"),
    "C-FIND, patient root": _("answers queries, patient root"),
    "relational queries": _("answers relational queries"),
    "answers at once": _("gives all answers at once"),
    "numbers of instances": _("says how many images a study has"),
    "character sets": _("says its character sets"),
    "near-line": _("says what is near-line"),
    "SERIES level": _("names series"),
    "IMAGE level": _("names single images"),
    "names transfer syntaxes": _("says how images are compressed"),
    "C-MOVE, study root": _("offers C-MOVE"),
    "C-GET, study root": _("offers C-GET"),
    "C-MOVE to the archive": _("knows where to move images to"),
    "transfer syntaxes by C-GET": _("sends images as they are compressed (C-GET)"),
    "associations at once": _("takes several associations at once"),
}
KINDS = {"dicom": _("DICOM query and retrieve"), "orthanc": "Orthanc", "dicomweb": "DICOMweb", "folder": _("Folder")}
#: What is odd, and what comes of it.
ODDITIES = {
    "two-patients": (_("one study under several patients"), _("all are brought; look which is right")),
    "undated": (_("no study date"), _("found by the query for everything and by patient")),
    "date-form": (_("a study date that is not written as one"), _("found by the query for everything and by patient")),
    "date-impossible": (_("a study date that no calendar has"), _("found by the query for everything and by patient")),
    "date-old": (_("a study date before 1900"), ""),
    "date-future": (_("a study date in the future"), _("the clock of the modality was wrong, or the date was typed")),
    "untimed": (_("no study time"), ""),
    "no-patient": (_("no patient identifier"), _("whose study it is, a person must say")),
    "patient-wildcard": (_("a patient identifier with * or ?"), _("not found by asking for that patient")),
    "no-accession": (_("no accession number"), _("not linked to an order by itself")),
    "accession-shared": (_("an accession number that several studies have"), _("not linked to an order by itself")),
    "no-modality": (_("no modality named for the study"), ""),
    "claims-nothing": (_("claims to have no image"), _("counted all the same")),
    "not-online": (
        _("near-line or off-line: fetched from slow storage"),
        _("in a lane of their own, with long limits"),
    ),
    "uid-form": (_("a Study Instance UID that is none"), _("longer ones can't be brought over by it")),
}
PASS_STATES = {"asking": _("being asked"), "counting": _("being counted"), "done": _("done")}


@pages.get("/migrations/sources")
@requires("migration.read")
def index() -> Any:
    """All sources, each with its abilities and health."""
    parts = current_app.extensions["zambezi"]
    with parts.reading.begin() as session:
        found = directory.entries(session, parts.settings.migration, parts.settings.site, parts.clock())
    return render_template("migration_sources.html", sources=found, abilities=ABILITIES, kinds=KINDS)


@pages.get("/migrations/<int:project_id>/found")
@requires("migration.read")
def found(project_id: int) -> Any:
    """What the inventory found: years by modality, claims, oddities, doubts, and how often it was taken."""
    parts = current_app.extensions["zambezi"]
    with parts.reading.begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        picture = findings.chart(findings.counted(session, project_id))
        surveys = directory.surveys(session, project_id)
    return render_template(
        "migration_found.html", project=project, coverage=project.coverage, chart=picture, surveys=surveys,
        oddities=ODDITIES, survey_states=PASS_STATES, width=findings.WIDTH, height=findings.HEIGHT,
    )  # fmt: skip
