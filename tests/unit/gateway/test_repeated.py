"""A thread of the gateway that repeats one thing: what it tells of its troubles."""

from __future__ import annotations

import threading

import pytest

from gateway import service
from gateway.service import Repeated
from zambezi.orthanc_client import OrthancUnreachable

AWAY = OrthancUnreachable("GET /zambezi/status: ConnectionError")


def after(*answers: Exception | None) -> Repeated:
    """A thread that has come to these ends, one after the other."""
    stop, left = threading.Event(), list(answers)

    def act() -> float:
        answer = left.pop(0)
        if not left:
            stop.set()
        if answer is not None:
            raise answer
        return 0

    made = Repeated("pushes", act, stop)
    made.run()
    return made


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AWAY_S", 0)


def test_that_the_archive_has_not_come_up_yet_is_no_error():
    waiting = after(AWAY)
    assert (waiting.error, waiting.is_coming_up) == (str(AWAY), True)


def test_that_it_does_not_come_up_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "COMING_UP_S", 0)
    assert not after(AWAY).is_coming_up


def test_that_it_went_away_is_one_at_once():
    working = after(AWAY, None, AWAY)
    assert (working.error, working.is_coming_up) == (str(AWAY), False)


def test_once_it_works_there_is_none():
    working = after(AWAY, None)
    assert (working.error, working.is_coming_up) == ("", False)
