"""Plans in the database: read and checked, shown on real rows of the inventory, taken as the next version, carried out.

Nothing is claimed that the version in force hasn't decided (MigrationStudy.plan_version): what an inventory finds later
is decided before it may move (`catch_up`). A study of which something is here already keeps what was decided for it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from migration import ledger
from migration.plan_file import checked
from migration.planning import Decision, Planner, facts_of
from zambezi import audit, clock, exceptions
from zambezi.config.settings.migration_plan import MigrationPlan
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationInstance, MigrationMatch, MigrationProject, MigrationStudy, PlanVersion

#: Studies in one transaction.
PAGE = 100
#: Nothing of these studies is here yet, or under way: a new version decides them anew.
DECIDABLE = ("ready", "retrying", "held", "skipped", "parked", "divergent")
#: What pages and workers ask of a plan, of which a version's document may hold megabytes.
IN_SHORT = ("Title", "Order", "Batches", "Level", "Sample", "Carry")


class PlanRefused(ValueError):
    """It can't be taken now; the text says why and what to do."""


@dataclass(frozen=True)
class Row:
    """One study as the plan would have it: attribute, what it is, what it becomes, by which rule."""

    study_uid: str
    study_date: str
    modalities: str
    state: str
    reason: str
    changes: tuple[tuple[str, str, str, str], ...]


