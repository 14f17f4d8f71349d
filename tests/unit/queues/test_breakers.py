from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from zambezi import breakers
from zambezi.breakers import Circuit, Neighbour, Rule, may_enter
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Breaker, ExceptionItem
from zambezi.retries import ErrorClass, Policy

RULE = Rule(3, Policy(timedelta(seconds=60), multiplier=2, cap=timedelta(minutes=10), jitter=0))
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
LASTING = timedelta(seconds=20)
PACS = Neighbour("dicom:PACS", "queue:dicom", RULE, "gateway")
OTHER = Neighbour("dicom:OTHER", "queue:dicom", RULE, "gateway")


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "gateway")
    yield sessions(engine, "gateway")
    engine.dispose()


def enter(made, neighbour=PACS, now=NOW):
    with made.begin() as session:
        return neighbour.enter(session, now, LASTING)


def fails(made, entry, neighbour=PACS, kind=ErrorClass.TRANSIENT, now=NOW):
    with made.begin() as session:
        neighbour.failed(session, entry, kind, "connection refused", now, 0.0)


def row(made, name="dicom:PACS") -> Breaker:
    with made.begin() as session:
        return session.get_one(Breaker, name)


def opened(made, now=NOW):
    for _ in range(RULE.after):
        fails(made, enter(made, now=now), now=now)


def test_it_opens_after_so_many_failures_in_a_row_and_not_before(made):
    for _ in range(RULE.after - 1):
        fails(made, enter(made))
        assert enter(made) is not None
    fails(made, enter(made))
    assert enter(made) is None
    assert enter(made, now=NOW + timedelta(seconds=59)) is None


def test_an_answer_in_between_begins_the_count_anew(made):
    for _ in range(5):
        fails(made, enter(made))
        fails(made, enter(made))
        with made.begin() as session:
            PACS.answered(session, PACS.enter(session, NOW, LASTING), NOW)
    assert row(made).state == "closed"


def test_an_error_of_one_object_is_an_answer(made):
    for kind in (ErrorClass.OBJECT, ErrorClass.CONFLICT) * 5:
        fails(made, enter(made))
        fails(made, enter(made), kind=kind)
    assert row(made).state == "closed"


def test_after_the_pause_one_worker_asks_and_the_others_wait(made):
    opened(made)
    later = NOW + timedelta(seconds=60)
    probe = enter(made, now=later)
    assert probe.probes
    assert [enter(made, now=later) for _ in range(3)] == [None] * 3
    with made.begin() as session:
        PACS.answered(session, probe, later)
    assert row(made).state == "closed"
    assert not enter(made, now=later).probes


def test_each_vain_probe_makes_the_pause_longer_up_to_its_cap(made):
    opened(made)
    now, pauses = NOW, []
    for _ in range(7):
        until = datetime.fromisoformat(row(made).probe_at)
        pauses.append((until - now).total_seconds())
        now = until
        assert enter(made, now=now - timedelta(microseconds=1)) is None
        fails(made, enter(made, now=now), now=now)
    assert pauses == [60, 120, 240, 480, 600, 600, 600]


def test_exactly_one_of_many_workers_at_the_same_moment_gets_the_probe(made):
    opened(made)
    later, together = NOW + timedelta(hours=1), threading.Barrier(8)

    def ask(_: int):
        together.wait()
        return enter(made, now=later)

    with ThreadPoolExecutor(8) as workers:
        found = [entry for entry in workers.map(ask, range(8)) if entry is not None]
    assert [entry.probes for entry in found] == [{"dicom:PACS": 1}]


def test_whoever_looked_while_another_was_just_taking_the_probe_gets_none(made):
    opened(made)
    later = NOW + timedelta(hours=1)
    with made() as first, ThreadPoolExecutor(1) as other:
        assert PACS.enter(first, later, LASTING).probes
        second = other.submit(enter, made, now=later)
        time.sleep(0.5)  # it has read the row as it was, and waits for ours
        first.commit()
        assert second.result(timeout=20) is None


def test_a_prober_that_died_is_followed_by_another_and_its_own_word_counts_no_more(made):
    opened(made)
    dead = enter(made, now=NOW + timedelta(seconds=60))
    now = NOW + timedelta(seconds=60) + LASTING
    assert enter(made, now=now - timedelta(seconds=1)) is None
    living = enter(made, now=now)
    assert living.probes == {"dicom:PACS": 2}
    fails(made, dead, now=now)
    assert row(made).state == "half-open"
    with made.begin() as session:
        PACS.answered(session, living, now)
    assert row(made).state == "closed"


def test_a_long_probe_is_held_by_its_heartbeat(made):
    opened(made)
    now = NOW + timedelta(seconds=60)
    probe = enter(made, now=now)
    with made.begin() as session:
        breakers.hold(session, probe, now=now + LASTING / 2, lasting=LASTING)
    assert enter(made, now=now + LASTING) is None


