"""Studies: the list, one study with its series and viewers, and what a token shares."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, session
from flask_babel import lazy_gettext as _
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ris_service import exams, old_report_pages
from ris_service.exams import Exam
from ris_service.parts import parts
from ris_service.people import me
from zambezi import identifiers, opening, searching
from zambezi.access import SIGNED_IN, narrowed, requires
from zambezi.access.tokens import Token
from zambezi.database.tables import Delivery, Order, Patient, Report, Study

pages = Blueprint("studies", __name__)
pages.navigation = (  # type: ignore[attr-defined]  # read by ris_service.app
    ("studies.index", _("Studies")),
    ("studies.shared", _("Shared with me")),
)

ROWS_A_PAGE = 100
SEARCH_DEPTH = 20_000
#: Modalities of series that a viewer of pixels can't show (PS3.3 C.7.3.1.1.1).
WITHOUT_PIXELS = ("DOC", "KO", "PR", "SR")


@pages.get("/studies")
@requires("images.view")
@narrowed
def index() -> Any:
    """Studies in the archive, the newest images first."""
    query = request.args.get("q", "")[:100].strip()
    modality = request.args.get("modality", "")[:16]
    page = max(0, request.args.get("page", 0, type=int))
    with parts().sessions.begin() as database:
        keys = _matching(database, query, modality)
        shown = keys[page * ROWS_A_PAGE : (page + 1) * ROWS_A_PAGE]
        rows = _exams(database, shown)
        hidden = len(_matching(database, query, "")) - len(keys) if modality else 0
        modalities = database.scalars(select(Study.modalities).distinct()).all()
        reported = _report_states(database, [uid for uid, _orthanc_id in shown])
    return render_template(
        "studies.html", exams=rows, query=query, modality=modality, total=len(keys), page=page, hidden=hidden,
        more=len(keys) > (page + 1) * ROWS_A_PAGE, reported=reported,
        modalities=sorted({one for joined in modalities for one in joined.split("\\") if one}),
    )  # fmt: skip


@pages.get("/studies/<study_uid>")
@requires("images.view")
@narrowed
def study(study_uid: str) -> Any:
    """One study: series, viewers, report, and whether proven copies exist elsewhere."""
    with parts().sessions.begin() as database:
        found = exams.seen_of_study(database, study_uid)
        if not found:
            abort(404)
        series = exams.series_of(database, found[0].study)
        reports = exams.signed_reports(database, study_uid)
        deliveries = database.scalars(
            select(Delivery).where(Delivery.study_uid == study_uid).order_by(Delivery.created_at)
        ).all()
        report_state = _report_states(database, [study_uid]).get(study_uid, "none")
        leaving = exams.leaving(database, study_uid)
        reads = me().may("report.read") and len(found) == 1
        linked = old_report_pages.of_exam(database, found[0]) if reads else []
    return render_template(
        "study.html", exams=found, exam=found[0], series=series, report_state=report_state,
        reports=reports if me().may("report.read") else [], linked=linked,
        deliveries=deliveries if me().may("delivery.read") else None,
        copies=[d for d in deliveries if d.kind == "dicom" and d.state == "delivered"], **leaving,
    )  # fmt: skip


@pages.get("/images")
@requires(SIGNED_IN)
def images() -> Any:
    """Where the front door sends on to where there is no OHIF: the Orthanc web viewer, a series at a time."""
    study_uid = request.args.get("StudyInstanceUIDs", "")
    with parts().sessions.begin() as database:
        found = exams.seen_of_study(database, study_uid) if me().opens(study_uid) else []
        series = [one for exam in found for one in exams.series_of(database, exam.study)]
    shown = [one for one in series if one.modality not in WITHOUT_PIXELS]
    if not shown:
        abort(404)
    if len(shown) > 1 and me().may("images.view"):
        return redirect(f"/studies/{study_uid}", 303)
    return redirect(f"/web-viewer/app/viewer.html?series={shown[0].orthanc_id}", 303)


@pages.get("/studies/<study_uid>/images")
@requires(SIGNED_IN)
def open_images(study_uid: str) -> Any:
    """The way to the viewers for who sees a part of the site: the token names the study from here on."""
    found = parts()
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    series = request.args.get("series", "")
    with found.sessions.begin() as database:
        seen = exams.seen_of_study(database, study_uid) if token.kind == "session" else []
        may_view = me().may("images.view") or me().may("images.view-own")
        named = {one.orthanc_id for exam in seen for one in exams.series_of(database, exam.study)}
        if not seen or not may_view or (series and series not in named):
            abort(404)
        if not me().opens(study_uid):
            now = found.clock()
            # What is seen by an emergency alone stays open as long as that, and no longer.
            if all(exams.is_in_part(exam) for exam in seen):
                opening.note(database, token, study_uid, now)
            token = opening.named(database, token, int(now.timestamp()))
    session.put(token)  # type: ignore[attr-defined]  # after its commit
    return redirect(
        f"/web-viewer/app/viewer.html?series={series}" if series else f"/viewer?StudyInstanceUIDs={study_uid}", 303
    )


@pages.get("/shared")
@requires("images.view-own")
@narrowed
def shared() -> Any:
    """What is open to who does not see the whole site: the studies of one's own orders, or those that a link names."""
    query = request.args.get("q", "")[:100].strip()
    with parts().sessions.begin() as database:
        if me().kind == "session":
            keys = _matching(database, query, "")[:ROWS_A_PAGE]
            found = _exams(database, keys)
            named = {uid for uid, _orthanc_id in keys}
            found += [e for uid in me().studies if uid not in named for e in exams.seen_of_study(database, uid)]
        else:
            found = [exam for uid in me().studies for exam in exams.of_study(database, uid)]
        reports = (
            {exam.study.study_uid: exams.signed_reports(database, exam.study.study_uid) for exam in found}
            if me().may("report.read")
            else {}
        )
    return render_template("shared.html", exams=found, reports=reports, query=query)


