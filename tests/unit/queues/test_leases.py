from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, insert, select

from tests.leasing import TestBase, Work, claimed
from zambezi import clock, leases
from zambezi.database.engine import Sessions, connect, sessions

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
LEASE = timedelta(seconds=20)


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    engine = connect(tables_url, "test")
    TestBase.metadata.create_all(engine)
    yield sessions(engine, "test")
    engine.dispose()


def put(made, rows: int) -> None:
    with made.begin() as session:
        session.execute(insert(Work), [{"next_at": clock.text(NOW)} for _ in range(rows)])


def all_of(made) -> list[Work]:
    with made.begin() as session:
        return list(session.scalars(select(Work).order_by(Work.id)))


def claim(made, owner="w1", now=NOW):
    with made.begin() as session:
        found = claimed(session, owner, now, LEASE)
    return found[1] if found else None


def finish(made, held):
    with made.begin() as session:
        leases.finish(session, held, "done", finished=Work.finished + 1, by=held.owner)


def test_a_revived_zombie_cannot_finish_what_was_given_to_another(made):
    put(made, 1)
    zombie = claim(made)
    assert claim(made, "w2", NOW + LEASE - timedelta(seconds=1)) is None
    living = claim(made, "w2", NOW + LEASE)
    assert living.taken_from == "w1"
    for act in (
        lambda session: leases.finish(session, zombie, "done"),
        lambda session: leases.write(session, zombie, {"by": "zombie"}),
        lambda session: leases.renew(session, zombie, now=NOW, lease=LEASE),
    ):
        with pytest.raises(leases.Fenced), made.begin() as session:
            act(session)
    finish(made, living)
    with pytest.raises(leases.Fenced):
        finish(made, zombie)
    assert [(row.finished, row.by, row.state) for row in all_of(made)] == [(1, "w2", "done")]


def test_a_worker_of_the_same_name_that_was_started_again_is_another_worker(made):
    put(made, 1)
    zombie = claim(made, "w1")
    claim(made, "w1", NOW + LEASE)
    with pytest.raises(leases.Fenced):
        finish(made, zombie)


def test_how_many_were_abandoned_is_known(made):
    put(made, 3)
    claim(made)
    claim(made, "w2", NOW + LEASE / 2)
    with made.begin() as session:
        assert leases.abandoned(session, Work, ("working",), NOW + LEASE) == 1


def test_a_death_counts_as_an_attempt_only_where_it_says_something_of_the_work(made):
    put(made, 1)
    how = {"ready": ("due",), "working": "working", "owner": "w", "lease": LEASE}
    with made.begin() as session:
        for n, (counts, attempts) in enumerate([(True, 1), (True, 2), (False, 2), (True, 3)]):
            row, _ = leases.claim(session, Work, now=NOW + n * LEASE, counts_abandoned=counts, **how)
            assert row.attempts == attempts


def test_a_look_finds_what_a_claim_would_find_and_nothing_that_it_would_not(made):
    """Every state with every time before, at and after now."""
    words = {"ready": ("due", "retrying"), "working": "working", "also_working": ("checking",)}
    look = leases.Look(Work, **words)
    moments = [clock.text(NOW + timedelta(seconds=n)) for n in (-1, 0, 1)]
    for state in ("due", "retrying", "working", "checking", "done"):
        for next_at in moments:
            for until in (None, *moments):
                with made.begin() as session:
                    session.execute(delete(Work))
                    session.execute(insert(Work), [{"state": state, "next_at": next_at, "lease_until": until}])
                looked = look(made, NOW)
                with made.begin() as session:
                    found = leases.claim(session, Work, now=NOW, owner="w", lease=LEASE, **words)
                assert looked == (found is not None), (state, next_at, until)


def test_an_early_look_finds_what_is_not_due_yet_and_not_what_another_has_at_hand(made):
    put(made, 1)
    early = leases.Look(Work, ready=("due",), working="working", early=True)
    assert early(made, NOW - LEASE)
    claim(made)
    assert not early(made, NOW)


