"""Pages of corrections: what was asked for and how far it is, asking for one with its preview, and taking it back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Blueprint, abort, current_app, make_response, redirect, render_template, request
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_login import current_user
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from operations.custody import correction_forms, previewing
from operations.custody.correction_forms import LABELS, NotFilledIn
from zambezi import correctable, corrections, hold, identifiers, patients, searching
from zambezi.access import requires
from zambezi.corrections import CorrectionRefused
from zambezi.database.tables import Correction, CorrectionItem, Delivery, Order, Patient, Series, Study
from zambezi.orthanc_client import OrthancClient, OrthancError
from zambezi.patients import MergeRefused
from zambezi.relinking import STUDY_FACTS

pages = Blueprint("corrections", __name__, template_folder="templates")
pages.navigation = (("corrections.index", _("Corrections")),)  # type: ignore[attr-defined]  # read by the application

log = logging.getLogger(__name__)

#: The RIS's own audit chain: what people ask for in the pages stands there.
CHAIN = "ris"
LISTED = 200
FOUND = 20
SEARCH_DEPTH = 20_000
#: A page that shows a correction under way is loaded again so often.
REFRESH_S = "5"
LONGEST_REASON = 500

KINDS = {
    "edit": _("Attributes corrected"),
    "reassign": _("Given to another patient or order"),
    "merge": _("Patients merged"),
    "split": _("Studies parted from a patient"),
    "move": _("Series moved to another study"),
    "replace": _("Replaced by what was held"),
    "undo": _("Taken back"),
}
#: What a person may ask for here, and when it is the right thing.
CHOICES = {
    "reassign": (_("It belongs to another patient or order"), _("Such as: the wrong line of the worklist was taken.")),
    "edit": (_("An identifier, a name, a date or a text is wrong"), _("Such as: a letter too many in the name.")),
    "move": (_("Some series belong to another study"), _("Such as: two exams were stored as one.")),
    "split": (_("Several studies of this patient are another's"), _("Such as: two people shared a number.")),
    "merge": (_("Two patients are one"), _("Such as: the same person was registered twice.")),
}
STATES = {
    "due": ("○", _("Waiting its turn")),
    "preparing": ("◔", _("Being prepared")),
    "switching": ("◑", _("Being changed in the archive")),
    "retrying": ("↻", _("Failed, will be tried again")),
    "done": ("●", _("Done")),
    "parked": ("⚠", _("Stopped: a person must look")),
    "cancelled": ("✕", _("Cancelled")),
}
ITEM_STATES = {
    "planned": _("to be done"),
    "held": _("old image safe in the hold"),
    "removed": _("old image taken out"),
    "stored": _("new image stored"),
    "done": _("verified"),
}
LEVELS = {"patient": _("Patient"), "study": _("Study"), "series": _("Series"), "instance": _("Image")}


@pages.get("/corrections")
@requires("correction.read")
def index() -> Any:
    """The newest corrections, those that need a person first."""
    with _parts().sessions.begin() as session:
        rank = (Correction.state == "parked").desc()
        rows = session.scalars(select(Correction).order_by(rank, Correction.id.desc()).limit(LISTED)).all()
        progress = _progress(session, [row.id for row in rows])
    return render_template("corrections.html", corrections=rows, progress=progress, kinds=KINDS, states=STATES)


@pages.get("/corrections/<int:number>")
@requires("correction.read")
def show(number: int) -> Any:
    """One correction: what was asked, each image's state, who was told; it follows what happens by itself."""
    return _page(number)


@pages.get("/corrections/new")
@requires("correction.write")
def new() -> Any:
    """Choose what is wrong with a study, then fill in what is right. Without a study: two patients that are one."""
    with _parts().sessions.begin() as session:
        study = session.get(Study, (request.args.get("study", ""), request.args.get("orthanc", "")))
        if study is None and request.args.get("kind") != "merge":
            abort(404)
        return _form(session, study, request.args.get("kind", ""), "", request.args.to_dict())


