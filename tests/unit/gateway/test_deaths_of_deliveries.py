"""Deaths on our side under a delivery: of the gateway, its database, the archive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.deliveries import LEASE
from gateway.own_sender import OwnSender
from tests import postgres
from tests.misbehaving import Receiver
from tests.schema import upgraded
from tests.unit.gateway.delivering import Bench
from zambezi import outbox
from zambezi.database.engine import sessions


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing of it is told to anybody."""


@contextmanager
def killed_at(where: Any, name: str, when: str) -> Iterator[None]:
    """Let a method of `where` end the process, before or after what it does."""
    real = getattr(where, name)

    def deadly(*given: Any, **named: Any) -> Any:
        if when == "after":
            real(*given, **named)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, deadly)
        yield


@pytest.mark.parametrize("proof", ["acknowledged", "found", "committed"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["bring", "_send", "_settle"])
def test_a_gateway_that_is_killed_at_a_step_is_followed_by_another_and_nothing_is_lost(bench, proof, when, step):
    one = bench(Receiver(), proof=proof)
    where = one.sender if step == "_settle" else one.sender._courier
    with one.receiver.listening():
        with killed_at(where, step, when), pytest.raises(Killed):
            one.attempt()
        one.sender = one.a_sender()
        one.now += LEASE * 2
        while one.row().state not in outbox.AT_REST:
            one.attempt()
        row = one.row()
    assert (row.state, row.proof) == ("delivered", proof)
    assert set(one.receiver.has) == one.wanted
    # What isn't written down yet is repeated after a crash, and asked for first where that can be.
    assert max(one.receiver.offered.values()) <= (1 if proof == "found" else 2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that may die: the run's own serves others, too."""
    with postgres.a_cluster(postgres.installed()) as running:
        yield running


def in_vain(one: Bench, where: str, name: str, meet: threading.Barrier) -> None:
    """One attempt, in the midst of which the database goes: when all have come to this method."""
    met = one.sender if where == "sender" else one.sender._courier
    real, died = getattr(met, name), threading.Event()

    def dies(*given: Any) -> Any:
        if not died.is_set():
            died.set()
            meet.wait(20)
        return real(*given)

    setattr(met, name, dies)
    with pytest.raises(DBAPIError):
        one.sender.deliver_one()


def test_a_database_that_is_killed_at_each_step_loses_nothing_and_what_is_proven_isnt_sent_again(
    cluster, bench, monkeypatch
):
    monkeypatch.setattr(OwnSender, "part", 2)
    engine = upgraded(cluster.url("postgres"), "gateway")
    made = sessions(engine, "gateway")
    for where, name in (("sender", "_save"), ("courier", "bring"), ("courier", "_ask"), ("sender", "_settle")):
        proofs = ["committed"] if name == "_ask" else ["acknowledged", "found", "committed"]
        benches = [bench(Receiver(), proof=proof, made=made) for proof in proofs]
        meet = threading.Barrier(len(benches), cluster.kill)

        with ExitStack() as listening:
            for one in benches:
                listening.enter_context(one.receiver.listening())
            with ThreadPoolExecutor(len(benches)) as pool:
                list(pool.map(partial(in_vain, where=where, name=name, meet=meet), benches))
            cluster.start()
            engine.dispose()
            for one in benches:
                one.sender = one.a_sender()
                row = one.attempt(LEASE * 2)
                while row.state not in outbox.AT_REST:  # a report that comes late on a busy machine
                    row = one.attempt()
                assert (row.state, row.proof) == ("delivered", one.destination.proof), (name, row.outcome)
                assert set(one.receiver.has) == one.wanted
                # What isn't written down yet is repeated, but where the receiver can be asked first.
                once = row.proof == "found" or name == "_ask"
                assert max(one.receiver.offered.values()) <= (1 if once else 2), name


def test_an_archive_that_goes_away_in_mid_study_costs_nothing_that_arrived(bench):
    one = bench(Receiver(), proof="acknowledged", count=3)

    def goes_away(_event: Any, number: int) -> None:
        one.shelf.away = number == 2

    one.receiver.does = goes_away
    with one.receiver.listening():
        assert one.attempt().state == "retrying"
        one.shelf.away = False
        assert one.attempt().state == "delivered"
    one.arrived_once()
