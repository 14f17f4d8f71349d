"""Messages that we send: an order's status (ORM^O01), images or a report (ORU^R01), a template, as bytes for the wire.

hl7apy checks the segments of our own; text is escaped before it gets there, because hl7apy leaves `^` and `&` as they
are. Versions 2.3.1 and 2.5.1; the character set is the peer's, and UTF-8 (declared)
where the text doesn't fit into that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from hl7apy.core import Message, Segment

from zambezi.hl7.text import escape

#: MSH-18 of what we send, and Python's name of it.
CODECS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}

#: OBX-3 of a Study Instance UID (PS3.16).
_STUDY = "113014^DICOM Study^DCM"

Repetitions = Sequence[str]


@dataclass(frozen=True)
class Header:
    """MSH of a message of ours: to whom, in which version and character set, under which control id."""

    receiving_application: str
    receiving_facility: str
    control_id: str
    at: datetime
    zone: ZoneInfo
    version: str = "2.5.1"
    encoding: str = "UNICODE UTF-8"
    sending_application: str = "ZAMBEZI"
    sending_facility: str = ""


@dataclass(frozen=True)
class Exam:
    """The exam that a message is about: patient, order and study."""

    patient_id: str
    issuer: str
    family_name: str
    given_name: str
    birth_date: str
    sex: str
    placer_number: str
    filler_number: str
    accession_number: str
    study_uid: str
    procedure_id: str = ""
    step_id: str = ""
    procedure_code: str = ""
    procedure_text: str = ""
    modality: str = ""
    observed_at: datetime | None = None


@dataclass(frozen=True)
class SignedReport:
    """A signed version of a report; `sections` are (LOINC code, its name, text), empty ones are left out."""

    sections: tuple[tuple[str, str, str], ...]
    signed_at: datetime
    signer: str
    corrected: bool
    pdf: bytes | None = None


def lines(text: str) -> list[str]:
    """Text with line ends, as the escaped repetitions of a TX field: each is shown as a line of its own."""
    return [escape(line.rstrip()) for line in text.strip().splitlines()]


@dataclass(frozen=True)
class OrderStatus:
    """ORC-1 (table 0119) and ORC-5 (table 0038) of an order, and a line about it (NTE-3), if any."""

    control: str
    status: str
    note: str = ""


def order_status(header: Header, exam: Exam, status: OrderStatus) -> bytes:
    """ORM^O01: how it stands with the order of this exam; images are there where its status is A, CM."""
    message = _message("ORM_O01", "ORM^O01", header)
    _add(message, header, "PID", _patient(exam))
    _add(
        message, header, "ORC",
        {1: status.control, 2: escape(exam.placer_number), 3: escape(exam.filler_number), 5: status.status},
    )  # fmt: skip
    _add(message, header, "OBR", _request(header, exam))
    _note(message, header, status.note)
    _add(message, header, "ZDS", {1: f"{escape(exam.study_uid)}^Application^DICOM"})
    return _encoded(message.text, header)


def images(header: Header, exam: Exam, status: OrderStatus, *, are_gone: bool = False) -> bytes:
    """ORU^R01 that refers to the study's images, without a report: OBR-25 and OBX-11 R (stored, not yet verified).

    `are_gone`: OBX-11 D, and OBR-25 I: the images have left the archive, and the result with them.
    """
    message = _message("ORU_R01", "ORU^R01", header)
    _add(message, header, "PID", _patient(exam))
    _add(
        message, header, "ORC",
        {1: "RE", 2: escape(exam.placer_number), 3: escape(exam.filler_number), 5: status.status},
    )  # fmt: skip
    at = moment(header.at, header.zone)
    _add(message, header, "OBR", {**_request(header, exam), 22: at, 25: "I" if are_gone else "R"})
    _note(message, header, status.note)
    fields = {1: "1", 2: "ST", 3: _STUDY, 5: escape(exam.study_uid), 11: "D" if are_gone else "R", 14: at}
    _add(message, header, "OBX", fields)
    return _encoded(message.text, header)


def own(header: Header, kind: str, segments: Sequence[str]) -> bytes:
    """A message of an administrator's own: our MSH with this type, then these segments (zambezi.hl7.template)."""
    kind = "^".join(kind.split("^")[:2]) if header.version == "2.3.1" else kind
    return _encoded("".join(line + "\r" for line in (_msh(kind, header), *segments)), header)


