"""The audit trail as a file: CSV for a spreadsheet, JSON for a program, XML of DICOM audit messages (PS3.15 A.5).

Written piece by piece, so that a hundred thousand entries cost no memory. Never a patient's name.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from zambezi import audit_message, audit_search
from zambezi.audit_message import Source
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json", "xml": "application/xml"}
#: No file has more: who needs all of it has sealed segments and the collector.
MOST = 100_000
_AT_ONCE = 1000
_COLUMNS = ("at", "event", "outcome", "who", "patient_id", "study_uid", "chain", "seq", "hash", "facts")


class TooMany(Exception):
    """More entries fit than one file may have."""


def count(session: Session, query: Select[AuditEntry]) -> int:
    """How many entries a file will have; TooMany where those are more than MOST."""
    bounded = query.order_by(None).with_only_columns(AuditEntry.seq).limit(MOST + 1).subquery()
    found = session.scalars(select(func.count()).select_from(bounded)).one()
    if found > MOST:
        raise TooMany
    return found


def rows(session: Session, query: Select[AuditEntry]) -> Iterator[AuditEntry]:
    """The entries, read as they are written."""
    yield from session.scalars(query.limit(MOST).execution_options(yield_per=_AT_ONCE))


def written(kind: str, entries: Iterable[AuditEntry], source: Source) -> Iterator[str]:
    """The file's text, in pieces; `kind` is one of FORMATS."""
    makers = {"csv": _csv, "json": _json, "xml": _xml}
    return makers[kind](entries, source)


def _csv(entries: Iterable[AuditEntry], _source: Source) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    out.seek(0)
    yield "\ufeff" + out.read()  # by the mark spreadsheets know UTF-8
    for row in entries:
        out.seek(0)
        out.truncate()
        facts = ", ".join(f"{name}={value}" for name, value in audit_search.facts_of(row))
        told = (row.at, row.event, row.outcome, row.who, row.patient_id, row.study_uid, row.journal, row.seq, row.hash)
        writer.writerow([_harmless(value) for value in (*told, facts)])
        yield out.getvalue()


def _harmless(value: Any) -> Any:
    """A spreadsheet would carry out what begins like a formula, and strangers choose some of these words."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _json(entries: Iterable[AuditEntry], _source: Source) -> Iterator[str]:
    yield "["
    before = "\n"
    for row in entries:
        told = {
            "at": row.at, "event": row.event, "outcome": row.outcome, "who": row.who, "patient_id": row.patient_id,
            "study_uid": row.study_uid, "chain": row.journal, "seq": row.seq, "hash": row.hash,
            "facts": dict(audit_search.facts_of(row)),
        }  # fmt: skip
        yield before + json.dumps(told, ensure_ascii=False)
        before = ",\n"
    yield "\n]\n"


def _xml(entries: Iterable[AuditEntry], source: Source) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<AuditMessages>\n'
    for row in entries:
        entry = Sealed(row.journal, row.seq, row.hash, row.payload)
        one = audit_message.message(entry, source, row.patient_id or "").decode()
        yield one.partition("?>")[2] + "\n"
    yield "</AuditMessages>\n"