def test_a_probe_that_asked_nobody_is_given_back(made):
    opened(made)
    now = NOW + timedelta(seconds=60)
    with made.begin() as session:
        breakers.give_back(session, PACS.enter(session, now, LASTING), now=now)
    assert enter(made, now=now).probes == {"dicom:PACS": 2}


def test_a_probe_for_which_there_is_nothing_to_do_is_not_taken(made):
    opened(made)
    now = NOW + timedelta(seconds=60)
    with made.begin() as session:
        assert PACS.enter(session, now, LASTING)
        session.rollback()
    assert row(made).state == "open"


def test_what_had_begun_before_it_opened_makes_no_pause_longer(made):
    running = [enter(made) for _ in range(6)]
    for entry in running:
        fails(made, entry)
    assert (row(made).opened, row(made).failures) == (1, 3)


def test_a_wrong_configuration_pauses_at_once_and_waits_for_a_person_until_it_answers(made):
    fails(made, enter(made), kind=ErrorClass.CONFIGURATION)
    with made.begin() as session:
        item = session.scalars(select(ExceptionItem)).one()
        assert (item.room, item.reference, item.kind, item.decided_at) == (
            "neighbour", "dicom:PACS", "configuration", None,
        )  # fmt: skip
    probe = enter(made, now=NOW + timedelta(minutes=1))
    with made.begin() as session:
        PACS.answered(session, probe, NOW + timedelta(minutes=1))
        assert session.scalars(select(ExceptionItem)).one().decided_by == "the neighbour itself"


def test_a_full_disk_of_ours_pauses_every_neighbour_of_the_queue(made):
    fails(made, enter(made), kind=ErrorClass.DISK)
    assert enter(made, OTHER) is None
    later = NOW + timedelta(seconds=30)
    probe = enter(made, OTHER, now=later)
    with made.begin() as session:
        OTHER.answered(session, probe, later)
    assert enter(made, now=later) is not None


def test_of_a_disk_nothing_is_learnt_by_a_neighbour_that_is_away(made):
    fails(made, enter(made), kind=ErrorClass.DISK)
    later = NOW + timedelta(seconds=30)
    fails(made, enter(made, OTHER, now=later), OTHER, now=later)
    assert row(made, "queue:dicom").state == "open"
    assert enter(made, now=later).probes == {"queue:dicom": 2}


def test_a_person_resumes_it_and_that_stands_in_the_audit(made):
    opened(made)
    with made.begin() as session:
        assert breakers.resume(session, "PACS", now=NOW, writer="gateway", who="maria") == ["dicom:PACS"]
        assert breakers.paused(session) == []
        said = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "neighbour-changed").order_by(AuditEntry.seq)
        ).all()
        assert [entry.who for entry in said] == [None, "maria"]
        assert breakers.resume(session, "PACS", now=NOW, writer="gateway", who="maria") == []
    assert enter(made) is not None


def test_what_is_paused_is_said_with_until_when_and_why(made):
    opened(made)
    with made.begin() as session:
        (found,) = breakers.paused(session)
    assert found.words == "dicom:PACS is paused until 2026-03-01T08:01:00Z, because connection refused"


steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "succeed", "fail", "object", "configuration", "die"]),
        st.integers(0, 400),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(steps)
def test_never_do_two_live_probes_run_and_nothing_begins_during_a_pause(steps):
    """Pure: any order of beginnings, ends and deaths of workers, with any time between."""
    circuit, now, running = Circuit(), NOW, []  # running: (probe number or None, when it counts as dead)
    for what, seconds, which in steps:
        now += timedelta(seconds=seconds)
        if what == "enter":
            way = may_enter(circuit, now)
            assert (way == "wait") == (not circuit.is_closed and circuit.probe_at > now)
            if way == "probe":
                assert not [
                    one for one in running if one[0] == circuit.probe and one[1] > now and circuit.state == "half-open"
                ]
                circuit = breakers.probing(circuit, now, LASTING)
                running.append((circuit.probe, now + LASTING))
            elif way == "go":
                running.append((None, now + LASTING))
        elif running:
            probe, _ = running.pop(which % len(running))
            if what in ("fail", "configuration"):
                kind = ErrorClass.TRANSIENT if what == "fail" else ErrorClass.CONFIGURATION
                before = circuit
                circuit = breakers.failed(circuit, kind, "away", now, RULE, 0.0, probe)
                if before.state == "half-open" and probe != before.probe:
                    assert circuit == before
            elif what in ("succeed", "object"):
                circuit = Circuit(probe=circuit.probe)
        assert circuit.is_closed == (circuit.opened == 0)
        assert circuit.is_closed or circuit.probe_at is not None
        assert not circuit.is_closed or circuit.failures < RULE.after
