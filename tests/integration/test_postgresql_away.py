"""Everything on PostgreSQL: processes and PostgreSQL itself die, it is away for an hour, and nothing is lost."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select

from demo.hospital import Hospital
from demo.modality import Modality
from operations import supervision
from tests import invariants, killing
from tests.killing import Work, told
from tests.running import OnPostgresql, a_hospital_on_postgresql
from tests.senders import Sender, order_message, send_message, small_study
from zambezi.database.tables import Delivery

pytestmark = pytest.mark.timeout(1500)

#: PS3.4 table B.2-1: out of resources, which tells a modality to come again.
OUT_OF_RESOURCES = 0xA700
#: orthanc-postgresql asks so long (25-postgresql.json) before it gives an instance back.
GIVES_UP_S = 10


@pytest.fixture(scope="module")
def on_postgresql() -> Iterator[OnPostgresql]:
    with a_hospital_on_postgresql() as running:
        yield running


def test_nothing_is_lost_or_doubled_when_postgresql_dies_too(on_postgresql: OnPostgresql, say: Callable[[str], None]):
    chance = random.Random(3)
    others = {"postgresql": on_postgresql.kill}
    hospital = on_postgresql.hospital
    say(killing.one_round(hospital, instances=400, orders=6, reports=2, chance=chance, others=others, most=3))


def test_an_hour_without_postgresql_loses_nothing(on_postgresql: OnPostgresql, say: Callable[[str], None]):
    hospital, begun, deeds = on_postgresql.hospital, time.monotonic(), list[str]()
    ct = Modality("CT1", hospital.environment.ports.dicom, hospital.environment.ports.mpps)
    before, accession = _processes(hospital), f"H{uuid.uuid4().hex[:9].upper()}"
    with told(deeds), _receivers_away(hospital):
        ordered = order_message(accession, f"P{accession}", accession)
        assert send_message(hospital.environment.ports.mllp, ordered) == "AA"
        invariants.eventually("the worklist has the order", lambda: accession not in _worklist(ct))
        # Images and a report wait for receivers that are away: breakers are open, and BACKUP's are under way.
        waiting = Work(hospital, instances=100, orders=1, reports=1)
        invariants.eventually("they are missed", lambda: waiting.goes_on or not killing.waits_for(hospital, "SECOND"))

        on_postgresql.central.kill()
        deeds.append("the central database was killed")
        meanwhile = Work(hospital, instances=100, orders=1)
        invariants.eventually("the images are stored", lambda: len(meanwhile.sender.succeeded) < 100)
        on_postgresql.let_pass(timedelta(minutes=40), seconds=8)
        assert accession in _worklist(ct)
        assert not meanwhile.acknowledged, "an order was acknowledged that could not be committed"
        assert "the database doesn't answer" in " ".join(_status(hospital)["trouble"])

        on_postgresql.index.kill()
        deeds.append("the index was killed, too")
        refused = Sender(hospital.environment.ports.dicom)
        asked = time.monotonic()
        assert refused.offer(small_study(f"P{accession}", 1)[0]) == OUT_OF_RESOURCES
        assert time.monotonic() - asked < GIVES_UP_S + 5
        assert accession in _worklist(ct)
        later = Work(hospital, instances=100, orders=0)
        on_postgresql.let_pass(timedelta(minutes=20), seconds=4)
        assert not later.sender.succeeded

    on_postgresql.index.start()
    on_postgresql.central.start()
    away_s = time.monotonic() - begun
    with told(deeds):
        seen = [work.finish() for work in (waiting, meanwhile, later)]
    invariants.messages_once(hospital, [ordered])
    with hospital.database().begin() as session:
        parked = session.scalars(select(Delivery.id).where(Delivery.state == "parked")).all()
    assert not parked
    assert _processes(hospital) == before, "somebody did not live through it"
    invariants.eventually("all is well", lambda: _status(hospital)["trouble"])
    say(f"an hour in {away_s:.0f} s: {'; '.join(map(str, seen))}; {time.monotonic() - begun:.0f} s")


@contextmanager
def _receivers_away(hospital: Hospital) -> Iterator[None]:
    """HIS and SECOND are away inside the block."""
    away = ("his", "second")
    for neighbour in away:
        hospital.neighbours.control("stop", neighbour)
    try:
        yield
    finally:
        for neighbour in away:
            hospital.neighbours.control("start", neighbour)


def _worklist(ct: Modality) -> set[str]:
    """The accession numbers that the archive's own DICOM port answers."""
    return {str(item.AccessionNumber) for item in ct.worklist()}


def _processes(hospital: Hospital) -> dict[str, int]:
    return {one.name: one.pid for one in supervision.processes(hospital.environment) or []}


def _status(hospital: Hospital) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(hospital.try_zambezi("status", "--json").stdout)
    return found
