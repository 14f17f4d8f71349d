"""What a person fills in to correct something, as the request that zambezi.corrections.ask takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask_babel import lazy_gettext as _
from werkzeug.datastructures import MultiDict

from zambezi import correctable, orders
from zambezi.database.tables import Study
from zambezi.relinking import STUDY_FACTS

#: Attributes with a field of their own on the form; any other is chosen by its DICOM keyword.
FIELDS = ("00100020", "00100010", "00100030", "00100040", "00080050", "00080020", "00080030", "00081030")
#: What people call them.
LABELS = {
    "00080020": _("Exam date"),
    "00080030": _("Exam time"),
    "00080050": _("Accession number"),
    "00081030": _("Description"),
    "0008103E": _("Description of the series"),
    "00100010": _("Name"),
    "00100020": _("Patient ID"),
    "00100021": _("Issuer of the patient ID"),
    "00100030": _("Birth date"),
    "00100040": _("Sex"),
    "0020000D": _("Study"),
    "0020000E": _("Series"),
}
DATES = ("00080020", "00100030")
NEW_STUDY = "new"

#: A form that was sent.
Filled = MultiDict[str, str]


class NotFilledIn(ValueError):
    """Something is missing; the text (for gettext) says what."""


@dataclass(frozen=True)
class Place:
    """A study or series as a form names it: UID and the archive's id, with a bar between."""

    uid: str
    orthanc_id: str

    @classmethod
    def read(cls, written: str) -> Place:
        uid, _bar, orthanc_id = written.partition("|")
        return cls(uid, orthanc_id)

    @property
    def study(self) -> dict[str, str]:
        return {"study_uid": self.uid, "orthanc_id": self.orthanc_id}


def places(form: Filled, name: str) -> list[Place]:
    """The studies or series that are ticked."""
    return [Place.read(written) for written in form.getlist(name) if "|" in written]


def read(form: Filled, studies: Sequence[Study]) -> tuple[str, dict[str, Any]]:
    """(kind, request) of a form about these studies; NotFilledIn where a choice is missing."""
    kind = form.get("kind", "")
    named = [{"study_uid": study.study_uid, "orthanc_id": study.orthanc_id} for study in studies]
    if not named:
        raise NotFilledIn(str(_("Tick at least one study.")))
    if kind == "edit":
        changes = edited(form, studies[0])
        if not changes:
            raise NotFilledIn(str(_("Nothing was changed yet.")))
        return kind, {"study": named[0], "set": changes}
    if kind == "move":
        return kind, moved(form)
    if kind in ("reassign", "split"):
        return kind, {"studies": named, **_to(form.get("to", ""))}
    raise NotFilledIn(str(_("Choose what is wrong.")))


def edited(form: Filled, study: Study) -> dict[str, str | None]:
    """The attributes whose fields say something else than the study does, by tag."""
    changes: dict[str, str | None] = {}
    for tag in FIELDS:
        value = form.get(f"tag-{tag}", "").strip()
        value = value.replace("-", "") if tag in DATES else value
        if value != (getattr(study, STUDY_FACTS[tag][0]) or ""):
            changes[tag] = value
    other = form.get("other", "")
    if other in correctable.ATTRIBUTES and other not in correctable.MOVING:
        changes[other] = form.get("other-value", "").strip()
    return changes


def moved(form: Filled) -> dict[str, Any]:
    """Series that go to another study: one that there is, or a new one."""
    series = [{"series_uid": place.uid, "orthanc_id": place.orthanc_id} for place in places(form, "series")]
    target = form.get("target", "")
    if not series:
        raise NotFilledIn(str(_("Tick the series that are to move.")))
    if not target:
        raise NotFilledIn(str(_("Choose the study that they belong to.")))
    if target == NEW_STUDY:
        # Named by the form from the preview on, so that what is confirmed is what was shown.
        return {"series": series, "set": {correctable.STUDY_UID: form.get("new-uid", "") or orders.make_uid()}}
    place = Place.read(target)
    return {"series": series, "set": {correctable.STUDY_UID: place.uid}, "into": {"orthanc_id": place.orthanc_id}}


def _to(chosen: str) -> Mapping[str, Any]:
    what, _colon, number = chosen.partition(":")
    if what == "order" and number.isdigit():
        return {"order": int(number)}
    if what == "patient" and number.isdigit():
        return {"patients": {"into": int(number)}}
    raise NotFilledIn(str(_("Choose the patient or the order that it belongs to.")))
