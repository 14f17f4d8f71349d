"""Nothing moves that the plan in force hasn't decided: the condition under which a study may be claimed."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from zambezi.database.tables import MigrationProject, MigrationStudy


def is_decided(session: Session, project_id: int) -> ColumnElement[bool]:
    """True of studies that the plan in force has decided, and of those that were under way before it came.

    The version is looked up anew: a worker may hold a project as it was before its plan was taken.
    """
    plan = session.scalars(select(MigrationProject.plan).where(MigrationProject.id == project_id)).first()
    version = int((plan or {}).get("Version", 0))
    return or_(MigrationStudy.plan_version == version, MigrationStudy.state.in_(("moving", "verifying")))
