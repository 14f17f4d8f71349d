"""Which studies are compared with the source: all, or a random sample that is drawn before anything moves.

A study's rank comes from the seed and its UID alone (migration.verifier.rank), so that whoever holds the certificate
can draw again. The lowest ranks are the sample; what is found later, by a delta pass, is drawn with the same chance.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from heapq import nsmallest
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import ledger
from migration.verifier import rank
from zambezi import audit, clock
from zambezi.database.tables import MigrationProject, MigrationSample, MigrationStudy

#: Studies that the plan leaves out are not drawn from.
_OUT = ("skipped",)


def wants_source(plan: Mapping[str, Any]) -> bool:
    """Whether the plan wants the comparison with the source (level 3), for all or for a sample; it does by default."""
    return str(plan.get("Level", "source")) == "source"


def draw(session: Session, project: MigrationProject, who: str, now: datetime) -> MigrationSample | None:
    """Draw the plan's sample, once; None where the plan wants none. Audited with its seed before anything moves."""
    asked = project.plan.get("Sample")
    if not asked or not wants_source(project.plan):
        return None
    drawn = session.get(MigrationSample, project.id)
    if drawn is not None:
        return drawn
    count, said = int(asked.get("Studies", 500)), asked.get("Seed")
    seed = secrets.token_hex(8) if said is None else str(said)
    studies = select(MigrationStudy.study_uid).where(
        MigrationStudy.project_id == project.id, MigrationStudy.state.not_in(_OUT)
    )
    population = 0

    def ranks() -> Any:
        nonlocal population
        for study_uid in session.scalars(studies.execution_options(yield_per=5000)):
            population += 1
            yield rank(seed, study_uid)

    lowest = nsmallest(count, ranks())
    threshold = lowest[-1] if len(lowest) == count else "f" * 64
    drawn = MigrationSample(
        project_id=project.id, asked=count, seed=seed, threshold=threshold, population=population,
        drawn_at=clock.text(now), drawn_by=who,
    )  # fmt: skip
    session.add(drawn)
    audit.append(
        session, ledger.WRITER, "migration-sampled", now, project=project.name, who=who, count=len(lowest),
        population=population, seed=seed, threshold=threshold,
    )  # fmt: skip
    return drawn


def is_compared(plan: Mapping[str, Any], drawn: MigrationSample | None, study_uid: str) -> bool:
    """Whether this study is compared with the source, as the plan says."""
    if not wants_source(plan):
        return False
    return drawn is None or rank(drawn.seed, study_uid) <= drawn.threshold