def _matching(database: Session, query: str, modality: str) -> list[tuple[str, str]]:
    rows = select(
        Study.study_uid, Study.orthanc_id, Study.modalities, Study.patient_name, Study.patient_id,
        Study.accession_number, Study.description, Patient.family_name, Patient.given_name, Patient.id,
        Study.sender, Order.station_aet, Order.source, Order.referring_physician,
    ).outerjoin(Order, Order.id == Study.order_id).outerjoin(Patient, Patient.id == Order.patient_key)  # fmt: skip
    rows = rows.order_by(Study.last_at.desc()).limit(SEARCH_DEPTH)
    former = identifiers.former_ids(database) if query else {}
    access, person = parts().settings.access, me()
    return [
        (row.study_uid, row.orthanc_id)
        for row in database.execute(rows)
        if (not modality or modality in row.modalities.split("\\"))
        and (not person.is_narrow or person.sees(opening.part_of_row(access, row)))
        and (query == row.study_uid or searching.matches(query, *row[3:9], *former.get(row.id or 0, ())))
    ]


def _exams(database: Session, keys: list[tuple[str, str]]) -> list[Exam]:
    rows = database.execute(
        select(Study, Order)
        .outerjoin(Order, Order.id == Study.order_id)
        .where(Study.study_uid.in_([uid for uid, _orthanc_id in keys]))
    )
    former = identifiers.former_ids(database)
    found = {
        (study.study_uid, study.orthanc_id): Exam(study, order, former.get(order.patient_key, ()) if order else ())
        for study, order in rows
    }
    return [found[key] for key in keys if key in found]


def _report_states(database: Session, uids: list[str]) -> dict[str, str]:
    """Per study: final once a version is signed, else draft where one was begun."""
    rows = database.execute(
        select(Report.study_uid, Report.state).where(
            Report.study_uid.in_(uids), or_(Report.state == "final", Report.edits > 0)
        )
    )
    states: dict[str, str] = {}
    for uid, state in rows:
        states[uid] = "final" if "final" in (state, states.get(uid)) else "draft"
    return states
