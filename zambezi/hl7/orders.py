"""What ADT and ORM messages mean: plain facts, read by the map of the peer that sent them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Literal
from zoneinfo import ZoneInfo

from zambezi.config.settings import Hl7Fields
from zambezi.hl7.ack import Trouble
from zambezi.hl7.read import Reading

Action = Literal["place", "change", "cancel", "status"]

#: Events of ADT that register a patient or bring one up to date.
REGISTERING = ("A01", "A04", "A05", "A08", "A28", "A31")

_TIMESTAMP = re.compile(r"^(\d{4})(\d{2})(\d{2})(?:(\d{2})(\d{2})(?:(\d{2})(?:\.\d+)?)?)?([+-]\d{4})?$")

#: ORC-1 (table 0119) -> what to do; the dcm4chee archive reads the same codes the same way.
_ACTIONS: dict[str, Action] = {
    "NW": "place", "XO": "change", "XX": "change", "CA": "cancel", "OC": "cancel", "DC": "cancel", "SC": "status",
}  # fmt: skip

#: ORC-5 (table 0038) with ORC-1 SC -> state of the exam; "" where the state says nothing new to us.
_STATES = {
    "SC": "", "": "", "A": "", "IP": "in-progress", "CM": "completed", "CA": "cancelled", "DC": "discontinued"
}  # fmt: skip

#: Priority (table 0027 and TQ1-9) -> DICOM's words (0040,1003).
_PRIORITIES = {"S": "STAT", "A": "HIGH", "P": "HIGH", "C": "HIGH"}


class CannotApply(ValueError):
    """The message was understood but can't be carried out; `trouble` is told to the sender."""

    def __init__(self, code: str, text: str, location: str = "") -> None:
        super().__init__(text)
        self.trouble = Trouble(code, text, location)


@dataclass(frozen=True)
class PatientFacts:
    """PID, read. None: not said (leave it as it is); "": taken away."""

    patient_id: str
    issuer: str
    family_name: str
    given_name: str
    birth_date: str | None
    sex: str | None


@dataclass(frozen=True)
class OrderFacts:
    """One ORC with its OBR, read by the peer's map; "" where the sender said nothing."""

    action: Action
    status: str
    placer_number: str
    filler_number: str
    accession_number: str
    study_uid: str
    modality: str
    procedure_code: str
    procedure_text: str
    scheduled_at: datetime | None
    station_aet: str
    priority: str
    clinical_information: str
    referring_physician: str


def patient(reading: Reading, default_issuer: str) -> PatientFacts:
    """The patient of a message; CannotApply without an ID or a name."""
    patient_id, issuer = identifier(reading, "PID-3", default_issuer, or_else="PID-2")
    if not patient_id:
        raise CannotApply("101", "the patient has no identifier in PID-3", "PID^1^3")
    family, given = name(reading)
    if not family and not given:
        raise CannotApply("101", "the patient has no name in PID-5", "PID^1^5")
    return PatientFacts(patient_id, issuer, family, given, _birth_date(reading), _sex(reading))


def identifier(reading: Reading, field: str, default_issuer: str, or_else: str = "") -> tuple[str, str]:
    """(ID, issuer) of a repeating CX field: the first medical record number, else the first that is filled."""
    places = [f"{field}[{n}]" for n in range(1, reading.repetitions(field) + 1)]
    filled = [place for place in places if reading.get(f"{place}.1").strip()]
    medical_record = [place for place in filled if reading.get(f"{place}.5") in ("MR", "PI", "PT")]
    place = (medical_record or filled or [or_else or field])[0]
    return reading.get(f"{place}.1").strip(), reading.get(f"{place}.4.1").strip() or default_issuer


def name(reading: Reading) -> tuple[str, str]:
    """(family name, given names) of PID-5."""
    return reading.get("PID-5.1").strip(), _joined(reading, "PID-5.2", "PID-5.3")


