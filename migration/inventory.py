"""Inventory: every study of a source, found so that what is missing would show.

A universal query and slices by date must name the same studies; what has no date is what is left over; and
the slices by patient identifier, a second axis, must name them again. A slice whose count looks like a
limit of the source is asked again in halves. What could not be shown is a doubt, in words, on the
certificate.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration.source import Counted, CutOff, Named, Source
from zambezi import audit, clock, exceptions
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy

#: A limit of a source shows as a round count, or as one that comes again and again; small counts do so by themselves.
_LEAST_LIMIT = 50
_FIRST_YEAR = 1970
_BEGINNINGS = string.digits + string.ascii_uppercase
_WILDCARDS = "*?\\"


class Asked(Protocol):
    """A source that answers questions by matching (C-FIND, QIDO-RS)."""

    @property
    def queries(self) -> int: ...

    def studies(self, **matching: str) -> list[dict[str, str]]: ...


@dataclass(frozen=True)
class Days:
    """A slice of study dates, both ends included."""

    first: date
    last: date

    @property
    def matching(self) -> str:
        return "-".join(day.isoformat().replace("-", "") for day in (self.first, self.last))

    def halves(self) -> tuple[Days, Days] | None:
        """Two slices that are this one together; None for a single day."""
        if self.first == self.last:
            return None
        middle = self.first + (self.last - self.first) // 2
        return Days(self.first, middle), Days(middle + timedelta(days=1), self.last)


def slices(today: date) -> list[Days]:
    """All dates there are: before the first year of digital imaging, each year since, and the future."""
    years = [Days(date(year, 1, 1), date(year, 12, 31)) for year in range(_FIRST_YEAR, today.year + 1)]
    return [
        Days(date(1, 1, 1), date(_FIRST_YEAR - 1, 12, 31)),
        *years,
        Days(date(today.year + 1, 1, 1), date(9999, 12, 31)),
    ]


def looks_cut_off(count: int, others: Collection[int]) -> bool:
    """Whether a count of answers looks like the source's own limit rather than like its content."""
    return count >= _LEAST_LIMIT and (count % 50 == 0 or count in others)


@dataclass
class Found:
    """What the source named so far: by Study Instance UID, its patients, its date, and all that it first said of it.

    `facts` by DICOM keyword, such as AccessionNumber and PatientName; only what isn't empty.
    """

    patients: dict[str, set[str]] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, answers: Iterable[Mapping[str, str]]) -> set[str]:
        """Take answers in; the Study UIDs they named."""
        named = set()
        for answer in answers:
            study_uid = str(answer.get("StudyInstanceUID", "")).strip(" \0")
            if study_uid:
                named.add(study_uid)
                self.patients.setdefault(study_uid, set()).add(str(answer.get("PatientID", "")).strip(" \0"))
                self.dates.setdefault(study_uid, str(answer.get("StudyDate", "")).strip(" \0"))
                said = {keyword: str(value).strip(" \0")[:200] for keyword, value in answer.items()}
                self.facts.setdefault(study_uid, {keyword: value for keyword, value in said.items() if value})
        return named

    @property
    def uids(self) -> set[str]:
        return set(self.patients)


@dataclass
class Coverage:
    """How the inventory was made, and what it could not show."""

    queries: int = 0
    universal: int = 0
    dated: int = 0
    undated: int = 0
    by_patient: int = 0
    studies: int = 0
    slices: list[list[Any]] = field(default_factory=list)  # [dates, found, remark]
    duplicates: dict[str, list[str]] = field(default_factory=dict)  # Study UID: the patients it is under
    unsettled: list[str] = field(default_factory=list)  # studies whose two counts differed
    doubts: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


def find_studies(source: Asked, today: date) -> tuple[Found, Coverage]:
    """Ask along both axes; what was found, and how far it is shown to be all."""
    found, coverage = Found(), Coverage()
    universal = _universal(source, found, coverage)
    dated: set[str] = set()
    counts: list[int] = []
    for days in slices(today):
        dated |= _dated(source, found, coverage, days, counts)
    by_patient: set[str] = set()
    for beginning in _beginnings(found):
        by_patient |= _of_patients(source, found, coverage, beginning)
    again = _universal(source, found, coverage)
    coverage.universal, coverage.dated, coverage.by_patient = len(again or universal), len(dated), len(by_patient)
    coverage.undated = sum(1 for uid in found.uids if not found.dates[uid])
    coverage.studies, coverage.queries = len(found.uids), source.queries
    coverage.duplicates = {uid: sorted(ids) for uid, ids in found.patients.items() if len(ids) > 1}
    coverage.doubts += axes_disagree(found, again or universal, dated, by_patient)
    return found, coverage


def axes_disagree(found: Found, universal: set[str], dated: set[str], by_patient: set[str]) -> list[str]:
    """What one axis named and another should have named but did not, in words."""
    doubts = []
    left_out = dated - universal
    if left_out:
        doubts.append(f"the universal query leaves out {len(left_out)} studies that slices by date name")
    reachable = {uid for uid in found.uids if any(_begins_plainly(patient) for patient in found.patients[uid])}
    hidden = reachable - by_patient
    if hidden:
        doubts.append(f"{len(hidden)} studies are not named when asked for by patient identifier")
    only_here = by_patient - universal - dated
    if only_here:
        doubts.append(f"{len(only_here)} studies were named only when asked for by patient identifier")
    strange = {uid for uid in found.uids if found.dates[uid]} - dated
    if strange:
        doubts.append(f"{len(strange)} studies have a date that no slice by date finds")
    return doubts


