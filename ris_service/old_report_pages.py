"""Reports of old systems: shown as theirs, with source, date and author; read, never changed or signed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, render_template
from flask_babel import lazy_gettext as _
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ris_service import exams
from ris_service.exams import Exam
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import audit, identifiers, legacy, legacy_documents, opening
from zambezi.access import narrowed, requires
from zambezi.database.tables import LegacyReport, Order, Patient, Study
from zambezi.legacy import Linked

pages = Blueprint("old_reports", __name__)

#: What a browser is handed as a file, by its ending; a PDF it shows itself.
ENDINGS = {
    legacy_documents.PDF: "pdf", legacy_documents.RTF: "rtf", legacy_documents.DICOM: "dcm",
    legacy_documents.TEXT: "txt",
}  # fmt: skip
#: What became of the file, where it is to be in the archive, too.
ARCHIVE_WORDS = {
    "due": _("its file waits for the images of its study"),
    "stored": _("its file is there, read back and equal"),
    "there": _("its file came with its study"),
    "refused": _("its file could not be put there"),
}
#: Earlier reports of a patient that are listed beside a study.
LISTED = 20


@pages.get("/old-reports/<int:report_id>")
@requires("report.read")
@narrowed
def show(report_id: int) -> Any:
    """One report: whose, by whom, when, its words, its file, earlier versions."""
    with parts().sessions.begin() as database:
        report, exam, order = _seen(database, report_id)
        patient = _patient(database, report)
        versions = database.scalars(
            select(LegacyReport)
            .where(LegacyReport.source == report.source, LegacyReport.source_key == report.source_key)
            .order_by(LegacyReport.version.desc())
        ).all()
        _note_read(database, report)
    return render_template(
        "old_report.html", report=report, exam=exam, order=order, patient=patient, versions=versions,
        is_pdf=_pdf(report) is not None, ending=ENDINGS.get(report.media, "bin"), shown_name=exams.shown_name,
        archive_words=ARCHIVE_WORDS,
    )  # fmt: skip


@pages.get("/old-reports/<int:report_id>/document")
@requires("report.read")
@narrowed
def document(report_id: int) -> Any:
    """Its file, byte for byte; of an encapsulated PDF the PDF, for the browser to show."""
    with parts().sessions.begin() as database:
        report, _exam, _order = _seen(database, report_id)
        if report.document is None:
            abort(404)
        _note_read(database, report)
    shown = _pdf(report)
    answer = Response(shown or report.document, mimetype=legacy_documents.PDF if shown else "application/octet-stream")
    ending = "pdf" if shown else ENDINGS.get(report.media, "bin")
    how = "inline" if shown else "attachment"
    answer.headers.set("Content-Disposition", how, filename=f"old-report-{report.id}.{ending}")
    return answer


def of_exam(database: Session, exam: Exam) -> list[Linked]:
    """The old systems' reports of this study."""
    return legacy.reports_of(database, exam.study, exam.order)


def earlier(database: Session, exam: Exam, shown: list[Linked]) -> list[LegacyReport]:
    """The same patient's other old reports that this person may see, the newest first."""
    whose = exam.order.patient if exam.order else _patient_of_images(database, exam.study)
    if whose is None:
        return []
    survivor = identifiers.survivor_of(database, whose)
    keys = [survivor.id, *(one.id for one in identifiers.former(database, [survivor.id]).get(survivor.id, []))]
    here = [one.report.id for one in shown]
    found = database.scalars(
        select(LegacyReport)
        .where(LegacyReport.patient_key.in_(keys), LegacyReport.is_latest, LegacyReport.id.not_in(here))
        .order_by(LegacyReport.written_at.desc(), LegacyReport.id.desc()).limit(LISTED)
    ).all()  # fmt: skip
    return [report for report in found if _visible(database, report)[0]]


def _seen(database: Session, report_id: int) -> tuple[LegacyReport, Exam | None, Order | None]:
    """The report with its study and order, if this person may see it; else 404."""
    report = database.get(LegacyReport, report_id) or abort(404)
    is_visible, exam, order = _visible(database, report)
    if not is_visible:
        abort(404)
    return report, exam, order


def _visible(database: Session, report: LegacyReport) -> tuple[bool, Exam | None, Order | None]:
    """Whoever sees the whole site sees it; others where its study or its order lies in their part."""
    order = database.get(Order, report.order_id) if report.order_id is not None else None
    keys = [Study.study_uid == (report.study_uid or "-")]
    if order is not None:
        keys.append(Study.order_id == order.id)
    uids = database.scalars(select(Study.study_uid).where(or_(*keys), Study.instances > 0).distinct()).all()
    for uid in uids:
        for exam in exams.seen_of_study(database, uid):
            if any(one.report.id == report.id for one in of_exam(database, exam)):
                return True, exam, order
    if order is not None and me().sees(opening.part_of_order(parts().settings.access, order)):
        return True, None, order
    return not me().is_narrow, None, order


def _patient(database: Session, report: LegacyReport) -> Patient | None:
    found = database.get(Patient, report.patient_key) if report.patient_key is not None else None
    return identifiers.survivor_of(database, found) if found else None


def _patient_of_images(database: Session, study: Study) -> Patient | None:
    """Who the images' patient ID is, where it is one patient's alone: issuers give the same numbers out."""
    found = database.scalars(select(Patient).where(Patient.patient_id == study.patient_id).limit(2)).all()
    return found[0] if study.patient_id and len(found) == 1 else None


def _pdf(report: LegacyReport) -> bytes | None:
    if report.document is None:
        return None
    if report.media == legacy_documents.PDF:
        return report.document
    return legacy_documents.inner_pdf(report.document) if report.media == legacy_documents.DICOM else None


def _note_read(database: Session, report: LegacyReport) -> None:
    audit.append(
        database, CHAIN, "report-read", parts().clock(), who=me().login, study_uid=report.study_uid,
        version=report.version, old_report=report.id, source=report.source,
    )  # fmt: skip
