"""Messages of an administrator's own: segments with placeholders, checked when they are loaded. Pure.

A placeholder is a name in braces, `{accession_number}`. Its value goes in escaped (HL7 v2.5.1, 2.7), so that no
patient's name can become a field or a segment. Standard library only: the plugin inside Orthanc reads the
configuration, too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from zambezi.hl7.text import escape

#: Every placeholder there is, and what it stands for. What isn't known is empty.
PLACEHOLDERS: dict[str, str] = {
    "patient_id": "patient ID",
    "issuer": "issuer of the patient ID",
    "family_name": "family name",
    "given_name": "given names",
    "birth_date": "birth date, YYYYMMDD",
    "sex": "M, F, O or U",
    "placer_number": "the order's number at who placed it (ORC-2)",
    "filler_number": "our number of the order (ORC-3)",
    "accession_number": "accession number",
    "procedure_id": "requested procedure ID",
    "step_id": "scheduled procedure step ID",
    "procedure_code": "code of the exam",
    "procedure_text": "the exam in words",
    "modality": "the order's modality, else the first of the study",
    "study_uid": "Study Instance UID",
    "observed_at": "when the first image came",
    "event": "what happened, as in On",
    "happened_at": "when it happened",
    "order_status": "status of the order, as in ORC-5 (HL7 table 0038)",
    "state": "state of the exam: scheduled, arrived, in-progress, completed, discontinued, cancelled",
    "instances": "how many images the archive has of the study",
    "destination": "where the images went, or should have gone",
    "reason": "why: of a rejection, a parked delivery, a changed exam",
    "report_version": "version of the report, from 1",
    "signed_by": "who signed the report",
    "signed_at": "when it was signed",
    "technique": "the report's technique; lines are parted by \\.br\\",
    "findings": "its findings",
    "impression": "its impression",
    "control_id": "MSH-10 of this message",
    "site": "the hospital's name",
}

#: Segments of HL7 2.3.1 and 2.5.1 that a message to a neighbour of radiology may hold; Z... are everybody's own.
SEGMENTS = frozenset((
    "ACC", "AIG", "AIL", "AIP", "AIS", "AL1", "APR", "ARQ", "BLC", "CON", "CTD", "CTI", "DB1", "DG1", "DRG", "DSC",
    "DSP", "EVN", "FAC", "FT1", "GOL", "GT1", "IAM", "IN1", "IN2", "IN3", "IPC", "LAN", "MRG", "NK1", "NPU", "NTE",
    "OBR", "OBX", "ODS", "ODT", "ORC", "ORG", "PD1", "PDA", "PDC", "PEO", "PES", "PID", "PR1", "PRB", "PRD", "PTH",
    "PV1", "PV2", "RF1", "RGS", "ROL", "RXA", "RXC", "RXD", "RXE", "RXG", "RXO", "RXR", "SAC", "SCH", "SFT", "SPM",
    "TQ1", "TQ2", "TXA", "UB1", "UB2", "VAR",
))  # fmt: skip

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ESCAPE = re.compile(r"\\(?:[EFHNRST]|\.(?:br|sp|ce)|X(?:[0-9A-Fa-f]{2})+)\\")
#: A longer line is a mistake (something was pasted into it).
LONGEST = 65536


def faults(line: str) -> list[str]:
    """What is wrong with one segment of a template; each names what was found and what is allowed."""
    found: list[str] = []
    name, bar, fields = line.partition("|")
    if any(ord(character) < 32 or ord(character) == 127 for character in line):
        found.append("holds a control character; a segment is one line, \\.br\\ begins another in a field")
    if name in ("MSH", "BHS", "FHS"):
        found.append(f"found {name}, which Zambezi writes itself; begin with what stands behind it")
    elif not re.fullmatch(r"Z[A-Z0-9]{2}", name) and name not in SEGMENTS:
        found.append(f"found segment {name[:12]!r}, allowed is one of HL7's or Z..{_nearest(name, SEGMENTS)}")
    if not bar or not fields.strip("|"):
        found.append(f"has no fields; found {line[:40]!r}, allowed is such as PID|1||{{patient_id}}")
    if len(line) > LONGEST:
        found.append(f"has {len(line)} characters, allowed are {LONGEST}")
    for placeholder in _PLACEHOLDER.findall(line):
        if placeholder not in PLACEHOLDERS:
            found.append(f"no placeholder {{{placeholder}}}{_nearest(placeholder, PLACEHOLDERS)}")
    rest = _PLACEHOLDER.sub("", line)
    if "{" in rest or "}" in rest:
        found.append("has a brace that belongs to no placeholder; a brace itself is written \\X7B\\ or \\X7D\\")
    if "\\" in _ESCAPE.sub("", rest):
        found.append("has a backslash that is no escape of HL7 (\\F\\ \\S\\ \\T\\ \\R\\ \\E\\ \\.br\\ \\X0D\\)")
    return found


def filled(segments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The segments with their placeholders' values, escaped; what `values` doesn't have is empty."""
    return [_PLACEHOLDER.sub(lambda match: escape(values.get(match[1], ""), "\\.br\\"), line) for line in segments]


def _nearest(found: str, known: frozenset[str] | dict[str, str]) -> str:
    near = difflib.get_close_matches(found, sorted(known), 1, 0.5)
    return f" (nearest: {near[0]})" if near else ""
