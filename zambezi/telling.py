"""What a message of ours says: from the rows of an exam, and what happened to it, to bytes for one peer. Pure.

`body` is asked by whoever puts the message into the outbox, in the same transaction: what is sent later is what was
so when it happened, however often it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from zambezi import clock
from zambezi.config.settings import Hl7Peer, Hl7Trigger, Site, Zambezi
from zambezi.database.tables import Order, Report, Study
from zambezi.hl7 import build, template
from zambezi.hl7.build import OrderStatus

#: Sections of a report: column of Report, LOINC code and name (OBX-3 of an ORU^R01).
SECTIONS = (
    ("technique", "55111-9", "Current imaging procedure descriptions"),
    ("findings", "59776-5", "Procedure findings"),
    ("impression", "19005-8", "Radiology imaging study impression"),
)
#: ORC-5 (HL7 table 0038) of an exam's state. HL7 has no word for a patient who has arrived: in process, unspecified.
STATUS = {
    "scheduled": "SC", "arrived": "IP", "in-progress": "IP", "completed": "CM", "discontinued": "DC", "cancelled": "CA",
}  # fmt: skip
#: The same where what happened says it by itself: some, but not all, results are there.
_STATUS_ON = {"study-received": "IP", "study-completed": "A", "study-updated": "A"}


@dataclass(frozen=True)
class Event:
    """What happened, as a message tells of it; `on` is a trigger's word (zambezi.triggers)."""

    on: str
    at: datetime
    state: str = ""  # exam-changed: what the exam has become
    destination: str = ""
    reason: str = ""
    are_gone: bool = False  # study-rejected: the whole study
    report: Report | None = None


def body(
    settings: Zambezi, rule: Hl7Trigger, control_id: str, study: Study | None, order: Order | None, event: Event,
    now: datetime,
) -> bytes:  # fmt: skip
    """The message that a trigger sends, as bytes on the wire; LookupError where its peer or template is not known.

    ValueError without study and order, or for a report that isn't signed.
    """
    peer = settings.hl7.peers.get(rule.send_to)
    if peer is None:
        raise LookupError(f"no HL7 peer {rule.send_to}")
    header = header_for(peer, settings.site, control_id, now)
    exam = exam_of(study, order, settings.site)
    if rule.template is not None:
        own = settings.hl7.templates.get(rule.template)
        if own is None:
            raise LookupError(f"no HL7 template {rule.template}")
        values = _values(settings.site, header, exam, study, order, event)
        return build.own(header, own.type, template.filled(own.segments, values))
    if event.report is not None:
        return build.report(header, exam, _signed(event.report, rule.pdf))
    if rule.message == "ORU^R01":
        return build.images(header, exam, _status(order, event), are_gone=event.are_gone)
    return build.order_status(header, exam, _status(order, event))


def modalities(study: Study | None, order: Order | None) -> frozenset[str]:
    """Of the study, where images have come; else the order's."""
    found = study.modalities.split("\\") if study and study.modalities else [order.modality] if order else []
    return frozenset(found) - {""}


def header_for(peer: Hl7Peer, site: Site, control: str, now: datetime) -> build.Header:
    """MSH of a message to this peer."""
    return build.Header(
        receiving_application=peer.application, receiving_facility=peer.facility, control_id=control, at=now,
        zone=site.zone, version=peer.hl7_version, encoding=peer.encoding, sending_facility=site.name,
    )  # fmt: skip


def exam_of(study: Study | None, order: Order | None, site: Site) -> build.Exam:
    """What a message says of an exam: the order's words where there is an order, else the images' own."""
    if order is not None:
        patient = order.patient
        return build.Exam(
            patient.patient_id, patient.issuer, patient.family_name, patient.given_name, patient.birth_date or "",
            patient.sex or "", order.placer_number or "", order.filler_number or "", order.accession_number,
            study.study_uid if study else order.study_uid, order.procedure_id, order.step_id, order.procedure_code,
            order.procedure_text, order.modality, clock.parse(study.first_at) if study else None,
        )  # fmt: skip
    if study is None:
        raise ValueError("a message needs a study or an order to be about")
    family, _, given = study.patient_name.partition("^")
    return build.Exam(
        study.patient_id, site.issuer, family, given.replace("^", " ").strip(), study.birth_date, study.sex, "",
        study.accession_number, study.accession_number, study.study_uid, procedure_text=study.description,
        modality=study.modalities.split("\\")[0], observed_at=clock.parse(study.first_at),
    )  # fmt: skip


def _status(order: Order | None, event: Event) -> OrderStatus:
    """ORC-1 and ORC-5: what happened says it, else how it stands with the order; and why, where somebody must know."""
    state = event.state or (order.status if order else "")
    status = _STATUS_ON.get(event.on) or STATUS.get(state, "A")
    detail = "; ".join(filter(None, (event.destination, event.reason)))
    tells = event.on in ("study-rejected", "study-delivered", "delivery-parked") or state in (
        "discontinued",
        "cancelled",
    )
    note = f"{event.on}: {detail}" if detail and tells else event.on if event.on == "study-updated" else ""
    return OrderStatus("OC" if event.state == "cancelled" else "SC", status, note)


def _values(
    site: Site, header: build.Header, exam: build.Exam, study: Study | None, order: Order | None, event: Event
) -> dict[str, str]:
    """What stands for each placeholder of zambezi.hl7.template."""
    report = event.report
    observed = build.moment(exam.observed_at, site.zone) if exam.observed_at else ""
    values = {
        "patient_id": exam.patient_id, "issuer": exam.issuer, "family_name": exam.family_name,
        "given_name": exam.given_name, "birth_date": exam.birth_date, "sex": exam.sex,
        "placer_number": exam.placer_number, "filler_number": exam.filler_number,
        "accession_number": exam.accession_number, "procedure_id": exam.procedure_id, "step_id": exam.step_id,
        "procedure_code": exam.procedure_code, "procedure_text": exam.procedure_text, "modality": exam.modality,
        "study_uid": exam.study_uid, "observed_at": observed, "event": event.on,
        "happened_at": build.moment(event.at, site.zone), "order_status": _status(order, event).status,
        "state": event.state or (order.status if order else ""), "instances": str(study.instances if study else 0),
        "destination": event.destination, "reason": event.reason, "control_id": header.control_id, "site": site.name,
    }  # fmt: skip
    if report is None:
        return values
    return values | {
        "report_version": str(report.version), "signed_by": report.signed_by or "",
        "signed_at": build.moment(clock.parse(report.signed_at), site.zone) if report.signed_at else "",
        "technique": report.technique, "findings": report.findings, "impression": report.impression,
    }  # fmt: skip


def _signed(report: Report, with_pdf: bool) -> build.SignedReport:
    if report.signed_at is None or report.signed_by is None:
        raise ValueError(f"version {report.version} of the report on {report.study_uid} is not signed")
    sections = tuple((code, name, str(getattr(report, column))) for column, code, name in SECTIONS)
    return build.SignedReport(
        sections, clock.parse(report.signed_at), report.signed_by, report.version > 1, report.pdf if with_pdf else None
    )