def report(header: Header, exam: Exam, signed: SignedReport) -> bytes:
    """ORU^R01 with the report's text by section, the Study Instance UID and, where given, the PDF."""
    message = _message("ORU_R01", "ORU^R01", header)
    status = "C" if signed.corrected else "F"
    _add(message, header, "PID", _patient(exam))
    _add(message, header, "ORC", {1: "RE", 2: escape(exam.placer_number), 3: escape(exam.filler_number), 5: "CM"})
    _add(
        message, header, "OBR",
        {**_request(header, exam), 22: moment(signed.signed_at, header.zone), 25: status, 32: escape(signed.signer)},
    )  # fmt: skip
    observations: list[tuple[str, str, str | Repetitions]] = [("ST", _STUDY, escape(exam.study_uid))]
    observations += [("TX", f"{code}^{escape(name)}^LN", lines(text)) for code, name, text in signed.sections if text]
    if signed.pdf is not None:
        data = base64.b64encode(signed.pdf).decode()
        observations.append(("ED", "18748-4^Diagnostic imaging study^LN", f"^Application^PDF^Base64^{data}"))
    for number, (kind, what, value) in enumerate(observations, 1):
        fields = {1: str(number), 2: kind, 3: what, 5: value, 11: status, 14: moment(signed.signed_at, header.zone)}
        _add(message, header, "OBX", fields)
    return _encoded(message.text, header)


@dataclass(frozen=True)
class _Draft:
    """Segments as they go out. hl7apy looks at each, and doesn't write them: it would escape \\X..\\ once more."""

    checked: Message
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(f"{line}\r" for line in self.lines)


def _message(structure: str, kind: str, header: Header) -> _Draft:
    line = _msh(kind if header.version == "2.3.1" else f"{kind}^{structure}", header)
    checked = Message(structure, version=header.version)
    checked.msh.value = line
    return _Draft(checked, [line])


def _msh(kind: str, header: Header) -> str:
    fields = {
        3: escape(header.sending_application), 4: escape(header.sending_facility),
        5: escape(header.receiving_application), 6: escape(header.receiving_facility),
        7: moment(header.at, header.zone), 9: kind,
        10: header.control_id, 11: "P", 12: header.version, 18: header.encoding,
    }  # fmt: skip
    # MSH-1 is the first delimiter itself and MSH-2 the others
    return "|".join(["MSH", "^~\\&", *(fields.get(n, "") for n in range(3, 19))])


def _note(message: _Draft, header: Header, text: str) -> None:
    if text:
        _add(message, header, "NTE", {1: "1", 2: "L", 3: escape(text)})


def _patient(exam: Exam) -> dict[int, str]:
    return {
        3: f"{escape(exam.patient_id)}^^^{escape(exam.issuer)}",
        5: f"{escape(exam.family_name)}^{escape(exam.given_name)}",
        7: escape(exam.birth_date),
        8: escape(exam.sex),
    }


def _request(header: Header, exam: Exam) -> dict[int, str]:
    return {
        1: "1", 2: escape(exam.placer_number), 3: escape(exam.filler_number),
        4: f"{escape(exam.procedure_code)}^{escape(exam.procedure_text)}",
        7: moment(exam.observed_at, header.zone) if exam.observed_at else "",
        18: escape(exam.accession_number), 19: escape(exam.procedure_id), 20: escape(exam.step_id),
        24: escape(exam.modality),
    }  # fmt: skip


def _add(message: _Draft, header: Header, name: str, fields: Mapping[int, str | Repetitions]) -> None:
    segment = Segment(name, version=header.version)
    segment.value = _er7(name, fields)
    message.checked.add(segment)
    message.lines.append(_er7(name, fields))


def _er7(name: str, fields: Mapping[int, str | Repetitions]) -> str:
    values = [fields.get(n, "") for n in range(1, max(fields) + 1)]
    return "|".join([name, *(value if isinstance(value, str) else "~".join(value) for value in values)])


def moment(at: datetime, zone: ZoneInfo) -> str:
    """A moment as HL7 writes it (TS, DTM), on the site's wall clock with its offset."""
    return f"{at.astimezone(zone):%Y%m%d%H%M%S%z}"


def _encoded(text: str, header: Header) -> bytes:
    try:
        return text.encode(CODECS[header.encoding])
    except UnicodeEncodeError:
        # What is said is sent whole or not at all: the character set that holds it is declared in its place.
        return text.replace(f"|{header.encoding}", "|UNICODE UTF-8", 1).encode()
