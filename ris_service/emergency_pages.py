"""In an emergency: a person who sees a part of the site opens a study outside of it, with a reason, for a while."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, render_template, request, session
from flask_babel import lazy_gettext as _
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from ris_service import exams
from ris_service.exams import Exam
from ris_service.languages import gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import opening
from zambezi.access import narrowed, requires
from zambezi.access.tokens import Token
from zambezi.database.tables import Order, Patient, Study

pages = Blueprint("emergency", __name__)
#: Shown to those alone who do not see the whole site (ris_service.app).
pages.navigation = (("emergency.index", _("Emergency")),)  # type: ignore[attr-defined]  # read by ris_service.app
pages.navigation_of_narrow = True  # type: ignore[attr-defined]  # read by ris_service.app

#: One patient's studies, the newest.
MOST = 20


@pages.get("/emergency")
@requires("images.emergency")
@narrowed
def index() -> Any:
    """The form: whose images, and why."""
    return _page()


@pages.post("/emergency")
@requires("images.emergency")
@narrowed
def open_studies() -> Any:
    """Open the studies of exactly this patient ID or accession number; audited, and judged by another person later."""
    found = parts()
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    number, reason = request.form.get("number", "").strip()[:64], request.form.get("reason", "")
    if not number or token.kind != "session":
        return _page(gettext("Type the patient ID or the accession number.")), 400
    if not opening.says_enough(
        reason
    ):  # asked first: whether there are images of somebody is told to nobody without it
        return _page(gettext("Say why, in a sentence that another person can judge.")), 400
    now = found.clock()
    opened: list[Exam] = []
    with found.sessions.begin() as database:
        for exam in _numbered(database, number):
            if not exams.is_visible(database, exam):
                opening.break_glass(
                    database, token, me().role, exam.study.study_uid, reason, found.settings.access, now, CHAIN,
                    request.remote_addr or "",
                )  # fmt: skip
            opened.append(exam)
        token = opening.named(database, token, int(now.timestamp()))
    if not opened:
        return _page(gettext("No images have exactly this number.")), 404
    session.put(token)  # type: ignore[attr-defined]  # after its commit
    return _page(opened=opened)


def _page(fault: str = "", opened: list[Exam] | None = None) -> str:
    minutes = round(parts().settings.access.emergency_minutes)
    return render_template(
        "emergency.html",
        fault=fault,
        opened=opened,
        minutes=minutes,
        form=request.form,
        shortest=opening.SHORTEST_REASON,
    )


def _numbered(database: Session, number: str) -> list[Exam]:
    rows = database.execute(
        select(Study, Order)
        .outerjoin(Order, Order.id == Study.order_id)
        .outerjoin(Patient, Patient.id == Order.patient_key)
        .where(
            or_(
                Study.patient_id == number, Study.accession_number == number, Patient.patient_id == number,
                Order.accession_number == number,
            ),
            Study.instances > 0,
        )
        .order_by(Study.last_at.desc())
        .limit(MOST)
    )  # fmt: skip
    return [Exam(study, order) for study, order in rows]
