"""Plans on an inventory: what they show is what they do, nobody is merged unseen, nothing moves undecided."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from migration import deciding, ledger, plan_file, plans, whose
from zambezi import clock
from zambezi.config.load import ConfigurationFaults
from zambezi.config.settings.migration_plan import Matching
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AuditEntry,
    ExceptionItem,
    MigrationInstance,
    MigrationMatch,
    MigrationProject,
    MigrationStudy,
    Patient,
    PlanVersion,
    Study,
)
from zambezi.matching import Person

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
AT = clock.text(NOW)
ANA = {"PatientName": "SILVA^ANA", "PatientBirthDate": "19700512", "PatientSex": "F"}
RUI = {"PatientName": "TEMBO^RUI", "PatientBirthDate": "19810930", "PatientSex": "M"}


class House:
    """A database with one project, whose inventory is made by `found`."""

    def __init__(self, made: Sessions, reading: Sessions | None = None) -> None:
        self.sessions, self.reading = made, reading or made
        with made.begin() as session:
            project = MigrationProject(name="p", source="OLD", state="planned", created_at=AT, updated_at=AT)
            session.add(project)
            session.flush()
            self.project_id = project.id
            session.expunge(project)

    def patient(self, patient_id: str, name: str, born: str = "", sex: str = "") -> int:
        family, _, given = name.partition("^")
        with self.sessions.begin() as session:
            one = Patient(
                patient_id=patient_id, issuer="HCM", family_name=family, given_name=given, birth_date=born or None,
                sex=sex or None, created_at=AT, updated_at=AT,
            )  # fmt: skip
            session.add(one)
            session.flush()
            return one.id

    def found(self, uid: str, patient_id: str, date: str = "20200101", **facts: str) -> None:
        with self.sessions.begin() as session:
            session.add(
                MigrationStudy(
                    project_id=self.project_id, study_uid=uid, patient_id=patient_id, study_date=date, next_at=AT,
                    facts={"PatientID": patient_id.split("\\")[0], **facts},
                )
            )  # fmt: skip

    def take(self, **document: Any) -> dict[str, int]:
        made = plans.record(self.sessions, self.project_id, document, who="eva", because="a test", now=NOW)
        plans.catch_up(self.sessions, self.project_id, NOW, reading=self.reading)
        with self.sessions.begin() as session:
            counts: dict[str, int] = session.get_one(PlanVersion, made.id).counts["states"]
        return counts

    def study(self, uid: str) -> MigrationStudy:
        with self.sessions.begin() as session:
            return session.scalars(select(MigrationStudy).where(MigrationStudy.study_uid == uid)).one()

    def match(self, patient_id: str) -> MigrationMatch:
        with self.sessions.begin() as session:
            return session.scalars(select(MigrationMatch).where(MigrationMatch.patient_id == patient_id)).one()

    def project(self) -> MigrationProject:
        with self.sessions.begin() as session:
            return session.get_one(MigrationProject, self.project_id)

    def claim(self) -> str | None:
        project = self.project()
        with self.sessions.begin() as session:
            held = ledger.claim(session, project, now=NOW, owner="w")
            return held.study_uid if held else None


@pytest.fixture
def house(tables_url: str) -> Iterator[House]:
    engine, reading = connect(tables_url, "test"), connect(tables_url, "test", reading=True)
    yield House(sessions(engine, "test"), sessions(reading, "test"))
    engine.dispose()
    reading.dispose()


def test_what_a_preview_shows_is_what_is_then_done(house: House) -> None:
    house.found("1.1", "OLD-7", **ANA, AccessionNumber="RX 12")
    house.found("1.2", "QA-1", PatientName="PHANTOM^X")
    document = {
        "Skip": [{"Name": "phantoms", "When": {"PatientID": {"Pattern": "QA*"}}, "Because": "no patients"}],
        "Rules": [
            {"Name": "ids", "Strip": {"PatientID": {"Prefix": "OLD-"}}, "Pad": {"PatientID": {"Length": 5}}},
            {"Name": "never", "When": {"InstitutionName": "X"}, "Set": {"StudyID": "1"}},
        ],
    }
    with house.sessions.begin() as session:
        project = session.get_one(MigrationProject, house.project_id)
        shown = plans.preview(session, project, plan_file.checked(document))
    assert shown.states == {"ready": 1, "skipped": 1}
    assert shown.warnings == ["rule never: the inventory has InstitutionName of no study"]
    by_uid = {row.study_uid: row for row in shown.rows}
    assert by_uid["1.1"].changes == (("PatientID", "OLD-7", "00007", "ids"),)
    assert house.study("1.1").changes == {}, "nothing is written by looking"
    assert house.take(**document) == {"ready": 1, "skipped": 1}
    assert house.study("1.1").changes == {"PatientID": "00007"}
    assert (house.study("1.2").state, house.study("1.2").reason) == ("skipped", "phantoms: no patients")


def test_a_match_is_taken_by_itself_only_where_nobody_else_comes_near(house: House) -> None:
    house.patient("77", "Silva^Ana", "19700512", "F")
    house.patient("88", "Tembo^Rui", "19810930", "M")
    house.patient("89", "Tembo^Rui", "19810930", "M")
    house.found("1.1", "77", **ANA)  # the same number, name, birth date, sex
    house.found("1.2", "4712", **RUI)  # two namesakes were born on his birthday
    house.found("1.3", "4711", **ANA)  # another number
    house.found("1.4", "77", PatientName="MOYO^JOHN", PatientSex="M")  # her number, another person
    house.found("1.5", "555", PatientName="NYONI^GRACE", PatientBirthDate="19990303", PatientSex="F")  # nobody's
    house.found("1.6", "9\\10", **ANA)
    assert house.take(Matching={}) == {"ready": 2, "held": 4}
    assert house.study("1.1").changes == {"IssuerOfPatientID": "HCM", "PatientName": "Silva^Ana"}
    assert house.study("1.5").changes == {}
    assert len(house.match("4712").candidates) == 2
    assert house.study("1.3").reason == "a patient here resembles it, but not enough to be sure"
    assert house.study("1.4").reason == "its identifier is another patient's here"
    assert house.study("1.6").reason == "the source has the study under 2 patients"
    assert set(iter(house.claim, None)) == {"1.1", "1.5"}
    with house.sessions.begin() as session:
        (waits,) = session.scalars(select(ExceptionItem)).all()
        told = " ".join(entry.payload.decode() for entry in session.scalars(select(AuditEntry)))
    assert (waits.kind, waits.facts["count"]) == ("migration-held", 4)
    assert "silva" not in (told + waits.what).casefold()


def test_a_name_in_a_wrong_character_set_is_matched_as_it_was_written(house: House) -> None:
    house.patient("77", "Conceição^Inês", "19700512", "F")
    said = {**ANA, "PatientName": "Conceição^Inês".encode().decode("latin-1")}
    house.found("1.1", "77", IssuerOfPatientID="HCM", **said)
    assert house.take(Matching={}, Rules=[{"Name": "u", "CharacterSet": "guess"}]) == {"ready": 1}
    assert house.study("1.1").changes == {"SpecificCharacterSet": "guess"}


def test_two_who_resemble_it_as_much_are_told_apart_by_a_person() -> None:
    wanted = Person("1", "", "TEMBO^RUI", "19810930", "M")
    known = [(8, Person("88", "HCM", "Tembo^Rui", "19810930", "M")), (9, Person("89", "HCM", "Tembo^Rui", "19810930"))]
    how = Matching(accept=0.7, look=0.5)
    assert whose.decide(wanted, known, list, how).reason == "2 patients here resemble it as much"
    assert whose.decide(wanted, known[:1], list, how).patient_key == 8


def test_images_that_the_archive_has_of_somebody_else_under_the_number_hold_it(house: House) -> None:
    with house.sessions.begin() as session:
        session.add(
            Study(study_uid="9.9", orthanc_id="o", cause="modality", patient_id="5", patient_name="MACHEL^JOSE",
                  instances=3, first_at=AT, last_at=AT)
        )  # fmt: skip
    house.found("1.1", "5", **ANA)
    assert house.take(Matching={}) == {"held": 1}
    with pytest.raises(deciding.DecisionRefused, match="another identifier"):
        deciding.decide(house.sessions, house.match("5").id, None, who="eva", because="her own", now=NOW)
    deciding.decide(house.sessions, house.match("5").id, None, given_id="5-A", who="eva", because="her own", now=NOW)
    assert (house.study("1.1").state, house.study("1.1").changes) == ("ready", {"PatientID": "5-A"})


def test_rules_never_make_one_patient_of_two(house: House) -> None:
    house.found("1.1", "A-12", **ANA)
    house.found("1.2", "B-12", **RUI)
    house.found("1.3", "A-13", **ANA)
    house.found("1.4", "B-13", **ANA)  # one person, whom the source had under two numbers
    strip = [{"Name": n, "Strip": {"PatientID": {"Prefix": f"{n}-"}}} for n in ("A", "B")]
    assert house.take(Rules=strip) == {"held": 2, "ready": 2}
    assert {house.study(uid).reason for uid in ("1.1", "1.2")} == {
        "rules give it one identifier with another patient of the source"
    }


def test_a_person_s_decision_lets_studies_go_on_and_holds_for_what_comes_later(house: House) -> None:
    ana = house.patient("77", "Silva^Ana", "19700512", "F")
    house.found("1.1", "4711", **ANA)
    house.take(Matching={})
    match = house.match("4711")
    assert [one["patient"] for one in match.candidates] == [ana]
    assert deciding.decide(house.sessions, match.id, ana, who="eva", because="birth certificate", now=NOW) == 1
    assert house.study("1.1").state == "ready"
    assert house.study("1.1").changes["PatientID"] == "77"
    with house.sessions.begin() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.event == "migration-patient-decided")).one()
        assert session.scalars(select(ExceptionItem)).one().decided_by == "the migration itself"
    facts = json.loads(entry.payload)
    assert (facts["who"], facts["reason"], facts["patient"]) == ("eva", "birth certificate", ana)
    house.found("1.2", "4711", **ANA)
    assert house.claim() == "1.1"
    assert house.claim() is None, "what came later isn't claimed before it is decided"
    assert plans.catch_up(house.sessions, house.project_id, NOW) == 1
    assert house.study("1.2").changes["PatientID"] == "77"
    assert house.claim() == "1.2"


def test_a_decision_can_be_changed_until_something_of_the_patient_is_here(house: House) -> None:
    ana = house.patient("77", "Silva^Ana", "19700512", "F")
    house.found("1.1", "4711", **ANA)
    house.take(Matching={})
    how: dict[str, Any] = {"who": "eva", "because": "her card", "now": NOW}
    deciding.decide(house.sessions, house.match("4711").id, ana, **how)
    deciding.decide(house.sessions, house.match("4711").id, None, **how)
    assert (house.study("1.1").state, house.study("1.1").changes) == ("ready", {})
    with house.sessions.begin() as session:
        study = session.scalars(select(MigrationStudy)).one()
        session.add(MigrationInstance(study_id=study.id, sop_uid="1.1.1", series_uid="1", orthanc_id="o"))
    with pytest.raises(deciding.DecisionRefused, match="correct the study instead"):
        deciding.decide(house.sessions, house.match("4711").id, ana, **how)


def test_a_value_that_can_be_none_holds_the_study_until_there_is_another_plan(house: House) -> None:
    house.found("1.1", "1", **ANA)
    assert house.take(Rules=[{"Name": "long", "Prefix": {"PatientID": "x" * 64}}]) == {"held": 1}
    with house.sessions.begin() as session:
        assert list(deciding.impossible(session, house.project_id).values()) == [1]
    assert house.take(Rules=[{"Name": "short", "Prefix": {"PatientID": "x"}}]) == {"ready": 1}
    with house.sessions.begin() as session:
        assert deciding.impossible(session, house.project_id) == {}


def test_many_are_decided_by_a_rule_that_a_person_gives(house: House) -> None:
    house.patient("77", "Silva^Ana", "19700512", "F")
    house.patient("88", "Tembo^Rui", "19810930", "M")
    house.found("1.1", "4711", **ANA)  # 0.75 with one alone
    house.found("1.2", "4712", PatientName="TEMBO^RUI", PatientBirthDate="19810931")  # less
    house.take(Matching={})
    chosen = deciding.by_score(house.sessions, house.project_id, 0.7)
    assert [row.patient_id for row in chosen] == ["4711"]
    decided = deciding.decide_all(house.sessions, house.project_id, 0.7, who="eva", because="checked ten", now=NOW)
    assert decided == 1
    assert house.study("1.1").state == "ready"
    assert house.study("1.2").state == "held"


def test_a_new_version_leaves_what_is_here_as_it_was_decided(house: House) -> None:
    house.found("1.1", "1", **ANA)
    house.found("1.2", "2", **RUI)
    house.take(Rules=[{"Name": "a", "Set": {"StudyID": "one"}}])
    with house.sessions.begin() as session:
        study = session.scalars(select(MigrationStudy).where(MigrationStudy.study_uid == "1.1")).one()
        session.add(MigrationInstance(study_id=study.id, sop_uid="1.1.1", series_uid="1", orthanc_id="o"))
    house.take(Rules=[{"Name": "a", "Set": {"StudyID": "two"}}])
    assert house.study("1.1").changes == {"StudyID": "one"}
    assert house.study("1.2").changes == {"StudyID": "two"}
    assert {house.study(uid).plan_version for uid in ("1.1", "1.2")} == {2}
    with house.sessions.begin() as session:
        project = session.get_one(MigrationProject, house.project_id)
        assert [one.version for one in plans.versions(session, project.id)] == [2, 1]
        assert project.plan["Version"] == 2
        assert project.plan["Level"] == "source"
        session.execute(update(MigrationProject).values(state="running"))
    with pytest.raises(plans.PlanRefused, match="pause it first"):
        house.take()


def test_what_was_under_way_before_a_new_version_is_finished_under_the_old_one(house: House) -> None:
    house.found("1.1", "1", **ANA)
    house.found("1.2", "2", **RUI)
    house.take(Rules=[{"Name": "a", "Set": {"StudyID": "one"}}])
    first = house.claim()
    stale = house.project()
    house.take(Rules=[{"Name": "a", "Set": {"StudyID": "two"}}])
    assert first is not None
    with house.sessions.begin() as session:
        session.execute(update(MigrationStudy).values(lease_until=""))
        taken = [ledger.claim(session, stale, now=NOW, owner="w") for _ in range(2)]
    assert {one.study_uid for one in taken if one} == {"1.1", "1.2"}, "the dead worker's, too"
    assert house.study(first).changes == {"StudyID": "one"}
    house.found("1.3", "3", **ANA)
    with house.sessions.begin() as session:
        assert ledger.claim(session, stale, now=NOW, owner="w") is None


def test_batches_are_numbered_in_the_order_in_which_studies_move(house: House) -> None:
    for n in range(5):
        house.found(f"1.{n}", str(n), date=f"202{n}0101")
    house.take(Batches={"By": "count", "Studies": 2})
    assert [house.study(f"1.{n}").batch for n in (4, 3, 2, 1, 0)] == [1, 1, 2, 2, 3]


def test_a_file_of_a_map_becomes_part_of_the_plan_and_faults_say_where(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("old;new\n1;0001\n2;0002\n", encoding="utf-8-sig")
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"Rules": [{"Name": "ids", "MapFile": {"PatientID": "ids.csv"}}]}))
    document = plan_file.read(file)
    assert plan_file.checked(document).rules[0].map_["PatientID"] == {"old": "new", "1": "0001", "2": "0002"}
    (tmp_path / "ids.csv").write_text("1,a\n1,b\n")
    with pytest.raises(ConfigurationFaults, match=r"Plan.Rules\[0\].MapFile.PatientID.*line 2"):
        plan_file.read(file)
    file.write_text('{"Ordr": "newest", "Batches": {"Studies": "many"}}')
    with pytest.raises(ConfigurationFaults) as faults:
        plan_file.read(file)
    assert "Plan.Ordr" in str(faults.value)
    assert "Plan.Batches.Studies" in str(faults.value)


def test_a_kill_in_the_middle_costs_nothing_and_two_at_once_decide_each_study_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "PAGE", 2)
    for n in range(7):
        house.found(f"1.{n}", f"OLD-{n}")
    document = {"Rules": [{"Name": "ids", "Strip": {"PatientID": {"Prefix": "OLD-"}}}]}
    plans.record(house.sessions, house.project_id, document, who="eva", because="a test", now=NOW)

    class Killed(BaseException):
        pass

    def die(done: int, _total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        plans.catch_up(house.sessions, house.project_id, NOW, die)
    with house.sessions.begin() as session:
        assert plans.undecided(session, session.get_one(MigrationProject, house.project_id)) == 3
    errors: list[BaseException] = []

    def work() -> None:
        try:
            plans.catch_up(house.sessions, house.project_id, NOW)
        except BaseException as error:  # noqa: BLE001  # a thread's failure is the test's
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    with house.sessions.begin() as session:
        (version,) = plans.versions(session, house.project_id)
        assert version.counts == {"states": {"ready": 7}, "rules": {"ids": 7}}
    assert {house.study(f"1.{n}").changes["PatientID"] for n in range(7)} == set("0123456")
