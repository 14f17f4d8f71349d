"""Writing, signing and reading a report."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, jsonify, redirect, render_template, request
from flask_babel import force_locale
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as AnyResponse

from ris_service import exams, languages, old_report_pages, report_pdf, words
from ris_service.exams import Exam, person_name
from ris_service.languages import gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import audit, reports, users
from zambezi.access import narrowed, requires
from zambezi.database.tables import Report
from zambezi.reports import Conflict, ReportRefused, Text

pages = Blueprint("reports", __name__)

#: A long report has ten thousand characters; this is a guard, not a wish.
LONGEST_TEXT = 100_000


@pages.get("/studies/<study_uid>/report")
@requires("report.read")
@narrowed
def show(study_uid: str) -> Any:
    """The signed report for those who read; for those who write, the draft as well."""
    with parts().sessions.begin() as database:
        exam = exams.one(database, study_uid)
        latest = reports.latest(database, study_uid)
        signed = exams.signed_reports(database, study_uid)
        draft = latest if latest and latest.state == "draft" and me().may("report.write") else None
        priors = exams.priors(database, exam) if me().may("images.view") else []
        prior = next((one for one in priors if one[0].study.study_uid == request.args.get("prior")), None)
        names = _names(database, [draft.author] if draft else [])
        leaving = exams.leaving(database, study_uid)
        linked = old_report_pages.of_exam(database, exam)
        earlier = old_report_pages.earlier(database, exam, linked)
        if signed:
            _note_read(database, signed[0])
        if prior:
            _note_read(database, prior[1])
    writes = me().may("report.write") and (draft is not None or latest is None)
    return render_template(
        "report.html", exam=exam, draft=draft, writes=writes, signed=signed, priors=priors, prior=prior, names=names,
        may_write=me().may("report.write"), may_sign=me().may("report.sign"), linked=linked, earlier_ones=earlier,
        **leaving,
    )  # fmt: skip


@pages.post("/studies/<study_uid>/report")
@requires("report.write")
@narrowed
def begin(study_uid: str) -> Any:
    """Begin the draft, or the next version after a signed one."""
    with parts().sessions.begin() as database:
        exam = exams.one(database, study_uid)
        before = reports.latest(database, study_uid)
        draft = _begin(database, exam)
        is_new = before is not None and before.version != draft.version
    return redirect(f"/studies/{study_uid}/report" + ("?said=addendum" if is_new else ""), 303)


@pages.post("/studies/<study_uid>/report/draft")
@requires("report.write")
@narrowed
def save(study_uid: str) -> Any:
    """Save the draft: by the button, by Ctrl+S, or by itself every 15 s (then JSON is wanted)."""
    wants_json = request.accept_mimetypes.best == "application/json"
    try:
        with parts().sessions.begin() as database:
            exam = exams.one(database, study_uid)
            draft = _save(database, exam)
    except Conflict as conflict:
        return _conflict(study_uid, conflict, wants_json)
    except ReportRefused:
        abort(409)
    if wants_json:
        told = gettext("Saved at %(time)s", time=languages.moment(draft.updated_at, "time"))
        return jsonify(edits=draft.edits, message=told)
    if request.form.get("then") == "sign" and me().may("report.sign"):
        return redirect(f"/studies/{study_uid}/report/sign", 303)
    return redirect(f"/studies/{study_uid}/report?said=saved", 303)


@pages.get("/studies/<study_uid>/report/sign")
@requires("report.sign")
@narrowed
def confirm(study_uid: str) -> Any:
    """The report once more as it will stand, before it is signed."""
    with parts().sessions.begin() as database:
        exam = exams.one(database, study_uid)
        draft = reports.latest(database, study_uid)
    if draft is None or draft.state != "draft":
        return redirect(f"/studies/{study_uid}/report", 303)
    return render_template("report_sign.html", exam=exam, draft=draft, is_empty=_is_empty(draft))


@pages.post("/studies/<study_uid>/report/sign")
@requires("report.sign")
@narrowed
def sign(study_uid: str) -> Any:
    """Sign what the confirmation page showed; nothing else."""
    found = parts()
    person = me()
    try:
        with found.sessions.begin() as database:
            exam = exams.one(database, study_uid)
            reports.sign(
                database, study_uid, _number("version"), _number("edits"), who=person.login, name=person.name,
                now=found.clock(), settings=found.settings, make_pdf=lambda report: pdf_of(exam, report), writer=CHAIN,
            )  # fmt: skip
    except Conflict as conflict:
        return _conflict(study_uid, conflict, wants_json=False)
    except ReportRefused:
        abort(409)
    return redirect(f"/studies/{study_uid}/report?said=signed", 303)


@pages.get("/studies/<study_uid>/report/<int:version>.pdf")
@requires("report.read")
@narrowed
def pdf(study_uid: str, version: int) -> AnyResponse:
    """A signed version as PDF, byte for byte what was signed."""
    with parts().sessions.begin() as database:
        exam = exams.one(database, study_uid)
        signed = [one for one in exams.signed_reports(database, study_uid) if one.version == version]
        if not signed or signed[0].pdf is None:
            abort(404)
        _note_read(database, signed[0])
    name = f"{exam.accession_number or 'report'}-{version}.pdf".replace('"', "").replace("/", "-")
    answer = Response(signed[0].pdf, mimetype="application/pdf")
    answer.headers.set("Content-Disposition", "inline", filename=name)
    return answer


def pdf_of(exam: Exam, report: Report) -> bytes:
    """The PDF of a version that is being signed, in the report's language."""
    found = parts()
    with force_locale(languages.LOCALES[report.language]):
        sheet = report_pdf.Sheet(
            language=report.language, site=found.settings.site.name, version=report.version,
            patient_name=exam.patient_name, patient_id=exam.patient_id, born=languages.day(exam.birth_date),
            sex=words.of(words.SEX, exam.sex), exam=f"{exam.modalities} {exam.description}".strip(),
            exam_date=languages.day(exam.study.study_date) or languages.moment(exam.study.first_at, "day"),
            accession_number=exam.accession_number,
            referrer=person_name(exam.order.referring_physician) if exam.order else "",
            technique=report.technique, findings=report.findings, impression=report.impression,
            signed_by=report.signed_by or "", signed_at=languages.moment(report.signed_at, "long"),
            digest=reports.text_digest(report),
        )  # fmt: skip
    return report_pdf.build(sheet)


