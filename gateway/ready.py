"""Signs that a study is complete: kept here for good, pushed to the plugin, whose rules go by them.

A sign names no instance, only how many the modality counts, where it does: images may still be on the way.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database import generations
from zambezi.database.tables import PerformedStep, ReadySign

#: The plugin is told of a sign for so long; what is late by more goes by the quiet period.
TOLD_FOR = timedelta(days=3)
#: At most so many studies are told of, the latest first.
STUDIES = 5000
KEPT_FOR = timedelta(days=30)

_PERFORMED_SERIES = "00400340"
#: Referenced Image Sequence, Referenced Non-Image Composite SOP Instance Sequence.
_REFERENCED = ("00081140", "00400220")

By = Literal["mpps", "commitment"]


def signal(session: Session, study_uid: str, by: By, now: datetime, instances: int | None = None) -> None:
    """A study is complete, says `by`; with as many `instances` as it counts. A newer sign takes the older one's place.

    Within the caller's transaction: whoever told us is answered once it is committed.
    """
    if not study_uid:
        return
    said = {"at": clock.text(now), "instances": instances}
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(
        insert(ReadySign)
        .values(study_uid=study_uid, by=by, **said)
        .on_conflict_do_update(index_elements=["study_uid", "by"], set_=said)
    )
    session.execute(delete(ReadySign).where(ReadySign.at < clock.text(now - KEPT_FOR)))
    generations.raise_(session, "ready")


def snapshot(session: Session, now: datetime) -> dict[str, Any]:
    """What the plugin is told: {"studies": {uid: {by: {"at", "instances"}}}}."""
    query = (
        select(ReadySign).where(ReadySign.at >= clock.text(now - TOLD_FOR)).order_by(ReadySign.at.desc()).limit(STUDIES)
    )
    studies: dict[str, dict[str, Any]] = {}
    for row in session.scalars(query):
        studies.setdefault(row.study_uid, {})[row.by] = {"at": row.at, "instances": row.instances}
    return {"studies": studies}


def performed(session: Session, step: PerformedStep, now: datetime) -> None:
    """A performed step has ended: its study is complete unless another step of it goes on."""
    if not step.study_uid:
        return
    steps = session.scalars(select(PerformedStep).where(PerformedStep.study_uid == step.study_uid)).all()
    if any(one.status == "IN PROGRESS" for one in steps):
        return
    counted = [_counted(one) for one in steps]
    # Of a step that names none of its images nobody knows how many there are.
    signal(session, step.study_uid, "mpps", now, sum(counted) if all(counted) else None)


def _counted(step: PerformedStep) -> int:
    """How many instances a step says it made (PS3.4 F.7.2), from its attributes as they are kept (PS3.18 F.2)."""
    return sum(
        len(series.get(sequence, {}).get("Value") or [])
        for series in step.attributes.get(_PERFORMED_SERIES, {}).get("Value") or []
        for sequence in _REFERENCED
    )
