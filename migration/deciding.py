"""Whose held studies are, as a person says it: one patient, or by a rule of theirs; with name and reason, audited.

A decision holds for all studies of which the source says the same of the patient, also for those found later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from migration import cleansing, ledger, plan_file, plans, whose
from migration.planning import Planner
from zambezi import audit, clock
from zambezi.config.settings.migration_plan import MigrationPlan
from zambezi.correctable import ATTRIBUTES, PATIENT_ID, ValueRefused, checked_value
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationMatch, MigrationProject, MigrationStudy, Patient

#: Rows that a page shows at once.
SHOWN = 50


class DecisionRefused(ValueError):
    """It can't be decided so; the text says why and what could be done."""


def held(session: Session, project_id: int, after: int = 0, most: int = SHOWN) -> Sequence[MigrationMatch]:
    """Patients of the source who wait for a person, in the order in which they were found."""
    query = (
        select(MigrationMatch)
        .where(MigrationMatch.project_id == project_id, MigrationMatch.state == "held", MigrationMatch.id > after)
        .order_by(MigrationMatch.id)
        .limit(most)
    )
    return session.scalars(query).all()


def count_held(session: Session, project_id: int) -> int:
    """How many patients wait."""
    query = select(func.count()).where(MigrationMatch.project_id == project_id, MigrationMatch.state == "held")
    return session.scalars(query).one()


def decided(session: Session, project_id: int, after: int = 0, most: int = SHOWN) -> Sequence[MigrationMatch]:
    """Patients of whom a person has said who they are; it can be said anew while nothing of them is here."""
    query = (
        select(MigrationMatch)
        .where(MigrationMatch.project_id == project_id, MigrationMatch.state == "decided", MigrationMatch.id > after)
        .order_by(MigrationMatch.id)
        .limit(most)
    )
    return session.scalars(query).all()


def impossible(session: Session, project_id: int) -> dict[str, int]:
    """Studies that are held because a rule gives them what can't be a value, by that rule: only a new plan helps."""
    query = (
        select(MigrationStudy.reason, func.count())
        .where(
            MigrationStudy.project_id == project_id, MigrationStudy.state == "held",
            MigrationStudy.reason.startswith(cleansing.FAULT),
        )
        .group_by(MigrationStudy.reason)
        .order_by(func.count().desc())
        .limit(SHOWN)
    )  # fmt: skip
    return {str(row[0]): int(row[1]) for row in session.execute(query)}


def by_score(sessions: Sessions, project_id: int, least: float) -> list[MigrationMatch]:
    """Who would be decided by a rule: held ones whom one patient alone resembles, at least so much."""
    with sessions.begin() as session:
        query = select(MigrationMatch).where(
            MigrationMatch.project_id == project_id, MigrationMatch.state == "held",
            MigrationMatch.score >= round(least * 100), MigrationMatch.reason == whose.NOT_SURE,
        )  # fmt: skip
        return [row for row in session.scalars(query.order_by(MigrationMatch.id)) if len(row.candidates) == 1]


def decide_all(
    sessions: Sessions, project_id: int, least: float, *, who: str, because: str, now: datetime
) -> int:  # fmt: skip
    """Decide all of `by_score` for the one whom they resemble; how many patients."""
    chosen = by_score(sessions, project_id, least)
    for row in chosen:
        words = f"{because} (all from a score of {least:.2f} with one candidate)"
        decide(sessions, row.id, int(row.candidates[0]["patient"]), who=who, because=words, now=now)
    return len(chosen)


def decide(
    sessions: Sessions, match_id: int, patient_key: int | None, *, given_id: str = "", who: str, because: str,
    now: datetime,
) -> int:  # fmt: skip
    """The source's patient is this one here, or (None) one of its own; how many studies go on by it.

    DecisionRefused where somebody else has the identifier and no other (`given_id`) is given, for an unknown patient,
    and where something of the patient's studies is here already: that takes a correction.
    """
    if not because.strip():
        raise DecisionRefused("say why: the decision is kept with its reason")
    with sessions.begin() as session:
        row = session.get(MigrationMatch, match_id, with_for_update=True)
        if row is None:
            raise DecisionRefused(f"no patient {match_id} of a source")
        _check(session, row, patient_key, given_id)
        row.state, row.patient_key, row.given_id = "decided", patient_key, given_id
        row.decided_by, row.decided_at, row.because = who[:80], clock.text(now), because.strip()
        project = session.get_one(MigrationProject, row.project_id)
        audit.append(
            session, ledger.WRITER, "migration-patient-decided", now, project=project.name, match=row.id,
            patient=patient_key, other_identifier=bool(given_id), who=who, reason=because.strip(),
        )  # fmt: skip
        session.flush()
        moved = _let_go(session, project, row, now)
        if moved and project.state in ("finished", "certified"):
            note = f"{moved} studies were held until now: zambezi migrate start {project.name}"
            ledger.set_project(session, project, "planned", note, now)
        plans.tell_of_held(session, project.id, now)
        return moved


def _check(session: Session, row: MigrationMatch, patient_key: int | None, given_id: str) -> None:
    if row.state == "decided" and _is_here(session, row):
        raise DecisionRefused(
            f"{row.decided_by} has decided this, and images of it are here already: correct the study instead"
        )
    if patient_key is not None:
        if given_id:
            raise DecisionRefused("a patient who is known here has an identifier: give no other")
        if session.get(Patient, patient_key) is None:
            raise DecisionRefused(f"no patient {patient_key} here")
        return
    if given_id:
        try:
            checked_value(ATTRIBUTES[PATIENT_ID], given_id)
        except ValueRefused as refused:
            raise DecisionRefused(str(refused)) from refused
        taken = select(Patient.id).where(Patient.patient_id == given_id).limit(1)
        of_source = select(MigrationStudy.id).where(
            MigrationStudy.project_id == row.project_id, MigrationStudy.patient_id == given_id
        )
        if session.scalars(taken).first() or session.scalars(of_source.limit(1)).first():
            raise DecisionRefused(f"the identifier {given_id} is somebody's already; give another one")
    elif row.reason in (whose.TAKEN, whose.STRANGER, whose.SHARED):
        raise DecisionRefused(f"{row.reason}: a patient of its own needs another identifier")


def _is_here(session: Session, row: MigrationMatch) -> bool:
    return bool(plans.begun(session, [study.id for study in session.scalars(_studies(row))]))


def _studies(row: MigrationMatch) -> Select[MigrationStudy]:
    return select(MigrationStudy).where(
        MigrationStudy.project_id == row.project_id, MigrationStudy.patient_id == row.patient_id
    )


def _let_go(session: Session, project: MigrationProject, row: MigrationMatch, now: datetime) -> int:
    """Decide the patient's studies anew, now that it is known whose they are; how many go on."""
    version = plans.current(session, project)
    planner = Planner(session, project.id, plan_file.checked(version.document) if version else MigrationPlan())
    number = int(project.plan.get("Version", 0))
    studies = session.scalars(_studies(row).where(MigrationStudy.state.in_(("held", "ready", "retrying")))).all()
    moved, here = 0, plans.begun(session, [study.id for study in studies])
    for study in studies:
        before = study.state
        state, _ = plans.carry_out_one(session, planner, study, number, now, is_begun=study.id in here)
        moved += before == "held" and state == "ready"
    return moved
