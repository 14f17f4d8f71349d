"""When a delivery goes, and how fast: windows, a stop, lanes, several at once, the alternate, caps."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.own_sender import OwnSender
from tests.integration.archive_fixture import image, written
from tests.misbehaving import Receiver
from zambezi.bandwidth import Line
from zambezi.config.settings import Site, Window
from zambezi.database.tables import Delivery


@pytest.mark.parametrize("proof", ["acknowledged", "found", "committed"])
def test_a_window_that_closes_in_mid_study_lets_the_rest_wait_for_the_next_one(bench, proof):
    night = Window.model_validate({"From": "20:00", "To": "06:00"})
    one = bench(Receiver(), proof=proof, windows=(night,))
    morning = datetime(2026, 3, 2, 6, tzinfo=Site().zone).astimezone(UTC)

    def closes(_event: Any, number: int) -> None:
        one.now = morning if number == 2 else one.now

    one.receiver.does = closes
    one.now = morning - timedelta(minutes=1)
    with one.receiver.listening():
        assert not one.sender.deliver_one()
        paused = one.row()
        assert (paused.state, paused.attempts, len(paused.acknowledged)) == ("due", 0, 2)
        assert "its window closed in mid-study" in paused.outcome
        assert not one.sender.deliver_one()
        assert len(one.receiver.has) == 2
        done = one.attempt(timedelta(hours=14))
    assert (done.state, done.attempts) == ("delivered", 1)
    one.arrived_once()


def test_a_stop_ends_an_association_with_a_receiver_that_hangs(bench):
    goes_on = threading.Event()

    def hangs(_event: Any, number: int) -> None:
        if number == 3:
            threading.Timer(0.1, one.stop.set).start()
            goes_on.wait(20)

    one = bench(Receiver(hangs), count=4)
    with one.receiver.listening():
        begun = time.monotonic()
        assert not one.sender.deliver_one()
        assert time.monotonic() - begun < 10
        goes_on.set()
    assert (one.row().state, one.row().attempts, len(one.row().acknowledged)) == ("due", 0, 2)


def test_an_emergency_overtakes_a_night_of_backlog_and_what_was_sent_isnt_sent_again(bench, monkeypatch):
    monkeypatch.setattr(OwnSender, "part", 2)
    one = bench(Receiver(), count=6)
    first = one.id
    urgent = image()
    one.shelf.files["urgent"] = written(urgent)
    one.shelf.metadata["urgent"] = one.shelf.metadata["id0"]
    order: list[str] = []

    def asks(event: Any, number: int) -> None:
        order.append(str(event.request.AffectedSOPInstanceUID))
        if number == 2:
            named = [["urgent", str(urgent.SeriesInstanceUID), str(urgent.SOPInstanceUID)]]
            one.study = str(urgent.StudyInstanceUID)
            one.add("urgent" + first[-10:], named, priority=5)

    one.receiver.does = asks
    with one.receiver.listening():
        while one.sender.deliver_one():
            pass
    assert order.index(str(urgent.SOPInstanceUID)) == 2
    assert set(one.receiver.offered.values()) == {1}
    with one.made.begin() as session:
        assert {session.get_one(Delivery, id).state for id in (first, one.id)} == {"delivered"}
        assert session.get_one(Delivery, first).attempts == 1


def test_two_studies_go_to_one_receiver_at_once(bench):
    one = bench(Receiver(), count=1, parallel=2)
    first = one.id
    other = image()
    one.shelf.files["other"], one.shelf.metadata["other"] = written(other), one.shelf.metadata["id0"]
    one.study = str(other.StudyInstanceUID)
    one.add("other" + first[-10:], [["other", str(other.SeriesInstanceUID), str(other.SOPInstanceUID)]])
    both = threading.Barrier(2)

    def waits_for_the_other(_event: Any, _number: int) -> None:
        both.wait(5)

    one.receiver.does = waits_for_the_other
    with one.receiver.listening():
        threads = [threading.Thread(target=one.a_sender().deliver_one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with one.made.begin() as session:
        assert {session.get_one(Delivery, id).state for id in (first, one.id)} == {"delivered"}


def test_what_waits_while_a_destination_fails_goes_to_its_alternate_and_it_is_found_again(bench):
    one = bench(Receiver(), alternate="SECOND", alternate_after=3, break_after=2)
    first = one.id
    one.attempt()
    one.attempt()
    assert not one.sender.deliver_one()  # paused now, and two failures aren't three
    assert one.row().state == "retrying"
    one.attempt()  # the probe fails, too
    assert one.row().state == "retrying"
    assert not one.sender.deliver_one()
    assert one.row().state == "cancelled", "it goes at once, and not only when its own turn would come"
    one.add("later" + first[-10:], [["id0", "1.2", "1.2.3"]], priority=7)
    assert not one.sender.deliver_one()
    with one.made.begin() as session:
        instead = session.query(Delivery).filter_by(destination="SECOND", study_uid=one.study).all()
        assert {row.state for row in instead} == {"due"}
        assert {row.priority for row in instead} == {0, 7}
        assert "goes to SECOND instead" in session.get_one(Delivery, first).outcome
    with one.made.begin() as session:
        instances = session.get_one(Delivery, first).instances
    one.add("again" + first[-10:], instances)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    one.arrived_once()


def test_a_cap_holds_within_a_single_image(bench):
    slow = image(Rows=256, Columns=512, PixelData=bytes(131072))
    one = bench(Receiver(), images=[slow], proof="acknowledged")
    gone: list[float] = []
    line = Line()

    def owes(size: int) -> float:
        gone.append(time.monotonic())
        return line.used(size, 1000, datetime.now(UTC))  # 125,000 bytes a second, and as much at once

    one.sender = one.a_sender(owes=owes)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    assert len(gone) > 8  # PDU by PDU
    assert gone[-1] - gone[0] > 0.04
