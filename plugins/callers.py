"""Who calls at the DICOM port, and what was its last sign of each kind: for the page of modalities, and for alerts.

Kept beside the journal, a row for each AE title, address and sign:

    associated   it was let in          image     it stored one          worklist, query   it asked
    echo, move, get, commitment         the request came (Orthanc's log)
    refused      it was not let in, or not with what it wanted: the reason, and how often so far
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.journal import Journal, Transaction

#: So many rows of strangers are kept, the latest: whoever knocks with ever new names fills nothing.
REFUSED = 200
_SIGNS = {"Echo": "echo", "Move": "move", "Get": "get", "N-ACTION": "commitment"}
_KEPT = 64


def note(
    transaction: Transaction, aet: str, ip: str, sign: str, at: str, *, called_aet: str = "", reason: str = "",
    count: int = 1,
) -> None:  # fmt: skip
    """A sign of a caller; `at` as in entries (UTC)."""
    transaction.execute(
        "INSERT INTO callers VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (aet, ip, sign) DO UPDATE SET"
        " at = max(at, excluded.at), called_aet = excluded.called_aet, reason = excluded.reason,"
        " count = count + excluded.count",
        (aet[:_KEPT], ip[:_KEPT], sign, at, called_aet[:_KEPT], reason[:200], count),
    )
    if sign == "refused":
        transaction.execute(
            "DELETE FROM callers WHERE sign = 'refused' AND at <"
            " (SELECT at FROM callers WHERE sign = 'refused' ORDER BY at DESC LIMIT 1 OFFSET ?)",
            (REFUSED,),
        )


def sign_of(request: str) -> str | None:
    """The sign that a request of Orthanc's log is; None where another source tells of it."""
    return _SIGNS.get(request)


def told(journal: Journal) -> list[dict[str, Any]]:
    """Every row, the latest first."""
    rows = journal.query("SELECT aet, ip, sign, at, called_aet, reason, count FROM callers ORDER BY at DESC")
    names = ("aet", "ip", "sign", "at", "called_aet", "reason", "count")
    return [dict(zip(names, row, strict=True)) for row in rows]


def facts(line: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Text facts of a line of Orthanc's log: an AE title is whatever a stranger says it is."""
    return {name: _plain(str(line.get(name, ""))[:_KEPT]) for name in names}


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)
