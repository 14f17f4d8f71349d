"""What an attempt's end means for a study: each sort of end is a state of its own, with both sides in words."""

from __future__ import annotations

from datetime import timedelta

from migration.source import Checked, Compared
from migration.worker import decide
from zambezi.retries import Policy

POLICY = Policy(timedelta(seconds=1), object_attempts=3)


def different(*tags: str) -> Compared:
    return Compared("different", "a", "b", "c", tags)


def ended(attempts: int, missing=(), compared=None, troubles=(), vanished=(), was_there=(), expected=10):
    return decide(
        attempts, set(missing), Checked(compared or {}), list(troubles), set(vanished), POLICY, 0.0, was_there, expected
    )  # fmt: skip


def test_other_content_that_was_there_before_is_a_conflict_and_what_we_brought_is_a_difference():
    found = {"1": different("(7fe0,0010)")}
    assert ended(1, compared=found).state == "divergent"
    conflict = ended(1, compared=found, was_there={"1", "2"})
    assert conflict.state == "conflict"
    assert "had 1 instances before" in conflict.reason
    assert "(7fe0,0010)" in conflict.reason


def test_one_bad_object_holds_up_nothing_but_itself():
    assert ended(2, missing={"1"}, troubles=["Instance: 0xC000"]).state == "retrying"
    last = ended(3, missing={"1"}, troubles=["Instance: 0xC000"])
    assert last.state == "incomplete"
    assert last.reason.startswith("all but 1 of 10 instances are verified: 1 instances did not arrive (Instance: 0xC0")
    assert ended(3, missing=set("0123456789")).state == "parked", "of nothing that came nothing is verified"


def test_what_the_source_names_no_more_is_a_state_of_its_own():
    assert ended(1, vanished={"9"}).state == "vanished"