def orders(reading: Reading, fields: Hl7Fields, zone: ZoneInfo) -> list[OrderFacts]:
    """Every order of an ORM^O01; CannotApply where there is none or its control code isn't one we know."""
    groups = reading.orders()
    if not groups:
        raise CannotApply("101", "there is neither ORC nor OBR in the message", "ORC^1")
    return [_order(group, fields, zone) for group in groups]


def moment(text: str, zone: ZoneInfo) -> datetime | None:
    """An HL7 time stamp as UTC: the sender's own offset, else the site's zone; None where it is none."""
    match = _TIMESTAMP.match(text.strip())
    if match is None:
        return None
    *numbers, offset = match.groups()
    try:
        year, month, day, hour, minute, second = (int(n or 0) for n in numbers)
        found = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        if offset:
            minutes = int(offset[1:3]) * 60 + int(offset[3:])
            found = found.replace(tzinfo=timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _order(group: Reading, fields: Hl7Fields, zone: ZoneInfo) -> OrderFacts:
    control, state = group.get("ORC-1").strip().upper() or "NW", group.get("ORC-5").strip().upper()
    action = _ACTIONS.get(control)
    if action is None:
        raise CannotApply("103", f"order control code {control[:8]} in ORC-1 is none that we carry out", "ORC^1^1")
    status = ""
    if action == "status":
        if state not in _STATES:
            raise CannotApply("103", f"order status {state[:8]} in ORC-5 is none that we know", "ORC^1^5")
        status = _STATES[state]
    return OrderFacts(
        action=action,
        status=status,
        placer_number=group.get(fields.placer_number).strip(),
        filler_number=group.get(fields.filler_number).strip(),
        accession_number=group.get(fields.accession_number).strip(),
        study_uid=group.get(fields.study_uid).strip(),
        modality=group.get(fields.modality).strip(),
        procedure_code=group.get(fields.procedure_code).strip(),
        procedure_text=group.get(fields.procedure_text).strip(),
        scheduled_at=_scheduled(group, fields, zone),
        station_aet=group.get(fields.station_aet).strip(),
        priority=_priority(group),
        clinical_information=_clinical(group),
        referring_physician=_physician(group),
    )


def _scheduled(group: Reading, fields: Hl7Fields, zone: ZoneInfo) -> datetime | None:
    # The peer's own place first, then those of IHE's Scheduled Workflow, newest first.
    times = (moment(group.get(path), zone) for path in (fields.scheduled_at, "TQ1-7", "OBR-27.4", "OBR-36"))
    return next((time for time in times if time is not None), None)


def _birth_date(reading: Reading) -> str | None:
    if reading.is_null("PID-7"):
        return ""
    text = reading.get("PID-7")[:8]
    try:
        return date.fromisoformat(text).strftime("%Y%m%d") if len(text) == 8 and text.isdigit() else None
    except ValueError:
        return None


def _sex(reading: Reading) -> str | None:
    if reading.is_null("PID-8"):
        return ""
    return {"M": "M", "F": "F", "O": "O", "A": "O", "N": "O", "U": "U"}.get(reading.get("PID-8").strip().upper()[:1])


def _priority(group: Reading) -> str:
    code = group.get("TQ1-9") or group.get("ORC-7.6") or group.get("OBR-27.6") or group.get("OBR-5")
    return _PRIORITIES.get(code.strip().upper()[:1], "ROUTINE") if code.strip() else ""


def _clinical(group: Reading) -> str:
    said = [group.get("OBR-13"), group.get("OBR-31.2") or group.get("OBR-31.1"), *group.lines("NTE-3")]
    return "\n".join(text.strip() for text in said if text.strip())


def _physician(group: Reading) -> str:
    for place in ("OBR-16", "ORC-12", "PV1-8"):
        family, given = group.get(f"{place}.2").strip(), group.get(f"{place}.3").strip()
        if family or given:
            return f"{family}^{given}".rstrip("^")
        if group.get(place).strip():
            return group.get(place).strip()
    return ""


def _joined(reading: Reading, *paths: str) -> str:
    return " ".join(filter(None, (reading.get(path).strip() for path in paths)))
