"""What a plan makes of each study of the inventory: left out, held, or ready with what changes on its way.

`Planner.decide` is what a preview shows and what taking the plan writes: the same decision. Whose a study is depends on
decisions of persons, too (migration_match); those outlive the versions of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import cleansing, whose
from migration.cleansing import OF_PATIENT, Cleansed
from migration.whose import Found, Register
from zambezi import matching
from zambezi.config.settings.migration_plan import Matching, MigrationPlan
from zambezi.database.tables import MigrationMatch, MigrationStudy, Patient, Study
from zambezi.identifiers import survivor_of
from zambezi.matching import Person

#: So much alike are two patients of the source to whom a rule may give one identifier (the identifier counts, too).
_ONE_PERSON = 0.8


@dataclass(frozen=True)
class Decision:
    """What becomes of one study, and why; `match` where its patient was looked for."""

    state: str  # ready, skipped, held
    reason: str = ""
    changes: dict[str, str] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)  # the rule that gave each change
    identity: str = ""
    said: dict[str, str] = field(default_factory=dict)  # of the patient, as rules leave it
    match: Found | None = None


def facts_of(study: MigrationStudy) -> dict[str, str]:
    """All that rules may look at."""
    return {
        "PatientID": study.patient_id, "StudyDate": study.study_date, "ModalitiesInStudy": study.modalities,
        **study.facts, "StudyInstanceUID": study.study_uid,
    }  # fmt: skip


def _number(facts: Mapping[str, str]) -> tuple[str, str]:
    return facts.get("PatientID", ""), facts.get("IssuerOfPatientID", "")


def _touches_identifiers(plan: MigrationPlan) -> bool:
    steps = (
        step
        for rule in plan.rules
        for step in (rule.strip, rule.cut, rule.pad, rule.prefix, rule.copy_, rule.map_, rule.set_, rule.fill)
    )
    return any("PatientID" in step for step in steps)


class Planner:
    """Decides study by study under one plan; reads patients once, when the plan matches them."""

    def __init__(self, session: Session, project_id: int, plan: MigrationPlan) -> None:
        self._session = session
        self._project_id = project_id
        self.plan = plan
        #: Without matching it is read when somebody is held for another reason.
        self._register = Register.of(session) if plan.matching else None
        self._found: dict[str, Found] = {}
        self._decided: dict[str, MigrationMatch] = {}
        self._decided_until = ""
        self.use(session)
        #: Whom studies were taken for, as far as it is written down already.
        self.remembered: set[str] = set()
        self._shared = self._made_one() if _touches_identifiers(plan) else frozenset()

    def use(self, session: Session) -> None:
        """Look things up in this session from now on; what persons have decided meanwhile counts."""
        self._session = session
        query = select(MigrationMatch).where(
            MigrationMatch.project_id == self._project_id, MigrationMatch.state == "decided",
            MigrationMatch.decided_at >= self._decided_until,
        )  # fmt: skip
        for row in session.scalars(query):
            self._decided[row.identity] = row
            self._decided_until = max(self._decided_until, row.decided_at or "")

    def decide(self, study: MigrationStudy) -> Decision:
        """What becomes of this study. Nothing is written."""
        facts = facts_of(study)
        if (skip := cleansing.skipped(self.plan.skip, facts)) is not None:
            return Decision("skipped", f"{skip.name}: {skip.because}")
        made = cleansing.cleansed(self.plan.rules, facts)
        if made.faults:
            return Decision("held", "; ".join(made.faults), made.changes, made.by)
        several = study.patient_id if "\\" in study.patient_id else ""
        is_shared = _number({**facts, **made.changes}) in self._shared
        is_unclear = is_shared or (several and OF_PATIENT & set(made.changes))
        if self.plan.matching is None and not is_unclear:
            return Decision("ready", "", made.changes, made.by)
        return self._whose(facts, made, several, is_shared)

    def _whose(self, facts: Mapping[str, str], made: Cleansed, several: str, is_shared: bool) -> Decision:
        identity = whose.identity(facts, several)
        facts = {**facts, **made.read}
        became = {**facts, **made.changes}
        said = {
            keyword: became[keyword]
            for keyword in ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
            if became.get(keyword)
        }
        decided = self._decided.get(identity)
        if decided is not None:
            decision = Decision("ready", "", made.changes, made.by, identity, said)
            return self._as_decided(decided, decision, facts, several)
        found = self._found.get(identity)
        if found is None:
            found = self._found[identity] = self._look(whose.person(said), several, is_shared)
        decision = Decision("ready", "", made.changes, made.by, identity, said, found)
        if found.state == "held":
            return replace(decision, state="held", reason=found.reason)
        if found.patient_key is not None:
            return self._of_patient(decision, found.patient_key, facts, f"matching {found.score:.2f}")
        return decision

    def _look(self, wanted: Person, several: str, is_shared: bool) -> Found:
        if self._register is None:
            self._register = Register.of(self._session)
        known, how = self._register.alike(wanted), self.plan.matching or Matching()
        found = whose.decide(wanted, known, lambda: self._strangers(wanted.patient_id), how)
        if several:
            patients = len(several.split("\\"))
            return replace(found, state="held", patient_key=None, reason=whose.SEVERAL.format(patients))
        if is_shared:
            return replace(found, state="held", patient_key=None, reason=whose.SHARED)
        return found

    def _made_one(self) -> frozenset[tuple[str, str]]:
        """Identifiers that rules give to patients of the source who aren't one person, by all that is said of them."""
        query = (
            select(MigrationStudy).where(MigrationStudy.project_id == self._project_id)
            .execution_options(yield_per=1000)
        )  # fmt: skip
        first: dict[tuple[str, str], tuple[str, Person]] = {}
        shared = set()
        for study in self._session.scalars(query):
            facts = facts_of(study)
            made = cleansing.cleansed(self.plan.rules, facts)
            became = {**facts, **made.read, **made.changes}
            number, one = _number(became), whose.person(became)
            source, other = first.setdefault(number, (facts["PatientID"], one))
            if number[0] and source != facts["PatientID"] and matching.likeness(one, other).score < _ONE_PERSON:
                shared.add(number)
            self._session.expunge(study)
        return frozenset(shared)

    def _strangers(self, patient_id: str) -> list[Person]:
        """Who has images in the archive under this number."""
        if not patient_id:
            return []
        rows = self._session.execute(
            select(Study.patient_name, Study.birth_date, Study.sex)
            .where(Study.patient_id == patient_id, Study.instances > 0)
            .distinct()
            .limit(20)
        )
        return [Person(patient_id, "", name, born, sex) for name, born, sex in rows]

    def _as_decided(
        self, decided: MigrationMatch, decision: Decision, facts: Mapping[str, str], several: str
    ) -> Decision:
        words = f"decided by {decided.decided_by}"
        if decided.patient_key is not None:
            return self._of_patient(decision, decided.patient_key, {} if several else facts, words)
        changes, by = dict(decision.changes), dict(decision.by)
        if several:
            changes = {keyword: value for keyword, value in changes.items() if keyword not in OF_PATIENT}
        if decided.given_id:
            changes["PatientID"], by["PatientID"] = decided.given_id, words
        return replace(decision, changes=changes, by=by)

    def _of_patient(self, decision: Decision, key: int, facts: Mapping[str, str], by: str) -> Decision:
        """The study gets what is known of the patient here; where that is nothing else, it changes nothing."""
        patient = survivor_of(self._session, self._session.get_one(Patient, key))
        given = {
            "PatientID": patient.patient_id, "IssuerOfPatientID": patient.issuer,
            "PatientName": f"{patient.family_name}^{patient.given_name}".rstrip("^"),
            "PatientBirthDate": patient.birth_date or "", "PatientSex": patient.sex or "",
        }  # fmt: skip
        wanted = self.plan.matching.give if self.plan.matching else tuple(given)
        changes, rules = dict(decision.changes), dict(decision.by)
        for keyword in wanted:
            if not given[keyword] or (keyword == "PatientSex" and given[keyword] == "U"):
                continue
            if facts.get(keyword, "") == given[keyword]:
                changes.pop(keyword, None)
                rules.pop(keyword, None)
            else:
                changes[keyword], rules[keyword] = given[keyword], by
        return replace(decision, changes=changes, by=rules)
