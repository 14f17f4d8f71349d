"""Syslog messages as RFC 5424 writes them and as RFC 5425 frames them over TLS; PS3.15 A.7 says what goes where."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: PS3.15 A.7: security/authorization messages, and the severity by how the event ended (A.5.2).
_FACILITY = 10
_SEVERITIES: Mapping[int, int] = {0: 5, 4: 4, 8: 3, 12: 2}
#: The MSGID of DICOM audit messages (PS3.15 A.7); our signed checkpoints bear one of their own.
AUDIT_MESSAGE = "DICOM+RFC3881"
CHECKPOINT = "ZAMBEZI+CHECKPOINT"
_BOM = b"\xef\xbb\xbf"
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")


def record(body: bytes, kind: str, at: str, machine: str, chain: str, outcome: int = 0) -> bytes:
    """A syslog message: `at` as zambezi.clock.text, `machine` as HOSTNAME, `chain` as PROCID, `body` UTF-8."""
    priority = _FACILITY * 8 + _SEVERITIES.get(outcome, 5)
    header = f"<{priority}>1 {at} {_name(machine, 255)} zambezi {_name(chain, 128)} {kind} - "
    return header.encode("ascii") + _BOM + body


def framed(message: bytes) -> bytes:
    """The message with its length before it (RFC 5425, 4.3)."""
    return b"%d %b" % (len(message), message)


def _name(text: str, longest: int) -> str:
    return _NOT_PRINTABLE.sub("_", text)[:longest] or "-"
