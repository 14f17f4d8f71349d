"""Corrections: what is asked for; the custody worker carries it out (operations/custody)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from zambezi import audit, clock
from zambezi.database.tables import Correction


class CorrectionRefused(ValueError):
    """What was asked for can't be done; the text says why."""


def ask(
    session: Session, kind: str, request: Mapping[str, Any], reason: str, asked_by: str, now: datetime, writer: str,
    undo_of: int | None = None,
) -> Correction:  # fmt: skip
    """Ask for a correction: the row (state due), and its audit entry in the caller's transaction."""
    at = clock.text(now)
    row = Correction(
        kind=kind, state="due", request=dict(request), reason=reason, asked_by=asked_by, undo_of=undo_of, next_at=at,
        created_at=at, updated_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    audit.append(
        session, writer, "correction-changed", now,
        correction=row.id, kind=kind, state="due", who=asked_by, reason=reason,
    )  # fmt: skip
    return row