@dataclass
class Preview:
    """What a plan would do; rows are real ones: some of each rule, of what is left out and of what is held."""

    looked_at: int = 0
    studies: int = 0
    states: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    matched: Counter[str] = field(default_factory=Counter)  # patients by what became of them
    rows: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    session: Session, project: MigrationProject, plan: MigrationPlan, *, most: int | None = None, rows_each: int = 3,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Preview:  # fmt: skip
    """Decide all studies, or `most` of them evenly spread, and write nothing."""
    ids = list(session.scalars(_ids(project.id)))
    made = Preview(studies=len(ids))
    if most is not None and len(ids) > most:
        ids = [ids[n * len(ids) // most] for n in range(most)]
    planner = Planner(session, project.id, plan)
    shown: Counter[str] = Counter()
    known: set[str] = set()
    patients: set[str] = set()
    for study in _studies(session, ids):
        decision = planner.decide(study)
        known.update(keyword for keyword, value in facts_of(study).items() if value)
        _count(made, decision, patients)
        labels = [*decision.by.values(), *([decision.reason] if decision.reason else [])]
        if any(shown[label] < rows_each for label in labels):
            shown.update(labels)
            made.rows.append(_row(study, decision))
        made.looked_at += 1
        if made.looked_at % PAGE == 0 or made.looked_at == len(ids):
            progress(made.looked_at, len(ids))
    made.warnings = _warnings(plan, known) if ids else ["the inventory is empty: nothing can be shown"]
    return made


def record(
    sessions: Sessions, project_id: int, document: Mapping[str, Any], *, who: str, because: str, now: datetime
) -> PlanVersion:  # fmt: skip
    """Make the document the plan's next version, in force at once; `catch_up` carries it out before anything moves.

    PlanRefused while the migration runs or its inventory is taken; ConfigurationFaults for what is no plan.
    """
    plan = checked(document)
    if not because.strip():
        raise PlanRefused("say why: a version of a plan is kept with its reason")
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id, with_for_update=True)
        if project.state in ("inventory", "running"):
            wait = "pause it first: zambezi migrate pause" if project.state == "running" else "let it end first"
            raise PlanRefused(f"{project.name}: its state is {project.state}; {wait} {project.name}")
        number = int(project.plan.get("Version", 0)) + 1
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        version = PlanVersion(
            project_id=project_id, version=number, document=dict(document), made_by=who, because=because.strip(),
            sha256=hashlib.sha256(canonical).hexdigest(), made_at=clock.text(now), counts={"states": {}, "rules": {}},
        )  # fmt: skip
        session.add(version)
        told = plan.model_dump(by_alias=True, mode="json", include={name.lower() for name in IN_SHORT})
        project.plan = {**told, "Version": number, "Hash": version.sha256}
        project.updated_at = clock.text(now)
        audit.append(
            session, ledger.WRITER, "migration-planned", now, project=project.name, version=number,
            sha256=version.sha256, who=who, reason=because.strip(),
        )  # fmt: skip
        session.flush()
        return version


def catch_up(
    sessions: Sessions, project_id: int, now: datetime, progress: Callable[[int, int], None] = lambda *_: None,
    reading: Sessions | None = None,
) -> int:  # fmt: skip
    """Decide what the version in force hasn't decided yet: all at first, later what is found or grows; how many.

    Ended in the middle it goes on where it was; two at once do it once. Patients and identifiers are read once, by
    `reading`, which holds up no writer; each page of studies is a transaction of its own.
    """
    with (reading or sessions)() as looking:
        project = looking.get_one(MigrationProject, project_id)
        version = current(looking, project)
        if version is None:
            return 0
        plan, number = checked(version.document), version.version
        ids = list(looking.scalars(_ids(project_id, DECIDABLE, number, plan.order == "oldest")))
        if not ids:
            return 0
        planner, batches = Planner(looking, project_id, plan), _Batches(plan, looking, project_id)
    decided = 0
    for n in range(0, len(ids), PAGE):
        with sessions.begin() as session:
            if not _page(session, project_id, number, ids[n : n + PAGE], planner, batches, now):
                return decided
        decided += len(ids[n : n + PAGE])
        progress(decided, len(ids))
    with sessions.begin() as session:
        tell_of_held(session, project_id, now)
    return decided


def undecided(session: Session, project: MigrationProject) -> int:
    """How many studies the version in force has still to decide."""
    if not project.plan.get("Version"):
        return 0
    query = select(func.count()).where(
        MigrationStudy.project_id == project.id, MigrationStudy.state.in_(DECIDABLE),
        MigrationStudy.plan_version < int(project.plan["Version"]),
    )  # fmt: skip
    return session.scalars(query).one()


def current(session: Session, project: MigrationProject) -> PlanVersion | None:
    """The version in force."""
    query = select(PlanVersion).where(
        PlanVersion.project_id == project.id, PlanVersion.version == int(project.plan.get("Version", 0))
    )
    return session.scalars(query).first()


def versions(session: Session, project_id: int) -> Sequence[PlanVersion]:
    """All of them, the newest first."""
    query = select(PlanVersion).where(PlanVersion.project_id == project_id).order_by(PlanVersion.version.desc())
    return session.scalars(query).all()


def carry_out_one(
    session: Session, planner: Planner, study: MigrationStudy, number: int, now: datetime, *, is_begun: bool,
    batch: Callable[[MigrationStudy, str], int] = lambda study, _: study.batch,
) -> tuple[str, Decision | None]:  # fmt: skip
    """Decide one study and write it down, unless a worker has it by now; its state, and what was decided.

    One that `is_begun` keeps what was decided for its first images.
    """
    seen = study.state
    values: dict[str, Any] = {"plan_version": number}
    decision = None
    if not is_begun:
        decision = planner.decide(study)
        values |= {"changes": decision.changes, "reason": decision.reason, "state": decision.state}
        if decision.state == "ready" and seen in ("ready", "retrying"):
            values |= {"state": seen, "reason": study.reason}
        elif decision.state == "ready":
            values |= {"attempts": 0, "next_at": clock.text(now)}
        if decision.match is not None and decision.identity not in planner.remembered:
            remember(session, study, decision)
            planner.remembered.add(decision.identity)
    state = str(values.get("state", seen))
    values["batch"] = batch(study, state)
    done = update(MigrationStudy).where(
        MigrationStudy.id == study.id, MigrationStudy.state == seen, MigrationStudy.fence == study.fence
    )
    session.execute(done.values(**values).execution_options(synchronize_session=False))
    return state, decision


def begun(session: Session, ids: Sequence[int]) -> set[int]:
    """Those of the studies of which anything is here."""
    query = select(MigrationInstance.study_id).where(
        MigrationInstance.study_id.in_(ids), MigrationInstance.orthanc_id.is_not(None)
    )
    return set(session.scalars(query.distinct()))


def remember(session: Session, study: MigrationStudy, decision: Decision) -> None:
    """Whom the study's patient was taken for, unless a person has said it."""
    found = decision.match
    if found is None:
        return
    query = select(MigrationMatch).where(
        MigrationMatch.project_id == study.project_id, MigrationMatch.identity == decision.identity
    )
    row = session.scalars(query).first()
    if row is None:
        row = MigrationMatch(
            project_id=study.project_id, identity=decision.identity, patient_id=study.patient_id[:64],
            said=decision.said, state=found.state,
        )  # fmt: skip
        session.add(row)
    if row.state != "decided":
        row.said, row.state, row.patient_key = decision.said, found.state, found.patient_key
        row.score, row.reason = round(found.score * 100), found.reason
        row.candidates = [
            {"patient": key, "score": one.score, "reasons": [[r.code, r.weight] for r in one.reasons]}
            for key, one in found.candidates
        ]
    session.flush()


def tell_of_held(session: Session, project_id: int, now: datetime) -> int:
    """Put the project's held studies before a person, once for all; how many there are."""
    project = session.get_one(MigrationProject, project_id)
    held = ledger.states(session, project_id).get("held", 0)
    reference = f"held {project.name}"
    if held:
        exceptions.wait(
            session, "migration", reference, kind="migration-held", now=now,
            what=f"{held} studies of {project.name} are held: whose they are, or what they are to say, is not clear.",
            suggestion="Decide patient by patient, both sides beside each other.",
            facts={"source": project.name, "count": held},
            actions=[{"label": "Open the held studies", "href": f"/migrations/{project_id}/held"}],
        )  # fmt: skip
    else:
        exceptions.decide(
            session, "migration", reference, who="the migration itself", decision="nothing is held", now=now,
            writer=ledger.WRITER,
        )  # fmt: skip
    return held


def _page(
    session: Session, project_id: int, number: int, ids: Sequence[int], planner: Planner, batches: _Batches,
    now: datetime,
) -> bool:  # fmt: skip
    """Decide these studies, unless somebody else did; False where another version is in force by now."""
    project = session.get_one(MigrationProject, project_id, with_for_update=True)
    version = current(session, project)
    if version is None or version.version != number:
        return False
    planner.use(session)
    states, rules = Counter(version.counts.get("states", {})), Counter(version.counts.get("rules", {}))
    still = session.scalars(_ids(project_id, DECIDABLE, number).where(MigrationStudy.id.in_(ids))).all()
    order, here = {key: place for place, key in enumerate(ids)}, begun(session, ids)
    for study in _studies(session, sorted(still, key=order.__getitem__)):
        state, decision = carry_out_one(
            session, planner, study, number, now, is_begun=study.id in here, batch=batches.of
        )
        states[state] += 1
        rules.update(_rules(decision) if decision else ())
    session.execute(
        update(PlanVersion)
        .where(PlanVersion.project_id == project_id, PlanVersion.version == number)
        .values(counts={"states": dict(states), "rules": dict(rules)})
    )
    return True


class _Batches:
    """Which batch the next study comes into; one that has a batch keeps it."""

    def __init__(self, plan: MigrationPlan, session: Session, project_id: int) -> None:
        self._how = plan.batches
        query = select(MigrationStudy.batch).where(MigrationStudy.project_id == project_id)
        self._number = session.scalars(query.order_by(MigrationStudy.batch.desc()).limit(1)).first() or 0
        self._in_it = self._how.studies

    def of(self, study: MigrationStudy, state: str) -> int:
        if study.batch or state == "skipped":
            return study.batch
        if self._how.by == "year":
            return int(study.study_date[:4]) if study.study_date[:4].isdigit() else 1
        if self._how.by == "one":
            return 1
        if self._in_it >= self._how.studies:
            self._number, self._in_it = self._number + 1, 0
        self._in_it += 1
        return self._number


def _ids(
    project_id: int, states: Sequence[str] = (), number: int | None = None, oldest_first: bool = False
) -> Any:  # fmt: skip
    """Ids of studies, in the order in which they are to move; with `number` those that this version hasn't decided."""
    day = MigrationStudy.study_date if oldest_first else MigrationStudy.study_date.desc()
    query = select(MigrationStudy.id).where(MigrationStudy.project_id == project_id).order_by(day, MigrationStudy.id)
    if states:
        query = query.where(MigrationStudy.state.in_(states))
    return query if number is None else query.where(MigrationStudy.plan_version < number)


def _studies(session: Session, ids: Sequence[int]) -> Iterator[MigrationStudy]:
    """The studies in this order; the session forgets each page."""
    for n in range(0, len(ids), PAGE):
        page = ids[n : n + PAGE]
        found = {one.id: one for one in session.scalars(select(MigrationStudy).where(MigrationStudy.id.in_(page)))}
        for key in page:
            if key in found:
                yield found[key]
        for one in found.values():
            session.expunge(one)


def _rules(decision: Decision) -> set[str]:
    """The rules that changed something; values of a matched patient are no rule's."""
    return {rule for rule in decision.by.values() if " " not in rule}


def _count(made: Preview, decision: Decision, patients: set[str]) -> None:
    made.states[decision.state] += 1
    made.rules.update(_rules(decision))
    if decision.reason:
        made.reasons[decision.reason] += 1
    if decision.identity and decision.identity not in patients:
        patients.add(decision.identity)
        made.matched[decision.match.state if decision.match else "decided"] += 1


def _row(study: MigrationStudy, decision: Decision) -> Row:
    facts = facts_of(study)
    changes = tuple(
        (keyword, facts.get(keyword, ""), value, decision.by.get(keyword, ""))
        for keyword, value in decision.changes.items()
    )
    return Row(study.study_uid, study.study_date, study.modalities, decision.state, decision.reason, changes)


def _warnings(plan: MigrationPlan, known: set[str]) -> list[str]:
    """Rules that look at what no study of the inventory has."""
    faults = []
    for rule in plan.rules:
        steps: tuple[Mapping[str, Any], ...] = (rule.strip, rule.cut, rule.pad, rule.prefix, rule.map_)
        asked = {*rule.when, *rule.tidy, *rule.copy_.values(), *(keyword for step in steps for keyword in step)}
        if missing := sorted(asked - known):
            faults.append(f"rule {rule.name}: the inventory has {', '.join(missing)} of no study")
    for skip in plan.skip:
        if missing := sorted(set(skip.when) - known):
            faults.append(f"rule {skip.name}: the inventory has {', '.join(missing)} of no study")
    return faults
