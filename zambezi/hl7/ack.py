"""Acknowledgements (HL7 v2.5.1, 2.9.2, original mode): AA is said only of what is committed.

They are written in the sender's own character set and version, with the applications swapped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from zambezi.hl7.read import Reading
from zambezi.hl7.text import escape

#: HL7 table 0357, as far as we use it.
ERRORS = {
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "207": "Application internal error",
}


@dataclass(frozen=True)
class Trouble:
    """Why a message is not accepted: a code of table 0357, where it is (such as PID^1^3), and what to do about it."""

    code: str
    text: str
    location: str = ""


def acknowledge(received: Reading, at: datetime, control_id: str, code: str, trouble: Trouble | None = None) -> bytes:
    """The answer to a message: `code` AA, AE or AR; with ERR from version 2.5 on, MSA-3 before that."""
    version = received.get("MSH-12") or "2.3.1"
    trigger = received.get("MSH-9.2")
    kind = "ACK" if version == "2.3" or not trigger else f"ACK^{trigger}" + ("" if _before(version, 2, 4) else "^ACK")
    header = [
        "MSH", "^~\\&", *(escape(received.get(f"MSH-{n}")) for n in (5, 6, 3, 4)), f"{at:%Y%m%d%H%M%S}+0000", "",
        kind, escape(control_id), escape(received.get("MSH-11")) or "P", escape(version),
        "", "", "", "", "", escape(received.declared),
    ]  # fmt: skip
    said = ["MSA", code, escape(received.control_id)]
    segments = [header, said]
    if trouble is not None and _before(version, 2, 5):
        said.append(escape(trouble.text[:80]))
    elif trouble is not None:
        meaning = f"{trouble.code}^{ERRORS[trouble.code]}^HL70357"
        segments.append(["ERR", "", trouble.location, meaning, "E", "", "", "", escape(trouble.text)])
    text = "".join("|".join(segment).rstrip("|") + "\r" for segment in segments)
    return text.encode(received.encoding, "replace")


@dataclass(frozen=True)
class Answer:
    """An acknowledgement that we got: its code, to which control id, the peer's own words, and its error code."""

    code: str
    control_id: str
    text: str
    error: str = ""  # of HL7 table 0357: ERR-3.1, or MSA-6.1 before 2.5


def answer(received: Reading) -> Answer:
    """Read an acknowledgement of any version: words stand in MSA-3 or in ERR-8, ERR-3.2, ERR-7."""
    words = [received.get(path) for path in ("MSA-3", "ERR-8", "ERR-3.2", "ERR-7")]
    error = received.get("ERR-3.1") or received.get("MSA-6.1")
    return Answer(received.get("MSA-1").upper(), received.get("MSA-2"), "; ".join(filter(None, words)), error)


def _before(version: str, major: int, minor: int) -> bool:
    numbers = [int(n) for n in re.findall(r"\d+", version)[:2]]
    return tuple([*numbers, 0, 0][:2]) < (major, minor)