def test_a_look_waits_for_nobody_who_writes(made):
    put(made, 1)
    look = leases.Look(Work, ready=("due",), working="working")
    with made.begin() as session, ThreadPoolExecutor(1) as other:
        claimed(session, "w1", NOW, LEASE)
        # SQLite would let a second writer wait for half a minute.
        assert other.submit(look, made, NOW).result(timeout=10), "as it was committed last"
    assert not look(made, NOW)


def test_a_keeper_holds_the_lease_as_long_as_the_work_lasts_and_says_when_it_is_lost(made):
    put(made, 1)
    short = timedelta(seconds=0.6)
    beats = []
    with made.begin() as session:
        _, held = claimed(session, "w1", clock.now(), short)
    with leases.Keeper(made, held, clock.now, short, lambda session: beats.append(1)) as keeper:
        time.sleep(1.5)
        keeper.check()
        with made.begin() as session:
            assert claimed(session, "w2", clock.now(), short) is None
            session.get_one(Work, held.id).fence += 1  # a person takes it away
        time.sleep(0.5)
        with pytest.raises(leases.Fenced):
            keeper.check()
    assert len(beats) >= 3


def test_a_keeper_knows_whether_somebody_worked_on_it_before(made):
    put(made, 1)
    firsts = []
    for n in range(2):
        with made.begin() as session:
            _, held = claimed(session, f"w{n}", NOW + n * LEASE, LEASE)
        with leases.Keeper(made, held, clock.now, LEASE) as keeper:
            firsts.append(keeper.is_first)
    assert firsts == [True, False]


def test_eight_threads_at_the_same_moment_claim_eight_rows(made):
    put(made, 8)
    together = threading.Barrier(8)

    def one(n: int):
        together.wait()
        return claim(made, f"w{n}")

    with ThreadPoolExecutor(8) as workers:
        found = [held for held in workers.map(one, range(8)) if held is not None]
    # On PostgreSQL a row that another one is just claiming is skipped; none may be claimed twice.
    assert len({held.id for held in found}) == len(found) == 8


class Leasing(RuleBasedStateMachine):
    """Any order of claims, renewals, ends and waits by workers that may have been dead: the table and a model agree."""

    made: Sessions

    def __init__(self) -> None:
        super().__init__()
        with self.made.begin() as session:
            session.execute(delete(Work))
        self.now = NOW
        self.model: dict[int, dict] = {}
        self.held: list[leases.Lease] = []

    @rule()
    def put(self) -> None:
        with self.made.begin() as session:
            row = Work(next_at=clock.text(self.now))
            session.add(row)
            session.flush()
            self.model[row.id] = {"state": "due", "fence": 0, "until": None, "finished": 0}

    @rule(worker=st.sampled_from(["a", "b", "c"]))
    def claim(self, worker: str) -> None:
        ready = {
            id for id, one in self.model.items()
            if one["state"] == "due" or (one["state"] == "working" and one["until"] <= self.now)
        }  # fmt: skip
        held = claim(self.made, worker, self.now)
        assert (held is None) == (not ready)
        if held is not None:
            assert held.id in ready
            one = self.model[held.id]
            assert held.fence == one["fence"] + 1
            assert bool(held.taken_from) == (one["state"] == "working")
            one |= {"state": "working", "fence": held.fence, "until": self.now + LEASE}
            self.held.append(held)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), renews=st.booleans())
    def act(self, data, renews: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        one = self.model[held.id]
        ours = one["state"] == "working" and one["fence"] == held.fence
        try:
            if renews:
                with self.made.begin() as session:
                    leases.renew(session, held, now=self.now, lease=LEASE)
            else:
                finish(self.made, held)
        except leases.Fenced:
            assert not ours
            return
        assert ours
        one |= {"until": self.now + LEASE} if renews else {"state": "done", "finished": one["finished"] + 1}

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def teardown(self) -> None:
        table = {row.id: (row.state, row.fence, row.finished) for row in all_of(self.made)}
        assert table == {id: (one["state"], one["fence"], one["finished"]) for id, one in self.model.items()}
        assert all(finished <= 1 for _, _, finished in table.values())


def test_the_table_and_a_model_of_leases_agree(made):
    machine = type("Machine", (Leasing,), {"made": made})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