@pages.post("/corrections/preview")
@requires("correction.write")
def preview() -> Any:
    """Every attribute that would change, before anything does."""
    parts = _parts()
    with parts.sessions.begin() as session:
        studies = _studies(session)
        try:
            kind, wanted = _wanted(session, studies)
        except (NotFilledIn, MergeRefused) as fault:
            return _again(session, studies, str(fault))
    seen, why_not = None, gettext("The archive does not answer. Nothing was changed. Try again in a minute.")
    try:  # outside of any transaction: it asks the archive
        seen = previewing.preview(
            parts.sessions, _orthanc(), parts.environment.hold_dir, kind, wanted, now=parts.clock()
        )
    except CorrectionRefused as refused:
        why_not = str(refused)
    except OrthancError as error:
        log.warning("a correction could not be previewed: %s", type(error).__name__)
    with parts.sessions.begin() as session:
        if seen is None:
            return _again(session, studies, why_not)
        people = _named(session, wanted)
    kept = [(name, value) for name, values in request.form.lists() if name != "csrf_token" for value in values]
    if kind == "move" and "new-uid" not in request.form:
        kept.append(("new-uid", wanted["set"][correctable.STUDY_UID]))
    return render_template(
        "correction_preview.html", seen=seen, kind=kind, kinds=KINDS, kept=kept, levels=LEVELS, labels=LABELS,
        people=people, study=studies[0] if studies else None, longest=LONGEST_REASON,
        dates=correction_forms.DATES, signed=[report for report in seen.reports if report.state == "final"],
    )  # fmt: skip


@pages.post("/corrections")
@requires("correction.write")
def ask() -> Any:
    """Ask for what the preview showed."""
    reason = request.form.get("reason", "").strip()[:LONGEST_REASON]
    with _parts().sessions.begin() as session:
        studies = _studies(session)
        try:
            kind, wanted = _wanted(session, studies)
            if not reason:
                raise NotFilledIn(gettext("Say why: the reason stands in the audit trail."))
            with session.begin_nested():  # what is refused leaves nothing behind
                number = patients.ask(
                    session, kind, wanted, reason=reason, who=current_user.login, now=_parts().clock(), writer=CHAIN
                )
        except (NotFilledIn, CorrectionRefused, MergeRefused) as fault:
            return _form(
                session, studies[0] if studies else None, request.form.get("kind", ""), str(fault), request.form
            )
    return redirect(f"/corrections/{number}", 303)


@pages.post("/corrections/<int:number>/undo")
@requires("correction.write")
def undo(number: int) -> Any:
    """Bring back what was before; of a merge, part the patients again."""
    parts = _parts()
    reason = request.form.get("reason", "").strip()[:LONGEST_REASON] or abort(400)
    try:
        with parts.sessions.begin() as session:
            found = session.get(Correction, number) or abort(404)
            if found.kind == "merge" and patients.stands(session, number) is None:
                abort(409)
            made = patients.ask(
                session, "undo", {}, reason=reason, who=current_user.login, now=parts.clock(), writer=CHAIN,
                undo_of=number,
            )  # fmt: skip
    except CorrectionRefused as refused:
        return _page(number, str(refused))
    return redirect(f"/corrections/{made}", 303)


@pages.post("/corrections/<int:number>/cancel")
@requires("correction.write")
def cancel(number: int) -> Any:
    """Don't carry it out."""
    return _decided(corrections.cancel, number)


@pages.post("/corrections/<int:number>/retry")
@requires("correction.write")
def retry(number: int) -> Any:
    """Try what is stopped once more."""
    return _decided(corrections.retry, number)


def _page(number: int, fault: str = "") -> Any:
    with _parts().sessions.begin() as session:
        found = session.get(Correction, number) or abort(404)
        items = corrections.items_of(session, number)
        undone_by = session.scalars(select(Correction).where(Correction.undo_of == number)).all()
        uids = {item.new_study_uid for item in items} | {item.old_study_uid for item in items}
        told = select(Delivery).where(Delivery.study_uid.in_(uids), Delivery.created_at >= found.created_at)
        deliveries = session.scalars(told.order_by(Delivery.created_at)).all()
        merged, changes = _merged(session, found), found.request.get("set", {})
        why_not = "" if found.kind == "merge" else corrections.why_not_undone(session, number)
        page = render_template(
            "correction.html", correction=found, items=items[:LISTED], counts=Counter(item.state for item in items),
            kinds=KINDS, states=STATES, item_states=ITEM_STATES, labels=_labels(changes),
            before=_before(items, changes),
            deliveries=deliveries, undone_by=undone_by, merged=merged, may_undo=_may_undo(found, merged, why_not),
            may_cancel=found.state in corrections.CANCELLABLE and _writes() and not merged, why_not=why_not,
            may_retry=found.state in ("parked", "retrying") and _writes(), fault=fault, longest=LONGEST_REASON,
            dates=correction_forms.DATES,
        )  # fmt: skip
    answer = make_response(page, 409 if fault else 200)
    if found.state in corrections.OPEN and not fault:
        answer.headers["Refresh"] = REFRESH_S
    return answer


