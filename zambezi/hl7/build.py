"""Messages that we send: "images are there" (ORM^O01) and the report (ORU^R01), as bytes for the wire.

hl7apy builds and checks the segments; text is escaped here before it gets there, because hl7apy leaves
`^` and `&` as they are. Versions 2.3.1 and 2.5.1; the character set is the peer's, and UTF-8 (declared)
where the text doesn't fit into that.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from hl7apy.core import Message, Segment

#: MSH-18 of what we send, and Python's name of it.
CODECS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "}

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


def escape(text: str) -> str:
    """Text as it may stand in a component (HL7 v2.5.1, 2.7): delimiters escaped, no line ends."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def lines(text: str) -> list[str]:
    """Text with line ends, as the escaped repetitions of a TX field: each is shown as a line of its own."""
    return [escape(line.rstrip()) for line in text.strip().splitlines()]


def images_there(header: Header, exam: Exam) -> bytes:
    """ORM^O01: the study of this order is in the archive (ORC-1 SC, ORC-5 A: some, but not all, results)."""
    message = _message("ORM_O01", "ORM^O01", header)
    _add(message, header, "PID", _patient(exam))
    _add(message, header, "ORC", {1: "SC", 2: escape(exam.placer_number), 3: escape(exam.filler_number), 5: "A"})
    _add(message, header, "OBR", _request(header, exam))
    _add(message, header, "ZDS", {1: f"{exam.study_uid}^Application^DICOM"})
    return _encoded(message, header)


def report(header: Header, exam: Exam, signed: SignedReport) -> bytes:
    """ORU^R01 with the report's text by section, the Study Instance UID and, where given, the PDF."""
    message = _message("ORU_R01", "ORU^R01", header)
    status = "C" if signed.corrected else "F"
    _add(message, header, "PID", _patient(exam))
    _add(message, header, "ORC", {1: "RE", 2: escape(exam.placer_number), 3: escape(exam.filler_number), 5: "CM"})
    _add(
        message, header, "OBR",
        {**_request(header, exam), 22: _time(signed.signed_at, header), 25: status, 32: escape(signed.signer)},
    )  # fmt: skip
    observations: list[tuple[str, str, str | Repetitions]] = [("ST", "113014^DICOM Study^DCM", exam.study_uid)]
    observations += [("TX", f"{code}^{escape(name)}^LN", lines(text)) for code, name, text in signed.sections if text]
    if signed.pdf is not None:
        data = base64.b64encode(signed.pdf).decode()
        observations.append(("ED", "18748-4^Diagnostic imaging study^LN", f"^Application^PDF^Base64^{data}"))
    for number, (kind, what, value) in enumerate(observations, 1):
        fields = {1: str(number), 2: kind, 3: what, 5: value, 11: status, 14: _time(signed.signed_at, header)}
        _add(message, header, "OBX", fields)
    return _encoded(message, header)


def _message(structure: str, kind: str, header: Header) -> Message:
    message = Message(structure, version=header.version)
    fields = {
        3: escape(header.sending_application), 4: escape(header.sending_facility),
        5: escape(header.receiving_application), 6: escape(header.receiving_facility),
        7: _time(header.at, header), 9: kind if header.version == "2.3.1" else f"{kind}^{structure}",
        10: header.control_id, 11: "P", 12: header.version, 18: header.encoding,
    }  # fmt: skip
    # MSH-1 is the first delimiter itself and MSH-2 the others
    message.msh.value = "|".join(["MSH", "^~\\&", *(fields.get(n, "") for n in range(3, 19))])
    return message


def _patient(exam: Exam) -> dict[int, str]:
    return {
        3: f"{escape(exam.patient_id)}^^^{escape(exam.issuer)}",
        5: f"{escape(exam.family_name)}^{escape(exam.given_name)}",
        7: exam.birth_date,
        8: exam.sex,
    }


def _request(header: Header, exam: Exam) -> dict[int, str]:
    return {
        1: "1", 2: escape(exam.placer_number), 3: escape(exam.filler_number),
        4: f"{escape(exam.procedure_code)}^{escape(exam.procedure_text)}",
        7: _time(exam.observed_at, header) if exam.observed_at else "",
        18: escape(exam.accession_number), 19: escape(exam.procedure_id), 20: escape(exam.step_id),
        24: escape(exam.modality),
    }  # fmt: skip


def _add(message: Message, header: Header, name: str, fields: Mapping[int, str | Repetitions]) -> None:
    segment = Segment(name, version=header.version)
    segment.value = _er7(name, fields)
    message.add(segment)


def _er7(name: str, fields: Mapping[int, str | Repetitions]) -> str:
    values = [fields.get(n, "") for n in range(1, max(fields) + 1)]
    return "|".join([name, *(value if isinstance(value, str) else "~".join(value) for value in values)])


def _time(moment: datetime, header: Header) -> str:
    return f"{moment.astimezone(header.zone):%Y%m%d%H%M%S%z}"


def _encoded(message: Message, header: Header) -> bytes:
    text: str = message.to_er7() + "\r"
    try:
        return text.encode(CODECS[header.encoding])
    except UnicodeEncodeError:
        # A report is sent whole or not at all: the character set that holds it is declared in its place.
        return text.replace(f"|{header.encoding}", "|UNICODE UTF-8", 1).encode()
