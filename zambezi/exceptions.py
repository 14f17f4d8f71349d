"""What waits for a person: nothing that can't be handled disappears (DESIGN rule 4)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database.tables import ExceptionItem


def wait(session: Session, room: str, reference: str, *, what: str, suggestion: str, now: datetime) -> None:
    """Put it before a person; what was decided before is open again. `what` names no patient."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {
        "what": what, "suggestion": suggestion, "since": clock.text(now),
        "decided_at": None, "decided_by": None, "decision": None,
    }  # fmt: skip
    statement = insert(ExceptionItem).values(room=room, reference=reference[:200], **said)
    session.execute(statement.on_conflict_do_update(index_elements=["room", "reference"], set_=said))


def decide(session: Session, room: str, reference: str, *, who: str, decision: str, now: datetime) -> None:
    """It waits no longer; nothing happens where it didn't wait."""
    session.execute(
        update(ExceptionItem)
        .where(ExceptionItem.room == room, ExceptionItem.reference == reference, ExceptionItem.decided_at.is_(None))
        .values(decided_at=clock.text(now), decided_by=who, decision=decision)
    )
