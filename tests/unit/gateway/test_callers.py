"""Who calls at the gateway's port: signs that outlive a restart, and associations that are counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.callers import EVERY, KEPT, Callers

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
CT1 = ("CT1", "10.1.0.21", "ZAMBEZI")


def associate(callers: Callers, times: int) -> None:
    for _ in range(times):
        callers.note(CT1[0], CT1[1], "associated", "2026-03-01T08:30:00.000000Z", called_aet=CT1[2])


def test_the_first_association_is_told_at_once_and_the_others_are_counted():
    callers = Callers()
    associate(callers, 1)
    due = callers.due(NOW)
    assert due == {CT1: 1}
    assert callers.due(NOW) == due, "what could not be committed is still due"
    associate(callers, 2)
    callers.entered(due, NOW)
    assert callers.due(NOW + EVERY - timedelta(seconds=1)) == {}
    assert callers.due(NOW, all_of_it=True) == {CT1: 2}, "the end tells the rest"
    assert callers.due(NOW + EVERY) == {CT1: 2}


def test_signs_outlive_a_restart_and_are_bounded_whatever_strangers_call_themselves():
    before = Callers()
    for n in range(KEPT + 10):
        before.note(f"S{n}\x1b", "10.9.9.9", "refused", "2026-03-01T08:30:00.000000Z", reason="unknown")
    told = before.told
    assert len(told) == KEPT and told[0]["aet"] == f"S{KEPT + 9}?"
    after = Callers()
    after.note("CT1", "10.1.0.21", "echo", "2026-03-01T08:31:00.000000Z")
    after.remember(told)
    assert after.told[0]["sign"] == "echo" and len(after.told) == KEPT + 1
    after.note(f"S{KEPT + 9}\x1b", "10.9.9.9", "refused", "2026-03-01T08:32:00.000000Z")
    assert after.told[0]["count"] == 2