def _begin(database: Session, exam: Exam) -> Report:
    return reports.begin(
        database, exam.study.study_uid, exam.study.order_id, author=me().login, language=languages.language(),
        now=parts().clock(), writer=CHAIN,
    )  # fmt: skip


def _save(database: Session, exam: Exam) -> Report:
    text = Text(*(request.form.get(name, "").replace("\r\n", "\n") for name in ("technique", "findings", "impression")))
    if any(len(one) > LONGEST_TEXT for one in (text.technique, text.findings, text.impression)):
        abort(413)
    uid, version, edits = exam.study.study_uid, _number("version"), _number("edits")
    if version == 1 and edits == 0 and reports.latest(database, uid) is None:
        _begin(database, exam)
    return reports.save(database, uid, version, edits, text, who=me().login, now=parts().clock(), writer=CHAIN)


def _conflict(study_uid: str, conflict: Conflict, wants_json: bool) -> Any:
    """Say who was faster, and show what was typed, so that nothing of it is lost."""
    with parts().sessions.begin() as database:
        who = _names(database, [conflict.who]).get(conflict.who, conflict.who)
    if conflict.state == "final":
        told = gettext("%(name)s has signed this report meanwhile. Your text was not saved.", name=conflict.signed_by)
    else:
        told = gettext(
            "%(name)s saved this report at %(time)s. Your text was not saved: copy it, load the page again, "
            "and put both together.",
            name=who,
            time=languages.moment(conflict.at, "time"),
        )
    if wants_json:
        return jsonify(message=told), 409
    return render_template("report_conflict.html", told=told, study_uid=study_uid, form=request.form), 409


def _note_read(database: Session, report: Report) -> None:
    audit.append(
        database, CHAIN, "report-read", parts().clock(), who=me().login, study_uid=report.study_uid,
        version=report.version,
    )  # fmt: skip


def _names(database: Session, logins: list[str]) -> dict[str, str]:
    found = (users.find(database, login) for login in logins)
    return {user.login: user.name for user in found if user}


def _number(name: str) -> int:
    return request.form.get(name, -1, type=int)


def _is_empty(draft: Report) -> bool:
    return not draft.findings.strip() and not draft.impression.strip()
