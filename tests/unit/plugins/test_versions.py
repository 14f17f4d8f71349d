"""Differences between versions of Orthanc's Python plugin."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from plugins import priority
from plugins.versions import OFFERS, StatusAnswer, lacks


class Output:
    """RestOutput, as far as it refuses a wrong number of arguments."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.calls: list[tuple[Any, ...]] = []
        self.refused = 0

    def SendHttpStatus(self, *arguments: Any) -> None:
        if len(arguments) != self.wanted:
            self.refused += 1
            raise TypeError("Bad types for the arguments")
        self.calls.append(arguments)


@pytest.mark.parametrize(("wanted", "refused"), [(2, 0), (3, 1)])
def test_a_status_is_answered_in_the_form_of_the_version_which_is_looked_for_once(wanted: int, refused: int) -> None:
    output = Output(wanted)
    answer = StatusAnswer()
    for _ in range(3):
        answer.send(output, 409, "não")
    assert output.calls == [(409, "não", 4)[:wanted]] * 3
    assert output.refused == refused


def test_what_a_version_lacks_is_said_in_sentences() -> None:
    names = {offer.name for offer in OFFERS if offer.name}
    capabilities = {offer.capability: True for offer in OFFERS if offer.capability}
    everything = lacks((), {"Version": "1.10.1"})
    assert everything == [offer.lacking for offer in OFFERS]
    assert lacks({"EmitAuditLog"}, {}) == [one for one in everything if "audit log" not in one]
    assert lacks((), {"HasLabels": True, "Capabilities": {"HasQueues": False}}) == [
        one for one in everything if "labels" not in one
    ]
    assert lacks(names, {"HasLabels": True, "Capabilities": capabilities}) == []
    assert all(bool(offer.name) != bool(offer.capability) for offer in OFFERS), "each is looked for in one place"


def test_only_the_thread_that_asks_gives_way() -> None:
    found = []

    def work() -> None:
        priority.lower()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [priority.NICENESS]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
