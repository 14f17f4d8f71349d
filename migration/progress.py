"""How far a migration is: what pages and commands say, from the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration import ledger
from zambezi import clock
from zambezi.database.tables import MigrationProject, MigrationStudy

#: States of a study in the order in which a bar shows them, and what each counts as.
SHOWN = {
    "verified": "done", "moving": "under-way", "verifying": "under-way", "retrying": "failed", "divergent": "failed",
    "parked": "failed", "conflict": "failed", "vanished": "failed", "incomplete": "failed", "ready": "waiting",
    "held": "held", "skipped": "left-out", "waived": "left-out",
    "rolled-back": "left-out",
}  # fmt: skip


def of(session: Session, project: MigrationProject, now: datetime) -> dict[str, Any]:
    """How far a project is, from the ledger alone."""
    counts = ledger.states(session, project.id)
    query = select(MigrationStudy.verified_at).where(
        MigrationStudy.project_id == project.id, MigrationStudy.verified_at.is_not(None)
    )
    ends = [clock.parse(text) for text in session.scalars(query).all() if text]
    recent = [end for end in ends if (now - end).total_seconds() < 3600]
    seconds = (now - min(recent)).total_seconds() if recent else 0.0
    per_hour = len(recent) / max(seconds, 1.0) * 3600 if recent else 0.0
    total = sum(counts.values())
    left = total - sum(counts.get(state, 0) for state in ledger.AT_REST)
    return {
        "project": project.name, "source": project.source, "state": project.state, "note": project.note,
        "studies": total, "states": counts, "verified": counts.get("verified", 0),
        "failed": counts.get("divergent", 0) + counts.get("parked", 0), "left": left, "per_hour": round(per_hour, 1),
        "minutes_left": round(left / per_hour * 60, 1) if per_hour else None,
    }  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a bar: what it counts, from where to where (in units of the bar's width)."""

    kind: str
    count: int
    start: float
    width: float


def bar(counts: Mapping[str, int], width: float = 100) -> list[Piece]:
    """The states of studies as pieces of one bar, in a fixed order; nothing for no studies."""
    total = sum(counts.values())
    kinds: dict[str, int] = {}
    for state, kind in SHOWN.items():
        kinds[kind] = kinds.get(kind, 0) + counts.get(state, 0)
    pieces, start = [], 0.0
    for kind, count in kinds.items():
        if count:
            piece = Piece(kind, count, round(start, 3), round(count / total * width, 3))
            pieces.append(piece)
            start += piece.width
    return pieces


def by_year(session: Session, project_id: int) -> list[tuple[str, list[Piece]]]:
    """A bar for each year of study dates, the newest first; undated studies last."""
    year = func.substr(MigrationStudy.study_date, 1, 4)
    query = (
        select(year, MigrationStudy.state, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(year, MigrationStudy.state)
    )
    years: dict[str, dict[str, int]] = {}
    for found, state, count in session.execute(query):
        years.setdefault(found or "", {})[state] = count
    return [(found, bar(counts)) for found, counts in sorted(years.items(), reverse=True)]
