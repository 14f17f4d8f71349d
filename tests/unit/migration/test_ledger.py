"""The ledger on both engines: who gets which study, and what an attempt is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, insert, select

from migration import lanes, ledger, pace, settling, turns
from migration.pace import Pace
from zambezi import audit, clock, leases
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ExceptionItem, MigrationInstance, MigrationProject, MigrationStudy

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "migration")
    factory = sessions(engine, "migration")
    at = clock.text(NOW)
    with factory.begin() as session:
        session.add(MigrationProject(id=1, name="p", source="L", state="running", created_at=at, updated_at=at))
        session.flush()
        for n, date in enumerate(("20200101", "20250101", "")):
            session.add(MigrationStudy(project_id=1, study_uid=f"1.{n}", study_date=date, next_at=at))
    yield factory
    engine.dispose()


def claim(made, owner="a", now=NOW):
    with made.begin() as session:
        return ledger.claim(session, session.get_one(MigrationProject, 1), now=now, owner=owner)


def study(made, held) -> MigrationStudy:
    with made.begin() as session:
        return session.get_one(MigrationStudy, held.study_id)


def finish(made, held, state, now=NOW, **how):
    with made.begin() as session:
        ledger.finish(session, held, state, "because", now, **how)


def test_the_newest_studies_come_first_and_each_goes_to_one_worker(made):
    assert [claim(made).study_uid for _ in range(3)] == ["1.1", "1.0", "1.2"]
    assert claim(made) is None


def test_what_does_not_count_is_no_attempt(made):
    held = claim(made)
    finish(made, held, "ready", counts=False)
    assert study(made, held).attempts == 0
    held = claim(made)
    finish(made, held, "retrying", wait=timedelta(minutes=1))
    assert study(made, held).attempts == 1
    assert claim(made).study_uid == "1.0"
    minute = NOW + timedelta(minutes=1)
    assert claim(made, now=minute).lease.taken_from == "a", "what was begun is ended first"
    assert claim(made, now=minute).attempts == 2


def test_a_study_whose_worker_died_while_verifying_begins_with_counting_again(made):
    held = claim(made)
    with made.begin() as session:
        ledger.verifying(session, held, NOW)
    again = claim(made, "b", NOW + ledger.LEASE)
    assert (again.study_uid, again.attempts, again.lease.taken_from) == (held.study_uid, 1, "a")
    assert study(made, again).state == "moving"
    with pytest.raises(leases.Fenced):
        finish(made, held, "verified")
    with pytest.raises(leases.Fenced), made.begin() as session:
        ledger.set_verdicts(session, held, {})


def test_a_parked_study_waits_for_a_person_and_every_change_is_in_the_chain(made):
    held = claim(made)
    finish(made, held, "parked", suggestion="look")
    with made.begin() as session:
        assert session.query(ExceptionItem).one().reference == held.study_uid
        assert audit.verify(session) == []
        assert ledger.states(session, 1) == {"parked": 1, "ready": 2}


def add(made, **columns) -> int:
    with made.begin() as session:
        row = MigrationStudy(project_id=1, next_at=clock.text(NOW), **columns)
        session.add(row)
        session.flush()
        return row.id


def test_the_urgent_go_first_then_what_was_begun_then_the_due_then_by_priority(made):
    add(made, study_uid="again", state="retrying")
    later = add(made, study_uid="later", state="retrying")
    with made.begin() as session:
        session.get_one(MigrationStudy, later).next_at = clock.text(NOW + timedelta(hours=1))
    add(made, study_uid="left", state="moving", lease_owner="dead", lease_until=clock.text(NOW))
    add(made, study_uid="prior", priority=50, study_date="19990101")
    add(made, study_uid="now", priority=ledger.URGENT, study_date="19980101")
    order = [claim(made).study_uid for _ in range(7)]
    assert order == ["now", "left", "again", "prior", "1.1", "1.0", "1.2"]
    assert claim(made) is None


def test_a_plan_may_want_the_oldest_first_but_priors_of_expected_patients_still_come_before(made):
    add(made, study_uid="prior", priority=50, study_date="20260101")
    with made.begin() as session:
        session.get_one(MigrationProject, 1).plan = {"Order": "oldest"}
    assert [claim(made).study_uid for _ in range(4)] == ["prior", "1.2", "1.0", "1.1"]


def test_what_is_near_line_has_a_lane_and_slots_of_its_own(made):
    near = {"InstanceAvailability": "NEARLINE"}
    for uid, rank in (("tape", 0), ("tape of an expected patient", 50), ("tape that is urgent", ledger.URGENT)):
        add(made, study_uid=uid, priority=lanes.priority(rank, near), patient_id=uid)

    def take(lane, ceiling):
        with made.begin() as session:
            project = session.get_one(MigrationProject, 1)
            held = ledger.claim(session, project, now=NOW, owner="a", ceiling=ceiling, lane=lane)
            return held and held.study_uid

    slow = [take(lanes.NEAR_LINE, 2) for _ in range(3)]
    assert slow == ["tape that is urgent", "tape of an expected patient", None], "two at once, whatever the pace"
    assert take(lanes.AT_HAND, 8) == "1.1", "the slots of what is at hand are free all the same"
    assert take(lanes.ALL_NEAR_LINE, 9) == "1.0", "of a source that is all near-line all that is left is due"
    with made.begin() as session:
        rows = {row.study_uid: row for row in session.query(MigrationStudy)}
        assert turns.prioritise(session, session.get_one(MigrationProject, 1), {"tape": 70}) == 1
        session.refresh(rows["tape"])
        assert (lanes.rank(rows["tape"].priority), lanes.is_near_line(rows["tape"].priority)) == (70, True)
        settling.urgent(session, 1, "tape", "patient is in the room", "me", NOW)
        assert lanes.rank(rows["tape"].priority) == ledger.URGENT
        assert ledger.is_due(session, 1, NOW, lanes.NEAR_LINE)
    assert take(lanes.NEAR_LINE, 8) == "tape"
    with made.begin() as session:
        assert [ledger.is_due(session, 1, NOW, lane) for lane in (lanes.AT_HAND, lanes.NEAR_LINE)] == [True, False]


def test_no_more_studies_at_once_than_the_source_bears_whoever_asks(made):
    def take(owner, now=NOW):
        with made.begin() as session:
            project = session.get_one(MigrationProject, 1)
            return ledger.claim(session, project, now=now, owner=owner, ceiling=8)

    first = take("a")
    assert first.used == 1
    assert take("b") is None, "a source that was never asked begins with one"
    with made.begin() as session:
        pace.write(session, "L", Pace(slots=2), NOW)
    assert take("b").used == 2
    assert take("c") is None
    late = NOW + ledger.LEASE
    again = take("c", late)
    assert again.lease.taken_from in ("a", "b"), "a dead worker's slot is free"


def test_what_was_in_the_archive_before_is_written_down_once(made):
    held = claim(made)
    with made.begin() as session:
        for uid in ("i1", "i2"):
            session.add(MigrationInstance(study_id=held.study_id, sop_uid=uid, series_uid="s"))
    with made.begin() as session:
        ledger.look(session, held, {"i1"}, NOW)
    with made.begin() as session:
        ledger.look(session, held, {"i1", "i2"}, NOW)  # the second came by us
        assert ledger.was_there(session, held) == {"i1"}
    with made.begin() as session:
        ledger.set_verdicts(session, held, {"i1": {"verdict": "stored"}, "i2": {"verdict": "missing", "reason": "no"}})
    with made.begin() as session:
        rows = {row.sop_uid: (row.verdict, row.reason) for row in session.query(MigrationInstance)}
    assert rows == {"i1": ("stored", None), "i2": ("missing", "no")}


def test_a_study_of_ten_thousand_instances_is_written_in_a_few_statements(made):
    held = claim(made)
    uids = [f"1.2.{n}" for n in range(10_000)]
    with made.begin() as session:
        rows = [{"study_id": held.study_id, "sop_uid": uid, "series_uid": "s", "verdict": "expected"} for uid in uids]
        session.execute(insert(MigrationInstance), rows)
    statements: list[str] = []
    engine = made.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    with made.begin() as session:
        ledger.look(session, held, uids[:5000], NOW)
        found = {uid: {"verdict": "stored", "orthanc_id": "o", "reason": None} for uid in uids[:9000]}
        ledger.set_verdicts(session, held, found | {uid: {"verdict": "missing"} for uid in uids[9000:]})
    assert len(statements) < 25
    with made.begin() as session:
        counted = select(MigrationInstance.verdict, MigrationInstance.was_there, func.count())
        found = {tuple(row) for row in session.execute(counted.group_by("verdict", "was_there"))}
    assert found == {("stored", 1, 5000), ("stored", 0, 4000), ("missing", 0, 1000)}
