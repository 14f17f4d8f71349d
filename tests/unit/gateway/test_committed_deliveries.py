"""Deliveries that end with the receiver's storage commitment."""

from __future__ import annotations

from datetime import timedelta

from gateway import commitments_asked
from tests.misbehaving import Receiver
from zambezi import outbox
from zambezi.database.tables import CommitmentAsked


def test_a_commitment_that_comes_hours_later_ends_the_delivery_and_nobody_stood_by(bench):
    one = bench(Receiver(reports=False), proof="committed", commitment_minutes=600)
    with one.receiver.listening():
        waiting = one.attempt()
        assert (waiting.state, waiting.attempts) == ("due", 0)
        assert "has yet to commit itself" in waiting.outcome
        assert not one.sender.deliver_one()
        with one.made.begin() as session:
            asked = session.query(CommitmentAsked).filter_by(delivery_id=one.id).one()
            report = commitments_asked.question(asked.transaction_uid, [("1.2", sop) for sop in one.wanted])
            one.now += timedelta(hours=3)
            assert commitments_asked.take(session, "STRANGER", report, {}, one.now) == 0x0112
            assert commitments_asked.take(session, "PACS", report, {}, one.now) == 0
        row = one.attempt(timedelta())
    assert (row.state, row.proof) == ("delivered", "committed")
    one.arrived_once()


def test_a_person_who_tries_again_has_the_receiver_asked_again_and_nothing_sent(bench):
    one = bench(Receiver(reports=False), proof="committed", commitment_minutes=600)
    one.sender = one.a_sender(linger_s=0.05)
    with one.receiver.listening():
        assert one.attempt().state == "due"
        one.receiver.reports = True
        one.sender = one.a_sender()
        with one.made.begin() as session:
            assert outbox.retry(session, one.id, now=one.now, writer="ris", who="maria")
        assert one.attempt(timedelta()).state == "delivered"
    one.arrived_once()


def test_a_receiver_that_never_commits_itself_is_asked_again_and_in_the_end_a_person_is_told(bench):
    one = bench(Receiver(reports=False), proof="committed", attempts=2, commitment_minutes=60)
    one.sender = one.a_sender(linger_s=0.05)
    states = []
    with one.receiver.listening():
        while one.row().state != "parked":
            states.append(one.attempt().state)
    assert states == ["due", "retrying", "due", "parked"]
    assert "has not committed itself" in one.row().outcome
    one.arrived_once()


def test_what_it_doesnt_commit_itself_to_is_sent_again_alone(bench):
    bad: list[str] = []
    one = bench(Receiver(commits=lambda sop: 0x0110 if bad[:1] == [sop] else None), proof="committed")
    bad.append(min(one.wanted))
    with one.receiver.listening():
        failed = one.attempt()
        assert "does not commit itself to 1 of 4 instances" in failed.outcome
        assert "processing failure" in failed.outcome
        sent = dict(one.receiver.offered)
        bad.clear()
        assert one.attempt().state == "delivered"
    assert {sop: times for sop, times in one.receiver.offered.items() if times != sent[sop]} == {min(one.wanted): 2}
