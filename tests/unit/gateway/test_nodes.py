"""Who records, by the gateway's decision, and what is said of a node that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from gateway.nodes import LEASE, Nodes, chosen
from tests.schema import upgraded
from zambezi import audit, chain, clock, nodes
from zambezi.chain import Sealed
from zambezi.database.engine import Sessions, sessions
from zambezi.database.tables import ExceptionItem
from zambezi.orthanc_client import OrthancUnreachable

START = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
LATER = clock.text(START + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("holder", "until", "answering", "chose"),
    [
        ("", "", ["one", "two"], "one"),
        ("", "", [], ""),
        ("two", LATER, ["one", "two"], "two"),
        ("two", clock.text(START), ["one", "two"], "two"),  # the gateway was away, not the node
        ("two", LATER, ["one"], "two"),
        ("two", clock.text(START), ["one"], "one"),
        ("two", clock.text(START), [], ""),
    ],
)
def test_the_one_that_records_goes_on_while_it_answers_or_its_lease_lasts(
    holder: str, until: str, answering: list[str], chose: str
):
    assert chosen(holder, until, answering, START) == chose


@dataclass
class FakeNode:
    """A node as its REST shows it, with a journal of its own."""

    name: str
    entries: list[Sealed] = field(default_factory=list)
    offers: list[dict[str, Any]] = field(default_factory=list)
    is_up: bool = True
    epoch: int = 0
    error: str = ""

    @property
    def journal(self) -> str:
        return f"orthanc-{self.name}"

    def add(self, event: str, **facts: Any) -> None:
        last = self.entries[-1] if self.entries else Sealed(self.journal, 0, "", b"")
        self.entries.append(chain.seal(self.journal, last.seq + 1, last.hash, event, START, facts))

    def request(self, method: str, _path: str, **how: Any) -> FakeNode:
        if not self.is_up:
            raise OrthancUnreachable(self.name)
        if method == "PUT":
            self.offers.append(how["json"])
        return self

    def json(self) -> dict[str, Any]:
        return {
            "journal": self.journal, "seq": len(self.entries), "applied": {}, "records": False, "epoch": self.epoch,
            "marked": self.epoch, "follower": {"error": self.error},
        }  # fmt: skip


@dataclass
class Desk:
    """Two nodes and the one who grants."""

    sessions: Sessions
    one: FakeNode = field(default_factory=lambda: FakeNode("one"))
    two: FakeNode = field(default_factory=lambda: FakeNode("two"))
    now: datetime = START

    def __post_init__(self) -> None:
        self.nodes = Nodes(self.sessions, {"one": self.one, "two": self.two}, lambda: self.now)  # type: ignore[dict-item]  # as its REST shows it

    def round(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)
        self.nodes.round()

    def take_over(self, node: FakeNode) -> list[str]:
        """Commit what a node's journal has more; the events that hold."""
        with self.sessions.begin() as session:
            seq, _ = audit.head(session, node.journal)
            fresh = node.entries[seq:]
            audit.take_over(session, fresh)
            return [entry.facts["event"] for entry in nodes.holding(session, fresh)]

    def waits(self) -> list[str]:
        with self.sessions() as session:
            return list(session.scalars(select(ExceptionItem.kind).where(ExceptionItem.decided_at.is_(None))))


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = upgraded(database_url)
    yield Desk(sessions(engine, "test"))
    engine.dispose()


def test_what_a_relieved_node_recorded_late_does_not_hold_and_what_it_alone_knows_does(desk: Desk):
    desk.round()
    desk.one.add("lease-taken", node="one", epoch=1)
    desk.one.add("study-began", study_uid="1")
    assert desk.take_over(desk.one) == ["lease-taken", "study-began"]
    desk.one.add("study-completed", study_uid="1")
    desk.one.add("viewed", study_uid="1")
    desk.one.add("deleted", study_uid="1", noticed="seen", instances=[])
    desk.one.is_up = False
    desk.round(LEASE.total_seconds() + 1)
    assert (desk.two.offers[-1]["holder"], desk.two.offers[-1]["epoch"]) == ("two", 2)
    desk.one.is_up = True
    desk.round()
    assert desk.one.offers[-1]["fenced"] == [[3, None]]
    # Its disk is back: what it recorded isn't brought to others either.
    assert desk.take_over(desk.one) == ["viewed", "deleted"]
    desk.round()
    brought = [json.loads(one)["event"] for one in desk.two.offers[-1]["entries"]]
    assert brought == ["study-began", "deleted"]
    # It may record again once it has the right anew, by the epoch that holds and no older one.
    desk.two.is_up = False
    desk.round(LEASE.total_seconds() + 1)
    desk.one.add("lease-taken", node="one", epoch=1)
    desk.one.add("stored", study_uid="1", sop_uid="1.1")
    desk.one.add("lease-taken", node="one", epoch=3)
    desk.one.add("stored", study_uid="1", sop_uid="1.2")
    assert desk.take_over(desk.one) == ["lease-taken", "lease-taken", "stored"]


def test_a_database_from_a_backup_goes_beyond_the_epoch_that_the_nodes_know(desk: Desk):
    desk.round()
    desk.one.epoch = desk.two.epoch = 7
    desk.round()
    assert (desk.two.offers[-1]["holder"], desk.two.offers[-1]["epoch"]) == ("one", 8)


def test_who_answers_and_can_not_follow_is_relieved_unless_nobody_can(desk: Desk):
    desk.round()
    desk.one.error = desk.two.error = "OperationalError"
    desk.round(LEASE.total_seconds() + 1)
    assert desk.two.offers[-1]["holder"] == "one"
    desk.two.error = ""
    desk.round()
    assert desk.two.offers[-1]["holder"] == "two"


def test_back_to_one_node_what_it_records_holds(desk: Desk):
    desk.round()
    desk.one.add("lease-taken", node="one", epoch=1)
    desk.take_over(desk.one)
    desk.one.is_up = False
    desk.round(LEASE.total_seconds() + 1)
    with desk.sessions.begin() as session:
        nodes.one_again(session)
    desk.one.add("study-began", study_uid="1")
    assert desk.take_over(desk.one) == ["study-began"]


def test_a_node_that_is_away_is_missed_until_its_journal_is_here(desk: Desk):
    desk.round()
    desk.two.add("viewed", study_uid="1")
    desk.round()
    desk.two.is_up = False
    desk.round(nodes.AWAY.total_seconds() - 5)
    assert desk.waits() == []
    desk.round(10)
    assert desk.waits() == ["node-away"]
    with desk.sessions() as session:
        assert not nodes.has_all(session, desk.now)
    desk.two.is_up = True
    desk.round()
    assert desk.waits() == ["node-away"]  # its entry is not here yet
    desk.take_over(desk.two)
    desk.round()
    assert desk.waits() == []
