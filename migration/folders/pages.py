"""The page of a folder that is migrated: how far the walk is, what lies there, what becomes of it.

It shows no places: names of files are often names of patients. `zambezi migrate files` has them.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, current_app, render_template, request, url_for
from flask_babel import lazy_gettext as _
from sqlalchemy import select

from migration.folders import listing, summary
from zambezi.access import requires
from zambezi.database.tables import FolderFile

pages = Blueprint("folders", __name__, template_folder="templates")

#: Files on one page.
ROWS = 100

KINDS = {
    "dicom": _("DICOM image or document"),
    "no-identity": _("DICOM without a study, series or instance"),
    "dicomdir": _("DICOMDIR"),
    "archive": _("ZIP archive"),
    "packed": _("packed, not looked into"),
    "unread": _("could not be read"),
    "changing": _("changed while it was read"),
    "absent": _("named by a DICOMDIR, not there"),
    "link": _("symbolic link, not followed"),
    "special": _("device, pipe or socket"),
    "other": _("no DICOM"),
}
VERDICTS = {
    "migrate": _("brought over"),
    "copy": _("copy of another file"),
    "conflict": _("conflict: in the hold"),
    "held": _("in the hold"),
    "listed": _("listed only"),
    "gone": _("not there any more"),
}

#: What stands behind the number of files (migration.folders.summary).
DOUBTS = {
    "unread": _("files could not be read"),
    "changing": _("files changed while they were read"),
    "packed": _("files are archives that were not looked into"),
    "link": _("symbolic links were not followed"),
    "conflict": _("files have another's SOP Instance UID and other content: in the hold"),
    "no-identity": _("DICOM files name no study, series or instance: in the hold"),
    "promising": _("files are called DICOM by their names, and are none"),
    "absent": _("files are named by a DICOMDIR, but are not there"),
    "unnamed": _("DICOM files lie beside a DICOMDIR that does not name them (they are brought)"),
    "unclear": _("DICOMDIR can't be compared with what lies beside them"),
}


@pages.get("/migrations/folders/<source>")
@requires("migration.read")
def show(source: str) -> Any:
    """One folder."""
    _known(source) or abort(404)
    wanted = listing.Selection(
        _chosen("kind", KINDS), _chosen("verdict", VERDICTS), request.args.get("kind") == "unread-all"
    )
    after = request.args.get("after", 0, type=int)
    with current_app.extensions["zambezi"].reading() as session:
        found, walk = summary.counts(session, source), summary.walk(session, source)
        query = select(FolderFile).where(*wanted.conditions(source), FolderFile.id > after).order_by(FolderFile.id)
        rows = session.scalars(query.limit(ROWS + 1)).all()
        doubts = summary.doubtful(session, source, [one for one in found if one["verdict"] != "gone"])
    return render_template(
        "folder.html", source=source, walk=walk, groups=_groups(found), doubts=doubts, rows=rows[:ROWS], wanted=wanted,
        more=rows[ROWS - 1].id if len(rows) > ROWS else 0, kinds=KINDS, verdicts=VERDICTS,
        doubt_words=DOUBTS,
    )  # fmt: skip


@pages.app_template_global("folder_page")
def folder_page(source: str) -> str:
    """Where the page of a migration's source is, if it is a folder; else ""."""
    return url_for("folders.show", source=source) if _known(source) else ""


def _known(source: str) -> bool:
    settings = current_app.extensions["zambezi"].settings.migration.sources.get(source)
    return settings is not None and settings.kind == "folder"


def _chosen(name: str, known: dict[str, Any]) -> str:
    value = request.args.get(name, "")
    return value if value in known else ""


def _groups(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts by kind and verdict, in their order, each with the endings of names that are met most."""
    groups = []
    for kind in listing.KINDS:
        for verdict in listing.VERDICTS:
            these = [one for one in found if (one["kind"], one["verdict"]) == (kind, verdict)]
            if these:
                groups.append(
                    {
                        "kind": kind, "verdict": verdict, "files": sum(one["files"] for one in these),
                        "bytes": sum(one["bytes"] for one in these),
                        "endings": [(one["extension"], one["files"]) for one in these[:6]],
                    }
                )  # fmt: skip
    return groups
