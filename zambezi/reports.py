"""Reports: a draft that several people may open, signed versions that never change, addenda as next versions.

A draft is guarded by a counter (`edits`): who saves says which state the text was written upon, and learns
that somebody else saved meanwhile instead of overwriting it. Signing fixes text, PDF and the SOP
Instance UID under which the archive gets it, and puts the message into the outbox, in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from zambezi import audit, clock, outbox
from zambezi.config.settings import Zambezi
from zambezi.database.tables import Order, Report


class ReportRefused(ValueError):
    """What was asked can't be done with this report; the text says why."""


class Conflict(Exception):
    """Somebody else saved or signed the version meanwhile: its `state`, who and when."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"version {report.version} was changed meanwhile")
        self.state = report.state
        self.who = report.author  # a login
        self.signed_by = report.signed_by or ""  # a name
        self.at = report.updated_at


@dataclass(frozen=True)
class Text:
    """The three texts of a report."""

    technique: str = ""
    findings: str = ""
    impression: str = ""


def latest(session: Session, study_uid: str) -> Report | None:
    """The newest version, draft or signed."""
    query = select(Report).where(Report.study_uid == study_uid).order_by(Report.version.desc()).limit(1)
    return session.scalars(query).first()


def begin(
    session: Session, study_uid: str, order_id: int | None, *, author: str, language: str, now: datetime, writer: str
) -> Report:
    """The draft of a study: the one there is, the first, or (after a signed version) an addendum with its text."""
    last = latest(session, study_uid)
    if last is not None and last.state == "draft":
        return last
    draft = Report(
        study_uid=study_uid, order_id=order_id, version=last.version + 1 if last else 1, state="draft", edits=0,
        author=author, language=last.language if last else language,
        technique=last.technique if last else "", findings=last.findings if last else "",
        impression=last.impression if last else "", created_at=clock.text(now), updated_at=clock.text(now),
    )  # fmt: skip
    session.add(draft)
    session.flush()
    if order_id is not None and last is None:  # while an addendum is written, the order has its signed report
        _tell_order(session, order_id, "draft", now)
    audit.append(
        session, writer, "report-saved", now, who=author, study_uid=study_uid, version=draft.version, change="begun"
    )
    return draft


def save(
    session: Session, study_uid: str, version: int, edits: int, text: Text, *, who: str, now: datetime, writer: str
) -> Report:
    """Save the draft that was read at `edits`; Conflict if it is signed, or has been saved since."""
    changed = session.execute(
        update(Report)
        .where(Report.study_uid == study_uid, Report.version == version, Report.state == "draft", Report.edits == edits)
        .values(**asdict(text), edits=Report.edits + 1, author=who, updated_at=clock.text(now))
        .returning(Report.id)
    ).first()
    if changed is None:
        raise _conflict(session, study_uid, version)
    audit.append(session, writer, "report-saved", now, who=who, study_uid=study_uid, version=version, edits=edits + 1)
    return session.get_one(Report, changed.id, populate_existing=True)


def sign(
    session: Session, study_uid: str, version: int, edits: int, *, who: str, name: str, now: datetime,
    settings: Zambezi, make_pdf: Callable[[Report], bytes], writer: str,
) -> Report:  # fmt: skip
    """Sign the draft as it was shown at `edits`: from now on it is final, and on its way to archive and HIS.

    `who` is the login (it stands in the audit trail), `name` what the report says. ReportRefused if
    there is nothing to sign, Conflict as in `save`.
    """
    changed = session.execute(
        update(Report)
        .where(Report.study_uid == study_uid, Report.version == version, Report.state == "draft", Report.edits == edits)
        .values(state="final", signed_by=name[:80], signed_at=clock.text(now), updated_at=clock.text(now))
        .returning(Report.id)
    ).first()
    if changed is None:
        raise _conflict(session, study_uid, version)
    report = session.get_one(Report, changed.id, populate_existing=True)
    if not report.findings.strip() and not report.impression.strip():
        raise ReportRefused("neither findings nor an impression are written")
    report.pdf = make_pdf(report)
    report.pdf_sha256 = hashlib.sha256(report.pdf).hexdigest()
    report.sop_uid = f"2.25.{uuid.uuid4().int}"
    session.flush()
    if report.order_id is not None:
        _tell_order(session, report.order_id, "final", now)
    audit.append(
        session, writer, "report-signed", now, who=who, study_uid=study_uid, sop_uid=report.sop_uid,
        version=version, text_sha256=text_digest(report), pdf_sha256=report.pdf_sha256,
    )  # fmt: skip
    outbox.report_signed(session, report, now, settings, writer)
    return report


def text_digest(report: Report) -> str:
    """SHA-256 of what a signed version says and who signed it when (hex); it is printed on the PDF."""
    said = {
        "study_uid": report.study_uid, "version": report.version, "technique": report.technique,
        "findings": report.findings, "impression": report.impression, "signed_by": report.signed_by,
        "signed_at": report.signed_at,
    }  # fmt: skip
    written = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def unstored(session: Session) -> list[int]:
    """Ids of signed versions whose PDF the archive doesn't have yet, oldest first."""
    query = select(Report.id).where(Report.state == "final", Report.stored_at.is_(None), Report.pdf.is_not(None))
    return list(session.scalars(query.order_by(Report.signed_at)))


def _conflict(session: Session, study_uid: str, version: int) -> Conflict:
    query = select(Report).where(Report.study_uid == study_uid, Report.version == version)
    report = session.scalars(query.execution_options(populate_existing=True)).first()
    if report is None:
        raise ReportRefused(f"there is no version {version} of this report")
    return Conflict(report)


def _tell_order(session: Session, order_id: int, status: str, now: datetime) -> None:
    order = session.get(Order, order_id)
    if order is not None:
        order.report_status, order.updated_at = status, clock.text(now)