def _before(items: Sequence[CorrectionItem], changes: Mapping[str, Any]) -> dict[str, str]:
    """What the images said before, by tag, as the first old copies in the hold tell; of each study one is read."""
    hold_dir = _parts().environment.hold_dir
    first = {item.old_study_uid: item.old_sha256 for item in reversed(items) if item.old_sha256}
    said: dict[str, set[str]] = {tag: set() for tag in changes}
    for sha256 in list(first.values())[:FOUND]:
        file = hold.path(hold_dir, sha256)
        try:
            known = dcmread(file, stop_before_pixels=True, specific_tags=[int(tag, 16) for tag in changes])
        except (OSError, InvalidDicomError):
            continue  # it is on another machine, or its time in the hold is over: the page says less
        for tag in changes:
            said[tag].add(str(known[tag].value or "") if tag in known else "")
    return {tag: ", ".join(sorted(values)) for tag, values in said.items() if values}


def _decided(decide: Any, number: int) -> Any:
    parts = _parts()
    try:
        with parts.sessions.begin() as session:
            decide(session, number, current_user.login, parts.clock(), CHAIN)
    except CorrectionRefused as refused:
        return _page(number, str(refused))
    return redirect(f"/corrections/{number}", 303)


def _wanted(session: Session, studies: Sequence[Study]) -> tuple[str, dict[str, Any]]:
    if request.form.get("kind") != "merge":
        return correction_forms.read(request.form, studies)
    numbers = [request.form.get(end, "") for end in ("prior", "survivor")]
    prior, survivor = (session.get(Patient, int(number)) if number.isdigit() else None for number in numbers)
    if prior is None or survivor is None:
        raise NotFilledIn(gettext("Choose both patients: the one that goes and the one that stays."))
    final, is_done = patients.check_merge(session, prior=prior, survivor=survivor)
    if is_done:
        raise NotFilledIn(gettext("These two are merged already."))
    return "merge", {"patients": patients.named(session, prior, final)}


def _studies(session: Session) -> list[Study]:
    named = correction_forms.places(request.form, "studies")
    found = [session.get(Study, (place.uid, place.orthanc_id)) for place in named]
    return [study for study in found if study is not None]


def _again(session: Session, studies: Sequence[Study], fault: str) -> Any:
    return _form(session, studies[0] if studies else None, request.form.get("kind", ""), fault, request.form.to_dict())


def _form(session: Session, study: Study | None, kind: str, fault: str, filled: Mapping[str, str]) -> Any:
    """The form of a kind, with what was filled in; status 400 where there is a fault."""
    query = filled.get("q", "")[:100].strip()
    page = render_template(
        "correction_new.html", study=study, kind=kind if kind in CHOICES else "", choices=CHOICES, fault=fault,
        filled=filled, query=query, labels=LABELS, fields=_fields(study, filled), **_found(session, study, kind, query),
        others=sorted((one.keyword, one.tag) for one in correctable.ATTRIBUTES.values()
                      if one.tag not in (*correction_forms.FIELDS, *correctable.MOVING)),
    )  # fmt: skip
    return (page, 400) if fault else page


def _found(session: Session, study: Study | None, kind: str, query: str) -> dict[str, Any]:
    """What the form of a kind offers to choose from."""
    offered: dict[str, Any] = {"people": [], "orders": [], "series": [], "targets": [], "siblings": [], "prior": None}
    former = identifiers.former_ids(session)
    offered["former"] = former
    if kind in ("reassign", "split", "merge") and query:
        offered["people"] = _people(session, query, former)
    if kind == "reassign":
        offered["orders"] = _orders(session, query, former) if query else []
    if kind == "merge":
        number = study.patient_id if study is not None else request.values.get("patient_id", "")
        prior = session.scalars(select(Patient).where(Patient.patient_id == number, Patient.merged_into.is_(None)))
        offered["prior"] = prior.first()
    if study is None:
        return offered
    if kind == "move":
        offered["series"] = session.scalars(select(Series).where(Series.study_uid == study.study_uid)).all()
    if kind in ("move", "split"):
        same = (Study.patient_id == study.patient_id, Study.instances > 0)
        siblings = session.scalars(select(Study).where(*same).order_by(Study.study_date.desc())).all()
        offered["siblings"] = siblings
        offered["targets"] = [one for one in siblings if one is not study] + (
            [one for one in _other_studies(session, query) if one not in siblings] if query else []
        )
    return offered


