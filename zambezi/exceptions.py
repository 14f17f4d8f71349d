"""What waits for a person: nothing that can't be handled disappears (DESIGN rule 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database.tables import ExceptionItem


def wait(
    session: Session, room: str, reference: str, *, what: str, suggestion: str, now: datetime, kind: str = "",
    study_uid: str | None = None, actions: Sequence[Mapping[str, str]] = (),
) -> None:  # fmt: skip
    """Put it before a person; what was decided before is open again. `what` names no patient.

    `kind` is one machine's word for the sort of thing it is; `actions` are pages where something can be done
    about it: {"label": English sentence of a catalogue, "href": path}.
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {
        "what": what, "suggestion": suggestion, "since": clock.text(now), "kind": kind, "study_uid": study_uid,
        "actions": [dict(action) for action in actions], "alerted_at": None,
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
