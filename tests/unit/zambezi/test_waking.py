"""A clock that jumps, and the jobs that wait by it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from zambezi import waking

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_a_clock_that_was_put_back_is_seen_and_one_that_goes_or_is_put_ahead_is_not():
    watch = waking.Watch(NOW, 100.0)
    assert watch.put_back(NOW + timedelta(seconds=1), 101.0) == timedelta()
    assert watch.put_back(NOW + timedelta(seconds=1.8), 102.0) == timedelta(), "it is slewed"
    assert watch.put_back(NOW + timedelta(days=3), 103.0) == timedelta()
    assert watch.put_back(NOW, 104.0) == timedelta(days=3, seconds=1)
    assert watch.put_back(NOW + timedelta(seconds=1), 105.0) == timedelta()


@pytest.fixture
def woken():
    """A real scheduler with a job for each minute and one for each night; what is set when the first runs."""
    BaseTrigger.register(waking.Every)
    ran, scheduler = threading.Event(), BackgroundScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    scheduler.add_job(ran.set, "interval", minutes=1, next_run_time=datetime.now(UTC), id="minute")
    scheduler.add_job(ran.set, "cron", hour=3, id="night")
    waking.steady(scheduler)
    scheduler.start()
    assert ran.wait(10)
    ran.clear()
    yield scheduler, ran
    scheduler.shutdown(wait=False)


def due_in(scheduler, job: str) -> timedelta:
    return scheduler.get_job(job).next_run_time - datetime.now(UTC)


def test_after_a_step_back_jobs_are_woken_and_wait_from_there(woken):
    scheduler, ran = woken
    for job in scheduler.get_jobs():
        job.modify(next_run_time=datetime.now(UTC) + timedelta(days=5 * 365))  # as where that much was taken away
    waking.wake(scheduler)
    assert ran.wait(10)
    assert due_in(scheduler, "minute") < timedelta(seconds=61)
    assert due_in(scheduler, "night") < timedelta(days=1)


def test_a_jump_ahead_by_years_is_one_wake_up(woken):
    scheduler, ran = woken
    scheduler.get_job("minute").modify(next_run_time=datetime(2000, 1, 1, tzinfo=UTC))  # as where it was added since
    assert ran.wait(10)
    assert timedelta() < due_in(scheduler, "minute") < timedelta(seconds=61)