def _universal(source: Asked, found: Found, coverage: Coverage) -> set[str]:
    try:
        return found.add(source.studies())
    except CutOff:
        remark = "the source cuts off the universal query; undated studies are found by patient identifier only"
        if remark not in coverage.doubts:
            coverage.doubts.append(remark)
        return set()


def _dated(source: Asked, found: Found, coverage: Coverage, days: Days, counts: list[int]) -> set[str]:
    halves = days.halves()
    named: set[str] = set()
    try:
        named = found.add(source.studies(StudyDate=days.matching))
        remark = "looks like a limit" if looks_cut_off(len(named), counts) else ""
    except CutOff:
        remark = "cut off"
    if named or remark:
        coverage.slices.append([days.matching, len(named), remark])
    counts.append(len(named))
    if not remark:
        return named
    if halves:
        for half in halves:
            named |= _dated(source, found, coverage, half, counts)
        return named
    for hour in range(24):  # one day: by time, as far as the source matches it
        try:
            named |= found.add(source.studies(StudyDate=days.matching, StudyTime=f"{hour:02}0000-{hour:02}5959.999999"))
        except CutOff:
            coverage.doubts.append(f"the source cuts off the hour {hour:02} of {days.matching}")
    return named


def _of_patients(source: Asked, found: Found, coverage: Coverage, beginning: str) -> set[str]:
    try:
        named = found.add(source.studies(PatientID=f"{beginning}*"))
        if not looks_cut_off(len(named), ()):
            return named
    except CutOff:
        named = set()
    if len(beginning) >= 4:
        coverage.doubts.append(f"the source cuts off patient identifiers that begin with {len(beginning)} characters")
        return named
    for character in _BEGINNINGS + string.ascii_lowercase + "-_./ ":
        named |= _of_patients(source, found, coverage, beginning + character)
    return named


def _beginnings(found: Found) -> list[str]:
    seen = {patient[0] for patients in found.patients.values() for patient in patients if _begins_plainly(patient)}
    return sorted(seen | set(_BEGINNINGS))


def _begins_plainly(patient: str) -> bool:
    return bool(patient) and patient[0] not in _WILDCARDS


@dataclass(frozen=True)
class Change:
    """How a count of a study differs from what the ledger has."""

    appeared: frozenset[str]
    vanished: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished)


def change(known: Collection[str], counted: Collection[str]) -> Change:
    """SOP Instance UIDs that appeared at the source, and those that it names no more."""
    return Change(frozenset(counted) - frozenset(known), frozenset(known) - frozenset(counted))


def take(sessions: Sessions, source: Source, project_name: str, source_name: str, now: datetime) -> MigrationProject:
    """Make or repeat a project's inventory: studies, their instances counted twice, and the coverage record.

    Repeating it adds what is new at the source and makes studies that grew ready again.
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
    found, coverage = source.find_studies(now.date())
    for study_uid in sorted(found.uids):
        counted = source.count(study_uid)
        if not counted.agreed:
            coverage.unsettled.append(study_uid)
        with sessions.begin() as session:
            record(session, project_id, study_uid, counted, now, found)
    coverage.queries = source.queries
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        project.state = "running" if state_before == "running" else "planned"
        project.coverage, project.updated_at = coverage.document(), clock.text(now)
        audit.append(
            session, "migration", "migration-changed", now, project=project_name, state=project.state,
            studies=coverage.studies, doubts=len(coverage.doubts),
        )  # fmt: skip
        return project


def record(
    session: Session,
    project_id: int,
    study_uid: str,
    counted: Counted,
    now: datetime,
    named: Found | None = None,
) -> Change:
    """Write a count into the ledger; how it differs from the one before. What vanished stays in the ledger."""
    query = select(MigrationStudy).where(MigrationStudy.project_id == project_id, MigrationStudy.study_uid == study_uid)
    study = session.scalars(query).first()
    if study is None:
        said = named or Found()
        study = MigrationStudy(
            project_id=project_id, study_uid=study_uid, study_date=said.dates.get(study_uid, "")[:16], state="ready",
            patient_id="\\".join(sorted(said.patients.get(study_uid, ())))[:64], facts=said.facts.get(study_uid, {}),
            next_at=clock.text(now), found_at=clock.text(now),
        )  # fmt: skip
        session.add(study)
        session.flush()
    known = set(session.scalars(select(MigrationInstance.sop_uid).where(MigrationInstance.study_id == study.id)).all())
    instances = counted.instances
    found = change(known, instances)
    session.add_all(_expected(study.id, sop_uid, instances[sop_uid]) for sop_uid in sorted(found.appeared))
    study.expected = len(known | found.appeared)
    study.modalities = "\\".join(counted.modalities)[:100]
    if found.appeared and known and study.state in ("verified", "divergent", "parked"):
        study.state, study.reason = "ready", f"{len(found.appeared)} more instances at the source"
        study.next_at, study.verified_at = clock.text(now), None
    if not instances and study.state == "ready":
        study.state, study.reason = "parked", "the source names this study, but no instance of it"
        raise_exception(
            session, session.get_one(MigrationProject, project_id), "study-empty", study.reason,
            "Look at the study in the source.", now, study.study_uid,
        )  # fmt: skip
    session.flush()
    return found


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
