"""What persons decide, whose turn it is, passes for what is new, and when the old archive may be switched off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import select

from migration import cutover, delta, ledger, settling, turns
from migration.cutover import Facts
from migration.inventory import Coverage, Found
from migration.settling import Refused, Wanted
from migration.source import Counted, Named
from zambezi import announcing, audit, clock, exceptions
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AnnouncedStudy,
    AuditEntry,
    Deletion,
    ExceptionItem,
    MigrationInstance,
    MigrationMatch,
    MigrationPass,
    MigrationProject,
    MigrationStudy,
    Order,
    Patient,
    Series,
    Study,
)

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
AT = clock.text(NOW)


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "migration")
    factory = sessions(engine, "migration")
    with factory.begin() as session:
        session.add(MigrationProject(id=1, name="p", source="L", state="running", created_at=AT, updated_at=AT))
    yield factory
    engine.dispose()


def add(session, uid: str, state: str = "ready", **columns) -> MigrationStudy:
    row = MigrationStudy(project_id=1, study_uid=uid, state=state, **{"next_at": AT, **columns})
    session.add(row)
    session.flush()
    if state in ledger.FOR_A_PERSON:
        exceptions.wait(session, "migration", uid, what="w", suggestion="s", now=NOW, kind=f"study-{state}")
    return row


def project(session) -> MigrationProject:
    return session.get_one(MigrationProject, 1)


def test_a_decision_names_who_and_why_in_the_study_the_exception_and_the_audit(made):
    with made.begin() as session:
        row = add(session, "1", "incomplete", reason="all but 1")
        settling.decide(session, project(session), row, "waive", "the film is lost", "ana", NOW)
    with made.begin() as session:
        row, item = session.query(MigrationStudy).one(), session.query(ExceptionItem).one()
        assert (row.state, row.reason) == ("waived", "ana: the film is lost (before: all but 1)")
        assert (item.decided_by, item.decision) == ("ana", "waive: the film is lost")
        entries = [json.loads(one.payload) for one in session.scalars(select(AuditEntry).order_by(AuditEntry.seq))]
        assert {"who": "ana", "state": "waived", "study_uid": "1"}.items() <= entries[-1].items()
        assert audit.verify(session) == []


@pytest.mark.parametrize(
    ("state", "decision", "because", "words"),
    [
        ("parked", "keep-source", "x", "allowed: retry, waive"), ("verified", "waive", "x", "allowed: retry"),
        ("rolled-back", "retry", "x", "allowed: nothing"),
        ("parked", "waive", " ", "needs a reason"), ("conflict", "keep-ours", "", "needs a reason"),
        ("conflict", "keep-source", "x", "journal knows no differing image"),
    ],
)  # fmt: skip
def test_what_may_not_be_decided_is_refused_in_words(made, state, decision, because, words):
    with made.begin() as session, pytest.raises(Refused, match=words):
        settling.decide(session, project(session), add(session, "1", state), decision, because, "ana", NOW)


def test_who_wants_the_sources_asks_for_the_deletion_of_ours_and_nothing_else_happens(made):
    with made.begin() as session:
        row = add(session, "1", "conflict", reason="other pixels", expected=2)
        for uid, verdict in (("1.1", "different"), ("1.2", "equal")):
            session.add(MigrationInstance(study_id=row.id, sop_uid=uid, series_uid="s", verdict=verdict))
        session.add(Study(study_uid="1", orthanc_id="o", cause="modality", first_at=AT, last_at=AT))
        session.add(Series(series_uid="s", orthanc_id="os", study_uid="1"))
        session.flush()
        settling.decide(session, project(session), row, "keep-source", "ours was a test", "ana", NOW)
        asked = session.query(Deletion).one()
        assert (asked.state, asked.asked_by, asked.sop_uid, asked.study_orthanc_id) == ("asked", "ana", "1.1", "o")
        assert row.state == "conflict"
        assert f"deletions {asked.id} wait for another person" in row.reason
        assert exceptions.is_waiting(session, "migration", "1"), "it is not settled yet"
        session.add(Study(study_uid="1", orthanc_id="o2", cause="modality", first_at=AT, last_at=AT))
        session.flush()
        with pytest.raises(Refused, match="under 2 patients"):
            settling.decide(session, project(session), row, "keep-source", "x", "ana", NOW)


def test_by_rule_only_what_the_rule_says_and_in_batches(made, monkeypatch):
    monkeypatch.setattr(settling, "BATCH", 2)
    with made.begin() as session:
        for n in range(5):
            add(session, f"c{n}", "parked", reason="DIMSE status 0xC000", attempts=3)
        add(session, "other", "parked", reason="timed out")
        add(session, "d", "divergent", reason="0xC000")
        done, after = settling.decide_many(session, project(session), Wanted("parked", "0xc000"), "retry", "", "a", NOW)
        assert (done, after is None) == (2, False)
        while after is not None:
            more, after = settling.decide_many(
                session, project(session), Wanted("parked", "0xc000"), "retry", "", "a", NOW, after
            )
            done += more
        assert done == 5
        assert ledger.states(session, 1) == {"ready": 5, "parked": 1, "divergent": 1}
        assert {row.attempts for row in session.query(MigrationStudy).filter_by(state="ready")} == {0}


def test_a_patient_in_the_room_goes_before_everything_and_what_is_at_rest_stays(made):
    with made.begin() as session:
        add(session, "old", study_date="19990101", patient_id="P1")
        add(session, "again", "retrying", patient_id="P1", next_at=clock.text(NOW + timedelta(hours=1)))
        add(session, "done", "verified", patient_id="P1")
        add(session, "new", study_date="20260101")
        found = settling.urgent(session, 1, "P1", "patient is in the room", "ana", NOW)
        assert {row.study_uid for row in found} == {"old", "again"}
        with pytest.raises(Refused, match="needs a reason"):
            settling.urgent(session, 1, "P1", " ", "ana", NOW)
    with made.begin() as session:
        taken = [ledger.claim(session, project(session), now=NOW, owner="w").study_uid for _ in range(3)]
    assert taken == ["old", "again", "new"]


def expect(session, patient_id: str, hours: float, merged: str = "") -> None:
    patient = Patient(patient_id=patient_id, issuer="H", family_name="X", created_at=AT, updated_at=AT)
    session.add(patient)
    session.flush()
    if merged:
        times = {"created_at": AT, "updated_at": AT}
        session.add(Patient(patient_id=merged, issuer="H", family_name="X", merged_into=patient.id, **times))
    session.add(
        Order(
            patient_key=patient.id, accession_number=f"A{patient_id}", study_uid=f"o{patient_id}", procedure_id="1",
            step_id="1", scheduled_at=clock.text(NOW + timedelta(hours=hours)), created_at=AT, updated_at=AT,
        )
    )  # fmt: skip


def test_priors_of_expected_patients_come_first_the_sooner_the_earlier_and_no_longer_than_they_are_expected(made):
    with made.begin() as session:
        expect(session, "LATER", 100)
        expect(session, "SOON", 2, merged="OLDID")
        expect(session, "FAR", 24 * 30)
        for patient in ("LATER", "SOON", "OLDID", "FAR", "NOBODY"):
            add(session, patient, patient_id=patient, study_date="20200101")
        add(session, "was", patient_id="GONE", priority=40)
        soon = session.scalars(select(Patient.id).where(Patient.patient_id == "SOON")).one()
        session.add(
            MigrationMatch(project_id=1, identity="x", patient_id="THERE", patient_key=soon, state="matched", said={})
        )
        add(session, "THERE", patient_id="THERE")
        expected = turns.expected_patients(session, NOW)
        assert turns.prioritise(session, project(session), expected) == 5
        ranks = {row.study_uid: row.priority for row in session.query(MigrationStudy)}
        assert ranks == {"LATER": 74, "SOON": 99, "OLDID": 99, "THERE": 99, "FAR": 0, "NOBODY": 0, "was": 0}
        assert turns.prioritise(session, project(session), expected) == 0


def test_what_is_settled_is_announced_no_more_once_the_journal_has_told_of_all_of_it(made):
    old, late = clock.text(NOW - timedelta(hours=2)), clock.text(NOW - timedelta(days=8))
    with made.begin() as session:
        for uid, state, since, stored in (
            ("told", "verified", old, 2), ("untold", "verified", old, 3), ("fresh", "verified", AT, 2),
            ("parked", "parked", old, 2), ("long", "parked", late, 2), ("ready", "ready", old, 0),
        ):  # fmt: skip
            add(session, uid, state, next_at=since, stored=stored)
            session.add(
                Study(study_uid=uid, orthanc_id="o", cause="migration", instances=2, first_at=AT, last_at=AT)
            )  # fmt: skip
        generation = announcing.announce_studies(
            session, ["told", "untold", "fresh", "parked", "long", "ready", "else"], "migration", "p", NOW
        )
        announcing.announce_studies(session, ["foreign"], "migration", "q", NOW)
        assert turns.forget(session, project(session), NOW) == 2
        left = set(session.scalars(select(AnnouncedStudy.study_uid)))
    assert left == {"untold", "fresh", "parked", "ready", "else", "foreign"}
    assert generation == 1


class Changing:
    """A source that is still written to; `counts` has what was counted."""

    queries = 0

    def __init__(self, **studies: int) -> None:
        self.studies = studies
        self.counts: list[str] = []

    def find_studies(self, today):
        found = Found()
        found.add(
            {"StudyInstanceUID": uid, "PatientID": "P", "StudyDate": "20200101",
             "NumberOfStudyRelatedInstances": str(count)} for uid, count in self.studies.items()
        )  # fmt: skip
        return found, Coverage()

    def count(self, study_uid, times=2):
        self.counts.append(study_uid)
        return Counted({f"{study_uid}.{n}": Named("s") for n in range(self.studies[study_uid])}, ("CT",), True)


def a_pass(made, source) -> MigrationPass:
    return delta.take(made, source, 1, "ana", lambda: NOW)


def test_a_pass_counts_what_can_have_changed_and_makes_it_ready(made):
    source = Changing(a=2, b=1)
    assert (a_pass(made, source).new_studies, sorted(source.counts)) == (2, ["a", "b"])
    with made.begin() as session:
        for row in session.query(MigrationStudy):
            row.state, row.verified_at = "verified", AT
        project(session).state = "certified"
    source.counts.clear()
    quiet = a_pass(made, source)
    assert (quiet.new_studies, quiet.new_instances, source.counts) == (0, 0, [])
    source.studies |= {"b": 3, "c": 1}
    grown = a_pass(made, source)
    assert (grown.number, grown.new_studies, grown.new_instances, source.counts) == (3, 1, 2, ["b", "c"])
    with made.begin() as session:
        states = {row.study_uid: (row.state, row.expected) for row in session.query(MigrationStudy)}
        assert states == {"a": ("verified", 2), "b": ("ready", 3), "c": ("ready", 1)}
        assert project(session).state == "running", "there is something to do again"


def test_a_pass_that_is_cut_off_proves_nothing_and_a_study_without_a_claim_is_counted_while_it_is_young(made):
    class CutOff(Changing):
        def count(self, study_uid, times=2):
            raise ConnectionError

    with pytest.raises(ConnectionError):
        a_pass(made, CutOff(a=1))
    with made.begin() as session:
        assert [one.ended_at for one in delta.passes(session, 1)] == [None]
        assert cutover.facts(session, project(session), NOW).quiet == []
    known, today = delta.Known(3, "verified"), date(2026, 3, 1)
    assert delta.must_count(known, {"StudyDate": "20260201"}, today)
    assert delta.must_count(known, {"StudyDate": ""}, today)
    assert not delta.must_count(known, {"StudyDate": "20200101"}, today)


def test_the_old_archive_may_be_switched_off_only_when_every_line_holds():
    fine = Facts(0, (True, True, True, False), NOW - timedelta(hours=1), 0, 0, 0, 5, NOW, True)
    assert all(line.holds for line in cutover.checklist(fine, NOW))
    spoiled = {
        "coverage": {"doubts": 1}, "passes": {"quiet": (True, True, False, True)},
        "fresh": {"last_pass": NOW - timedelta(hours=25)}, "at-rest": {"under_way": 1}, "decided": {"waiting": 2},
        "matched": {"held": 1}, "routes": {"arriving": 0}, "certificate": {"is_certificate_last": False},
    }  # fmt: skip
    for name, change in spoiled.items():
        lines = cutover.checklist(Facts(**{**vars(fine), **change}), NOW)
        assert [line.name for line in lines if not line.holds] == [name]
