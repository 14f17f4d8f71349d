"""What a plan document tells: the plan in force, what the inventory found, what the plan did, how long it will take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration import estimate, plan_file, plans
from migration.estimate import Estimate
from zambezi import clock
from zambezi.config.settings import Window, Zambezi
from zambezi.config.settings.migration_plan import MigrationPlan
from zambezi.database.tables import MigrationMatch, MigrationProject, MigrationStudy
from zambezi.holidays import Holiday

#: Of the studies that were verified last so many say how quick the source is.
_RECENT = 2000


@dataclass(frozen=True)
class PlanDocument:
    """All facts of the document; words and dates in a language come later (migration.plan_text)."""

    site: str
    project: str
    source: str
    is_source_known: bool
    ceiling: int
    windows: tuple[Window, ...]
    holidays: tuple[Holiday, ...]
    made_at: datetime
    version: int
    sha256: str
    made_by: str
    taken_at: str
    because: str
    plan: MigrationPlan
    coverage: dict[str, Any]
    studies: int
    images: int
    years: dict[str, int]
    modalities: dict[str, int]
    states: dict[str, int]
    rules: dict[str, int]
    patients: dict[str, int]
    batches: int
    estimate: Estimate | None


def of(session: Session, project: MigrationProject, settings: Zambezi, now: datetime) -> PlanDocument:
    """The document of a migration as it stands; without a version of a plan, of one that says nothing."""
    version = plans.current(session, project)
    plan = plan_file.checked(version.document) if version else MigrationPlan()
    source = settings.migration.sources.get(project.source)
    of_project = MigrationStudy.project_id == project.id
    studies, images, batches = session.execute(
        select(func.count(), func.sum(MigrationStudy.expected), func.max(MigrationStudy.batch)).where(of_project)
    ).one()
    states = _counts(session, MigrationStudy.state, of_project)
    patients = _counts(session, MigrationMatch.state, MigrationMatch.project_id == project.id)
    windows = source.windows if source else (Window(),)
    return PlanDocument(
        site=settings.site.name, project=project.name, source=project.source, is_source_known=source is not None,
        ceiling=source.ceiling if source else 1,
        windows=windows, holidays=settings.site.holidays, made_at=now, version=version.version if version else 0,
        sha256=version.sha256 if version else "", made_by=version.made_by if version else "",
        taken_at=version.made_at if version else "", because=version.because if version else "", plan=plan,
        coverage=dict(project.coverage or {}), studies=studies, images=int(images or 0),
        years=_counts(session, func.substr(MigrationStudy.study_date, 1, 4), of_project),
        modalities=_modalities(_counts(session, MigrationStudy.modalities, of_project)), states=states,
        rules=dict(version.counts.get("rules", {})) if version else {}, patients=patients, batches=int(batches or 0),
        estimate=_estimate(session, project, plan, settings, now) if source else None,
    )  # fmt: skip


def _estimate(
    session: Session, project: MigrationProject, plan: MigrationPlan, settings: Zambezi, now: datetime
) -> Estimate | None:  # fmt: skip
    """Of what has still to move."""
    left = (
        MigrationStudy.project_id == project.id,
        MigrationStudy.state.in_(("ready", "retrying", "moving", "verifying", "held")),
    )
    studies, images = session.execute(select(func.count(), func.sum(MigrationStudy.expected)).where(*left)).one()
    if not studies:
        return None
    ended = session.execute(
        select(MigrationStudy.verified_at, MigrationStudy.expected)
        .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
        .where(MigrationProject.source == project.source, MigrationStudy.verified_at.is_not(None))
        .order_by(MigrationStudy.verified_at.desc())
        .limit(_RECENT)
    ).all()
    source, site = settings.migration.sources[project.source], settings.site
    speed = estimate.rates(estimate.seen([(clock.parse(at), many) for at, many in ended if at]), source.ceiling)
    again = 0.0
    if plan.level == "source":
        again = min(1.0, plan.sample.studies / studies) if plan.sample else 1.0
    begins = now
    if plan.begins is not None:
        begins = max(now, datetime.combine(plan.begins, time(), site.zone).astimezone(UTC))
    return estimate.of(int(images or 0), again, speed, source.windows, begins, site.zone, site.holidays)


def _counts(session: Session, column: Any, *where: Any) -> dict[str, int]:
    rows = session.execute(select(column, func.count()).where(*where).group_by(column).order_by(column))
    return {str(value or ""): number for value, number in rows}


def _modalities(joined: dict[str, int]) -> dict[str, int]:
    """Studies by modality; one with several counts for each."""
    found: dict[str, int] = {}
    for several, number in joined.items():
        for one in several.split("\\"):
            found[one] = found.get(one, 0) + number
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
