"""The worklist, an order's page with the buttons of the exam, and the form for an order by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select
from sqlalchemy.orm import Session

from ris_service.exams import shown_name
from ris_service.languages import gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import clock, identifiers, legacy, opening, orders, searching
from zambezi.access import narrowed, requires
from zambezi.access.scope import part_of
from zambezi.database.tables import Delivery, Order, Patient, Study

pages = Blueprint("worklist", __name__)
pages.navigation = (("worklist.index", _("Worklist")),)  # type: ignore[attr-defined]  # read by ris_service.app

ROWS_A_PAGE = 100
#: How many orders a search by words looks through, newest first.
SEARCH_DEPTH = 20_000

DAYS = {"today": _("Today"), "tomorrow": _("Tomorrow"), "week": _("Last 7 days"), "all": _("All days")}
MODALITIES = ("CR", "CT", "DX", "MG", "MR", "NM", "PX", "RF", "US", "XA")
REASONS = (
    _("Patient did not come"),
    _("Wrong indication"),
    _("Ordered twice"),
    _("No or wrong preparation"),
    _("Equipment failure"),
    _("Consent missing"),
    _("Pregnancy"),
)

#: Among the states to filter by: images are there, a signed report is not.
UNREPORTED = "unreported"

#: What may be done by hand in each state: (next state, words on the button).
BUTTONS: dict[str, tuple[tuple[str, Any], ...]] = {
    "scheduled": (("arrived", _("Patient has arrived")), ("in-progress", _("Exam begins"))),
    "arrived": (("in-progress", _("Exam begins")), ("scheduled", _("Not arrived after all"))),
    "in-progress": (("completed", _("Exam is completed")), ("discontinued", _("Exam was broken off"))),
    "discontinued": (("in-progress", _("Exam goes on")), ("scheduled", _("Schedule again"))),
    "completed": (),
    "cancelled": (),
}


@dataclass(frozen=True)
class Filters:
    """What the worklist is asked for; unknown values count as none."""

    day: str = "today"
    modality: str = ""
    state: str = ""
    query: str = ""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Filters:
        day, state = given.get("day", "today"), given.get("state", "")
        return cls(
            day if day in DAYS else "today",
            given.get("modality", "")[:16],
            state if state in orders.TRANSITIONS or state == UNREPORTED else "",
            given.get("q", "")[:100].strip(),
        )

    @property
    def narrows(self) -> bool:
        """Whether something might be hidden that the person looks for."""
        return bool(self.query or self.modality or self.state)


@pages.get("/")
@requires("worklist.read")
@narrowed
def index() -> Any:
    """Orders by urgency, then oldest first."""
    found = parts()
    filters = Filters.read(request.args)
    page = max(0, request.args.get("page", 0, type=int))
    with found.sessions.begin() as database:
        ids = _matching(database, filters, found.clock())
        shown = ids[page * ROWS_A_PAGE : (page + 1) * ROWS_A_PAGE]
        rows = {order.id: order for order in database.scalars(select(Order).where(Order.id.in_(shown)))}
        images = _images(database, shown)
        former = identifiers.former_ids(database)
        hidden = 0
        if filters.narrows or not ids:
            hidden = len(_matching(database, Filters(day="all", query=filters.query), found.clock())) - len(ids)
        present = database.scalars(select(Order.modality).where(Order.modality != "").distinct()).all()
    return render_template(
        "worklist.html", orders=[rows[found_id] for found_id in shown], images=images, filters=filters, hidden=hidden,
        total=len(ids), page=page, more=len(ids) > (page + 1) * ROWS_A_PAGE, days=DAYS, modalities=sorted(present),
        former=former, states=orders.TRANSITIONS, shown_name=shown_name, may_write=me().may("order.write"),
    )  # fmt: skip


@pages.get("/orders/<int:order_id>")
@requires("worklist.read")
@narrowed
def order(order_id: int) -> Any:
    """One order: patient, exam, images, deliveries, and what can be done now."""
    with parts().sessions.begin() as database:
        found = _seen(database, order_id)
        studies = database.scalars(select(Study).where(Study.order_id == order_id).order_by(Study.first_at)).all()
        deliveries = database.scalars(
            select(Delivery).where(Delivery.study_uid == found.study_uid).order_by(Delivery.created_at)
        ).all()
        former = identifiers.former(database, [found.patient_key]).get(found.patient_key, [])
        linked = legacy.reports_of(database, None, found) if me().may("report.read") else []
    buttons = BUTTONS[found.status] if me().may("order.write") else ()
    return render_template(
        "order.html", order=found, former=former, studies=studies, buttons=buttons, reasons=REASONS,
        shown_name=shown_name, linked=linked,
        may_cancel=me().may("order.write") and found.status in ("scheduled", "arrived"),
        deliveries=deliveries if me().may("delivery.read") else [],
    )  # fmt: skip


@pages.post("/orders/<int:order_id>/state")
@requires("order.write")
@narrowed
def change_state(order_id: int) -> Any:
    """The exam goes on to its next state, by hand."""
    return _change(order_id, request.form.get("state", ""), "", "state")


@pages.post("/orders/<int:order_id>/cancel")
@requires("order.write")
@narrowed
def cancel(order_id: int) -> Any:
    """Cancel an order whose exam has not begun; a reason is needed."""
    reason = request.form.get("reason", "").strip()[:200]
    if not reason:
        abort(400)
    return _change(order_id, "cancelled", reason, "cancelled")


@dataclass
class Form:
    """The order form as it was filled in, and what is wrong with it."""

    values: Mapping[str, str]
    patient: Patient | None = None
    similar: list[Patient] = field(default_factory=list)
    fault: str = ""

    def value(self, name: str) -> str:
        return self.values.get(name, "").strip()


@pages.get("/orders/new")
@requires("order.write")
@narrowed
def new() -> Any:
    """An order by hand: on paper, by telephone, or with the HIS away. `patient_id` looks a patient up."""
    form = Form(request.args)
    with parts().sessions.begin() as database:
        form.patient = orders.find_patient(database, form.value("patient_id"), parts().settings.site.issuer)
    return _form(form)


@pages.post("/orders")
@requires("order.write")
@narrowed
def place() -> Any:
    """Place the order; a patient who may be registered already under another ID is asked about first."""
    found = parts()
    form = Form(request.form)
    site = found.settings.site
    at = _site_time(form.value("scheduled_at"))
    with found.sessions.begin() as database:
        form.patient = orders.find_patient(database, form.value("patient_id"), site.issuer)
        form.fault = _fault(form, at)
        if not form.fault and form.patient is None and not form.value("is_another"):
            form.similar = _similar(database, form)
        if not form.fault and not form.similar and at:
            try:
                placed = _place(database, form, at)
            except orders.OrderRefused:
                form.fault = gettext("The order can't be placed like this. Check the patient's ID and name.")
                database.rollback()
    if form.fault or form.similar:
        return _form(form), 400
    return redirect(f"/orders/{placed.id}?said=placed", 303)


def _place(database: Session, form: Form, at: datetime) -> Order:
    found = parts()
    patient = form.patient or orders.register_patient(
        database, patient_id=form.value("patient_id"), issuer=found.settings.site.issuer,
        family_name=form.value("family_name"), given_name=form.value("given_name"),
        birth_date=form.value("birth_date").replace("-", "") or None, sex=form.value("sex") or None,
        now=found.clock(), writer=CHAIN, who=me().login,
    )  # fmt: skip
    wanted = orders.NewOrder(
        scheduled_at=at, modality=form.value("modality"), procedure_text=form.value("procedure_text"),
        station_aet=form.value("station_aet"), priority=form.value("priority") or "ROUTINE",
        clinical_information=form.value("clinical_information"), referring_physician=form.value("referring_physician"),
    )  # fmt: skip
    return orders.place_order(
        database, patient, wanted, now=found.clock(), site=found.settings.site, writer=CHAIN, who=me().login
    )


def _fault(form: Form, at: datetime | None) -> str:
    """What keeps the order from being placed, in words."""
    if not form.value("patient_id"):
        return gettext("The patient's ID is missing. Without one no image finds its patient.")
    if form.patient is None and not form.value("family_name"):
        return gettext("The patient's family name is missing.")
    if form.patient is not None and form.value("family_name"):
        typed = searching.folded(f"{form.value('family_name')} {form.value('given_name')}").split()
        known = searching.folded(f"{form.patient.family_name} {form.patient.given_name}").split()
        if set(typed) - set(known):
            return gettext("This ID belongs to another name. Check the ID, or take the patient that it belongs to.")
    born = form.value("birth_date")
    if born and (_date(born) is None or _date(born) > parts().clock().replace(tzinfo=None)):  # type: ignore[operator]
        return gettext("The birth date is no day that has been.")
    if form.value("modality") not in modalities():
        return gettext("Choose the modality.")
    if not form.value("procedure_text"):
        return gettext("Say which exam is wanted.")
    if at is None:
        return gettext("Say when the exam is to be.")
    wanted = part_of(
        opening.sites_of(parts().settings.access), aets=(form.value("station_aet"),), source=None,
        modalities=form.value("modality"), referrer=form.value("referring_physician"),
    )  # fmt: skip
    if not me().sees(wanted):
        return gettext("This order lies outside of your part of the site. Choose one of your stations and modalities.")
    return ""


def _similar(database: Session, form: Form) -> list[Patient]:
    wanted = (form.value("family_name"), form.value("given_name"), form.value("birth_date").replace("-", "") or None)
    columns = select(Patient.id, Patient.family_name, Patient.given_name, Patient.birth_date)
    columns = columns.where(Patient.merged_into.is_(None))
    ids = [row.id for row in database.execute(columns) if searching.same_person(wanted, (row[1], row[2], row[3]))]
    return list(database.scalars(select(Patient).where(Patient.id.in_(ids[:10]))))


def _form(form: Form) -> str:
    zone = parts().settings.site.zone
    soon = parts().clock().astimezone(zone).replace(second=0, microsecond=0)
    return render_template(
        "order_new.html", form=form, modalities=modalities(), soon=f"{soon:%Y-%m-%dT%H:%M}", shown_name=shown_name,
        stations=sorted(parts().settings.worklist.stations),
    )  # fmt: skip


def modalities() -> list[str]:
    """Every modality that an exam may be of: the usual ones, and those of the configured stations."""
    configured = {m for station in parts().settings.worklist.stations.values() for m in station.modality}
    return sorted(configured | set(MODALITIES))


def _change(order_id: int, state: str, reason: str, said: str) -> Any:
    with parts().sessions.begin() as database:
        found = _seen(database, order_id)
        allowed = {to for to, _label in BUTTONS[found.status]} | ({"cancelled"} if reason else set())
        if state not in allowed:
            abort(409)
        try:
            orders.set_status(database, found, state, now=parts().clock(), writer=CHAIN, who=me().login, reason=reason)
        except orders.OrderRefused:
            abort(409)
    return redirect(f"/orders/{order_id}?said={said}", 303)


def _matching(database: Session, filters: Filters, now: datetime) -> list[int]:
    """Ids of the orders, by urgency and then oldest first (over all days: newest first)."""
    # A completed exam is over when its report is signed, not before.
    is_over = or_(
        Order.status.in_(("cancelled", "discontinued")),
        and_(Order.status == "completed", Order.report_status == "final"),
    )
    urgency = case((is_over, 3), (Order.priority == "STAT", 0), (Order.priority == "HIGH", 1), else_=2)
    wanted: list[ColumnElement[bool]] = []
    span = _span(filters.day, now)
    if span:
        wanted += [Order.scheduled_at >= clock.text(span[0]), Order.scheduled_at < clock.text(span[1])]
    if filters.modality:
        wanted.append(Order.modality == filters.modality)
    if filters.state == UNREPORTED:
        # What an old system left unreported is listed by `zambezi migrate records orphans`: nobody reads it today.
        wanted += [
            ~Order.source.startswith(legacy.MARK), Order.report_status != "final",
            exists().where(Study.order_id == Order.id, Study.instances > 0),
        ]  # fmt: skip
    elif filters.state:
        wanted.append(Order.status == filters.state)
    by = (Order.scheduled_at.desc(),) if filters.day == "all" else (urgency, Order.scheduled_at)
    query = (
        select(
            Order.id, Order.accession_number, Order.procedure_text, Order.placer_number, Patient.family_name,
            Patient.given_name, Patient.patient_id, Order.patient_key, Order.station_aet, Order.source, Order.modality,
            Order.referring_physician,
        )
        .join(Patient, Patient.id == Order.patient_key).where(*wanted).order_by(*by, Order.id).limit(SEARCH_DEPTH)
    )  # fmt: skip
    former = identifiers.former_ids(database) if filters.query else {}
    access, person = parts().settings.access, me()
    return [
        row.id
        for row in database.execute(query)
        if searching.matches(filters.query, *row[1:7], *former.get(row.patient_key, ()))
        and (not person.is_narrow or person.sees(opening.part_of_order(access, row)))
    ]


def _seen(database: Session, order_id: int) -> Order:
    """The order, if it lies in the part of the site that this person sees; else 404."""
    found = database.get(Order, order_id) or abort(404)
    if not me().sees(opening.part_of_order(parts().settings.access, found)):
        abort(404)
    return found


def _span(day: str, now: datetime) -> tuple[datetime, datetime] | None:
    zone = parts().settings.site.zone
    today = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    one = timedelta(days=1)
    spans = {"today": (today, today + one), "tomorrow": (today + one, today + 2 * one)}
    return {**spans, "week": (today - 6 * one, today + one)}.get(day)


def _images(database: Session, order_ids: list[int]) -> dict[int, tuple[str, int]]:
    """Of orders with images: (Study Instance UID, how many)."""
    rows = database.execute(
        select(Study.order_id, func.min(Study.study_uid), func.sum(Study.instances))
        .where(Study.order_id.in_(order_ids), Study.instances > 0)
        .group_by(Study.order_id)
    )
    return {order_id: (uid, images) for order_id, uid, images in rows if order_id is not None}


def _site_time(written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written).replace(tzinfo=parts().settings.site.zone)
    except ValueError:
        return None


def _date(written: str) -> datetime | None:
    try:
        return datetime.strptime(written, "%Y-%m-%d")  # noqa: DTZ007  # a date has no zone
    except ValueError:
        return None
