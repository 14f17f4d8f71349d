"""Inventory: every study of a source found, each of its instances counted twice, all of it in the ledger.

How the source is asked so that what is missing would show: migration.survey. Killed at any moment, the same call goes
on: answers are kept (migration.notebook), and studies that were counted aren't counted again in the same inventory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from migration import lanes
from migration.notebook import Notebook, Step, close_survey, open_survey
from migration.source import Counted, CutOff, Named, Source, Trouble
from migration.survey import Asked, Coverage, Found, find_studies
from zambezi import audit, clock, exceptions
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy, MigrationSurvey
from zambezi.retries import ErrorClass

__all__ = ["Change", "Coverage", "Found", "change", "find_studies", "raise_exception", "record", "recount", "take"]

#: So many studies that are gone from the source are named; all of them are counted.
_NAMED_GONE = 200
_LONGEST_UID = 64
#: What a later inventory says anew of a study; the rest stays as it was said first.
_FRESH = ("NumberOfStudyRelatedInstances", "InstanceAvailability")
#: States at rest from which a study comes back when the source has more of it.
_MAY_GROW = ("verified", "divergent", "parked", "conflict", "vanished", "incomplete", "waived")


@dataclass(frozen=True)
class Change:
    """How a count of a study differs from what the ledger has; `patients`: new ones that the source puts it under."""

    appeared: frozenset[str]
    vanished: frozenset[str]
    patients: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.patients)


def change(known: Collection[str], counted: Collection[str]) -> Change:
    """SOP Instance UIDs that appeared at the source, and those that it names no more."""
    return Change(frozenset(counted) - frozenset(known), frozenset(known) - frozenset(counted))


def take(
    sessions: Sessions, source: Source, project_name: str, source_name: str, now: datetime,
    step: Step = lambda words: None,
) -> MigrationProject:  # fmt: skip
    """Make or repeat a project's inventory: studies, their instances counted twice, and the coverage record.

    Repeating it adds what is new at the source and makes studies that grew ready again; one that was interrupted goes
    on. `step` is called between questions, with words, and may raise (migration.desk.Closed).
    """
    with sessions.begin() as session:
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == project_name)).first()
        if project is None:
            at = clock.text(now)
            project = MigrationProject(
                name=project_name, source=source_name, state="inventory", created_at=at, updated_at=at
            )
            session.add(project)
        elif project.source != source_name:
            raise ValueError(f"project {project_name} is about the source {project.source}, not {source_name}")
        session.flush()
        project_id, state_before = project.id, project.state
        survey = open_survey(session, project, now)
    today = clock.parse(survey.began_at).date()
    if isinstance(source, Asked):
        found, coverage = find_studies(Notebook(source, sessions, survey, step), today)
    else:
        found, coverage = source.find_studies(today)
    _count_all(sessions, source, survey, found, coverage, now, step)
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        project.state = "running" if state_before == "running" else "planned"
        _compare_with_earlier(session, survey, coverage)
        coverage.doubts += source.reservations() if isinstance(source, Asked) else []
        coverage.claims = _claims(session, project_id)
        coverage.queries = max(source.queries, coverage.queries)
        project.coverage, project.updated_at = coverage.document(), clock.text(now)
        close_survey(session, survey, clock.now())
        audit.append(
            session, "migration", "migration-changed", now, project=project_name, state=project.state,
            studies=coverage.studies, doubts=len(coverage.doubts),
        )  # fmt: skip
        return project


def _count_all(
    sessions: Sessions, source: Source, survey: MigrationSurvey, found: Found, coverage: Coverage, now: datetime,
    step: Step,
) -> None:  # fmt: skip
    """Count every study that this inventory has not counted yet."""
    done = _done_before(sessions, survey)
    usable = {uid for uid in found.uids if len(uid) <= _LONGEST_UID}
    if unusable := len(found.uids) - len(usable):
        coverage.doubts.append(
            f"{unusable} studies have a UID of more than {_LONGEST_UID} characters: not brought over"
        )
    with sessions.begin() as session:
        _write(session, survey, state="counting", named=len(found.uids), counted=len(done))
    for number, study_uid in enumerate(sorted(usable - done), len(done)):
        step(f"{number} of {len(usable)} studies counted")
        why = {}
        try:
            counted = source.count(study_uid)
        except (CutOff, Trouble) as error:
            if isinstance(error, Trouble) and error.kind is not ErrorClass.OBJECT:
                raise  # the source or the way to it: whoever goes on with it counts it
            counted, why = Counted({}, (), True), {"why_none": f"the source does not name its instances: {error}"}
        if not counted.agreed:
            coverage.unsettled.append(study_uid)
        with sessions.begin() as session:
            is_new = not _is_known(session, survey.project_id, study_uid)
            # One that is unsettled is counted again by whoever goes on with it.
            seen_in = survey.number if counted.agreed else survey.number - 1
            changed = record(session, survey.project_id, study_uid, counted, now, found, seen_in, **why)
            _write(
                session, survey, counted=number + 1, new=MigrationSurvey.new + int(is_new),
                grown=MigrationSurvey.grown + int(bool(changed.appeared) and not is_new),
            )  # fmt: skip


def _done_before(sessions: Sessions, survey: MigrationSurvey) -> set[str]:
    """Studies that were counted already, before this inventory was interrupted."""
    query = select(MigrationStudy.study_uid).where(
        MigrationStudy.project_id == survey.project_id, MigrationStudy.seen_in >= survey.number
    )
    with sessions.begin() as session:
        return set(session.scalars(query).all())


def _compare_with_earlier(session: Session, survey: MigrationSurvey, coverage: Coverage) -> None:
    """What an earlier inventory named and this one did not; it stays in the ledger, and is a doubt."""
    gone = (
        MigrationStudy.project_id == survey.project_id,
        MigrationStudy.seen_in < survey.number,
        MigrationStudy.study_uid.not_in(coverage.unsettled),
    )
    count = session.scalar(select(func.count()).select_from(MigrationStudy).where(*gone)) or 0
    coverage.gone = list(
        session.scalars(select(MigrationStudy.study_uid).where(*gone).order_by(MigrationStudy.id).limit(_NAMED_GONE))
    )
    if count:
        coverage.doubts.append(f"{count} studies that an earlier inventory named are not named any more")
    _write(session, survey, gone=count)


def _claims(session: Session, project_id: int) -> dict[str, int]:
    """What studies claim to have beside what was counted, and sizes as far as the source says them (bytes)."""
    of_project = MigrationStudy.project_id == project_id
    found = {"claiming": 0, "claimed": 0, "counted": 0, "more": 0, "fewer": 0}
    rows = session.execute(select(MigrationStudy.expected, MigrationStudy.facts).where(of_project))
    for expected, facts in rows.yield_per(1000):
        found["counted"] += expected
        claim = str(facts.get("NumberOfStudyRelatedInstances", ""))
        if claim.isdecimal():
            found["claiming"] += 1
            found["claimed"] += int(claim)
            found["more"] += int(claim) > expected
            found["fewer"] += int(claim) < expected
    query = (
        select(func.count(MigrationInstance.size), func.sum(MigrationInstance.size))
        .join(MigrationStudy, MigrationStudy.id == MigrationInstance.study_id)
        .where(of_project)
    )
    sized, size = session.execute(query).one()
    return {**found, "sized": sized, "bytes": int(size or 0)}


def _write(session: Session, survey: MigrationSurvey, **values: Any) -> None:
    session.execute(
        update(MigrationSurvey)
        .where(MigrationSurvey.project_id == survey.project_id, MigrationSurvey.number == survey.number)
        .values(**values)
    )


def _is_known(session: Session, project_id: int, study_uid: str) -> bool:
    query = select(MigrationStudy.id).where(
        MigrationStudy.project_id == project_id, MigrationStudy.study_uid == study_uid
    )
    return session.scalar(query) is not None


def record(
    session: Session,
    project_id: int,
    study_uid: str,
    counted: Counted,
    now: datetime,
    named: Found | None = None,
    seen_in: int | None = None,
    why_none: str = "the source names this study, but no instance of it",
) -> Change:
    """Write a count into the ledger; how it differs from the one before. What vanished stays in the ledger.

    `seen_in`: the inventory that counted it. `why_none`: what is said of a study without instances.
    """
    query = select(MigrationStudy).where(MigrationStudy.project_id == project_id, MigrationStudy.study_uid == study_uid)
    study = session.scalars(query).first()
    said = named or Found()
    if study is None:
        study = MigrationStudy(
            project_id=project_id, study_uid=study_uid, study_date=said.dates.get(study_uid, "")[:16], state="ready",
            patient_id="\\".join(sorted(said.patients.get(study_uid, ())))[:64], facts=said.facts.get(study_uid, {}),
            next_at=clock.text(now), found_at=clock.text(now),
            priority=lanes.priority(0, said.facts.get(study_uid, {})),
        )  # fmt: skip
        session.add(study)
        session.flush()
    known = set(session.scalars(select(MigrationInstance.sop_uid).where(MigrationInstance.study_id == study.id)).all())
    instances = counted.instances
    found = change(known, instances)
    session.add_all(_expected(study.id, sop_uid, instances[sop_uid]) for sop_uid in sorted(found.appeared))
    study.expected = len(known | found.appeared)
    study.modalities = "\\".join(counted.modalities)[:100]
    if seen_in is not None:
        study.seen_in = seen_in
    if fresh := {key: value for key in _FRESH if (value := said.facts.get(study_uid, {}).get(key))}:
        study.facts = {**study.facts, **fresh}
        study.priority = lanes.priority(lanes.rank(study.priority), study.facts)
    if found.appeared and known and study.state in _MAY_GROW:
        study.state, study.reason = "ready", f"{len(found.appeared)} more instances at the source"
        study.next_at, study.verified_at = clock.text(now), None
    if not instances and study.state == "ready":
        study.state, study.reason = "parked", why_none[:1000]
        raise_exception(
            session, session.get_one(MigrationProject, project_id), "study-empty", study.reason,
            "Look at the study in the source.", now, study.study_uid,
        )  # fmt: skip
    session.flush()
    return Change(found.appeared, found.vanished, _new_patients(study, counted))


def recount(session: Session, study: MigrationStudy, counted: Counted) -> Change:
    """How a count differs from what the ledger has of a study; writes nothing."""
    known = session.scalars(select(MigrationInstance.sop_uid).where(MigrationInstance.study_id == study.id))
    found = change(frozenset(known), counted.instances)
    return Change(found.appeared, found.vanished, _new_patients(study, counted))


def _new_patients(study: MigrationStudy, counted: Counted) -> frozenset[str]:
    """Patients whose study it is now, and was not when it was found: merged or moved at the source meanwhile.

    A source that said of none whose it is says nothing by saying so now; identifiers that were cut aren't compared.
    """
    if not study.patient_id or len(study.patient_id) >= _LONGEST_UID:
        return frozenset()
    return counted.patients - set(study.patient_id.split("\\")) - {""}


def _expected(study_id: int, sop_uid: str, named: Named) -> MigrationInstance:
    return MigrationInstance(
        study_id=study_id, sop_uid=sop_uid, series_uid=named.series_uid, sop_class=named.sop_class or None,
        source_syntax=named.syntax or None, size=named.size or None, source_md5=named.md5 or None,
    )  # fmt: skip


def raise_exception(
    session: Session, project: MigrationProject, kind: str, reason: str, suggestion: str, now: datetime,
    study_uid: str | None = None,
) -> None:  # fmt: skip
    """Something about the migration waits for a person; said once for each study or project, in the latest words."""
    exceptions.wait(
        session, "migration", study_uid or f"project {project.name}", what=reason, suggestion=suggestion, now=now,
        kind=kind, study_uid=study_uid, facts={"source": project.name, "reason": reason},
        actions=[{"label": "Open the migration", "href": f"/migrations/{project.id}"}],
    )  # fmt: skip