def _people(session: Session, query: str, former: Mapping[int, list[str]]) -> Sequence[Patient]:
    columns = select(Patient.id, Patient.patient_id, Patient.family_name, Patient.given_name)
    rows = session.execute(columns.where(Patient.merged_into.is_(None)).order_by(Patient.id.desc()).limit(SEARCH_DEPTH))
    ids = [row.id for row in rows if searching.matches(query, *row[1:], *former.get(row.id, ()))][:FOUND]
    return session.scalars(select(Patient).where(Patient.id.in_(ids)).order_by(Patient.family_name)).all()


def _orders(session: Session, query: str, former: Mapping[int, list[str]]) -> Sequence[Order]:
    columns = select(
        Order.id, Order.accession_number, Order.procedure_text, Patient.patient_id, Patient.family_name,
        Patient.given_name, Patient.id.label("patient"),
    ).join(Patient, Patient.id == Order.patient_key)  # fmt: skip
    rows = session.execute(columns.order_by(Order.scheduled_at.desc()).limit(SEARCH_DEPTH))
    ids = [row.id for row in rows if searching.matches(query, *row[1:6], *former.get(row.patient, ()))][:FOUND]
    return session.scalars(select(Order).where(Order.id.in_(ids)).order_by(Order.scheduled_at.desc())).all()


def _other_studies(session: Session, query: str) -> list[Study]:
    rows = session.scalars(select(Study).where(Study.instances > 0).order_by(Study.last_at.desc()).limit(SEARCH_DEPTH))
    told = (
        one for one in rows
        if searching.matches(query, one.patient_id, one.patient_name, one.accession_number, one.description)
    )  # fmt: skip
    return [one for one, _n in zip(told, range(FOUND), strict=False)]


def _fields(study: Study | None, filled: Mapping[str, str]) -> dict[str, str]:
    """What stands in the fields of the edit form: what was typed, else what the study says."""
    if study is None:
        return {}
    now: dict[str, str] = {}
    for tag in correction_forms.FIELDS:
        value = str(getattr(study, STUDY_FACTS[tag][0]) or "")
        if tag in correction_forms.DATES and len(value) == 8:
            value = f"{value[:4]}-{value[4:6]}-{value[6:]}"
        now[tag] = filled.get(f"tag-{tag}", value)
    return now


def _named(session: Session, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The patients and the order that a preview speaks of."""
    named = wanted.get("patients") or {}
    prior = session.get(Patient, named["from"]) if "from" in named else None
    into = session.get(Patient, named["into"]) if "into" in named else None
    order = session.get(Order, wanted["order"]) if wanted.get("order") else None
    of_prior = select(func.count()).select_from(Order).where(Order.patient_key == (prior.id if prior else 0))
    return {"from": prior, "into": into, "order": order, "orders": session.scalar(of_prior) or 0}


def _merged(session: Session, found: Correction) -> tuple[Patient, Patient] | None:
    """Whom a merge made one of whom, as long as that stands and this is the correction that did it."""
    prior = patients.stands(session, found.id)
    return (prior, session.get_one(Patient, prior.merged_into)) if prior is not None else None


def _may_undo(found: Correction, merged: tuple[Patient, Patient] | None, why_not: str) -> bool:
    if not _writes():
        return False
    return merged is not None or (found.state == "done" and found.kind != "merge" and not why_not)


def _progress(session: Session, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Of each correction: (instances that are done, all of them)."""
    rows = session.execute(
        select(
            CorrectionItem.correction_id,
            func.count().filter(CorrectionItem.state == "done"),
            func.count(),
        )
        .where(CorrectionItem.correction_id.in_(ids))
        .group_by(CorrectionItem.correction_id)
    )
    return {number: (done, total) for number, done, total in rows}


def _labels(changes: Mapping[str, Any]) -> dict[str, str]:
    return {
        tag: str(LABELS.get(tag) or (correctable.ATTRIBUTES[tag].keyword if tag in correctable.ATTRIBUTES else tag))
        for tag in changes
    }


def _writes() -> bool:
    return bool(current_user.may("correction.write"))


def _orthanc() -> OrthancClient:
    parts = _parts()
    return OrthancClient(parts.environment, parts.keys, "ris", timeout_s=10)


def _parts() -> Any:
    return current_app.extensions["zambezi"]
