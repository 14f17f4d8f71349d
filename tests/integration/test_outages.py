"""What the archive does without its neighbours and after a power cut: nobody waits, and everything catches up."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import requests
from sqlalchemy import select

from demo.hospital import Hospital
from demo.modality import Modality, ModalityRefused
from tests import invariants, killing
from tests.killing import Work, told
from tests.senders import Sender, order_message, send_message, small_study
from zambezi import clock
from zambezi.database.tables import AuditEntry, Order

pytestmark = pytest.mark.timeout(1500)

NEIGHBOURS = ("gateway", "ris")
#: The journal's follower is at most so far behind, and Orthanc's index up to ten seconds.
RECORDED_S = 1.5
#: The busy timeout of zambezi.database.engine, and a little more.
LONGER_THAN_A_WRITER_WAITS_S = 32


@pytest.fixture
def hospital_again(hospital: Hospital) -> Iterator[Hospital]:
    """The installation, and whatever a test stopped is started again at its end."""
    yield hospital
    for process in killing.stopped(hospital):
        killing.start(hospital, process)


def test_a_power_cut_in_mid_ingest_loses_nothing_and_doubles_nothing(
    hospital_again: Hospital, say: Callable[[str], None]
):
    hospital, begun = hospital_again, time.monotonic()
    log = hospital.environment.logs_dir / "orthanc.log"
    before = log.stat().st_size
    work = Work(hospital, instances=800, orders=8, reports=2)
    deeds: list[str] = []
    with told(deeds):
        for cut in (150, 400, work.instances):
            invariants.eventually("instances are stored", lambda cut=cut: len(work.sender.succeeded) < cut)
            if cut == work.instances:
                time.sleep(RECORDED_S)  # the journal has the last ones, and most often the index not yet
            killing.cut_power(hospital)
            deeds.append(f"power cut at {len(work.sender.succeeded)} instances")
            killing.start(hospital, *killing.VICTIMS)
        seen = work.finish()
    recovered = sum(map(int, re.findall(r"recovered (\d+) of", log.read_bytes()[before:].decode(errors="replace"))))
    assert recovered, "no cut lost anything of the index: this run proves nothing"
    say(f"{', '.join(deeds)}: {recovered} files recovered; {seen}; {time.monotonic() - begun:.0f} s")


def test_modalities_work_and_an_emergency_reader_reads_while_gateway_and_ris_are_dead(
    hospital_again: Hospital, say: Callable[[str], None]
):
    hospital, begun = hospital_again, time.monotonic()
    since = clock.text(clock.now())
    ct = Modality("CT1", hospital.environment.ports.dicom, hospital.environment.ports.mpps)
    accession = f"E{uuid.uuid4().hex[:9].upper()}"
    message = order_message(accession, f"P{accession}", accession)
    assert send_message(hospital.environment.ports.mllp, message) == "AA"
    invariants.eventually("the worklist has the order", lambda: _on_worklist(ct, accession) != 1)

    killing.kill(hospital, "orthanc")  # its own copy of the worklist is a file, not the gateway's to give again
    killing.stop(hospital, *NEIGHBOURS)
    invariants.eventually("the archive is up", lambda: _on_worklist(ct, accession) != 1)
    (item,) = [item for item in ct.worklist() if item.AccessionNumber == accession]
    sender = Sender(hospital.environment.ports.dicom)
    sender.send(small_study(str(item.PatientID), 5, str(item.StudyInstanceUID)))
    token = hospital.zambezi("token", "issue", "--kind", "emergency", "--name", "Urgência", "--hours", "12").strip()
    assert _opens(hospital, str(item.StudyInstanceUID), token)
    assert not _opens(hospital, str(item.StudyInstanceUID), token[:-2] + "xx")
    dark_s = time.monotonic() - begun

    killing.start(hospital, *NEIGHBOURS)
    seen = invariants.hold(hospital, sender.succeeded, [message], since)
    with hospital.database().begin() as session:
        status = session.scalars(select(Order.status).where(Order.accession_number == accession)).one()
        views = session.scalars(
            select(AuditEntry.who).where(AuditEntry.event == "viewed", AuditEntry.study_uid == item.StudyInstanceUID)
        ).all()
    assert status == "completed"
    assert views == ["emergency:Urgência"]
    say(f"{dark_s:.0f} s without gateway and RIS: {seen}; {time.monotonic() - begun:.0f} s")


def test_receivers_that_are_away_get_everything_when_they_are_back(hospital: Hospital, say: Callable[[str], None]):
    begun = time.monotonic()
    away = ("his", "second")
    for neighbour in away:
        hospital.neighbours.control("stop", neighbour)
    try:
        work = Work(hospital, instances=100, orders=2, reports=1)
        invariants.eventually("they are missed", lambda: not killing.waits_for(hospital, "SECOND", "HIS"))
        killing.kill(hospital, "gateway")
    finally:
        for neighbour in away:
            hospital.neighbours.control("start", neighbour)
    say(f"HIS and SECOND away: {work.finish()}; {time.monotonic() - begun:.0f} s")


def test_modalities_store_while_the_central_database_is_away_and_nobody_is_told_what_is_not_committed(
    hospital: Hospital, say: Callable[[str], None]
):
    begun = time.monotonic()
    with _database_locked(hospital):
        work = Work(hospital, instances=100, orders=1)
        invariants.eventually("the images are stored", lambda: len(work.sender.succeeded) < work.instances)
        time.sleep(LONGER_THAN_A_WRITER_WAITS_S)
        assert not work.acknowledged, "an order was acknowledged that could not be committed"
    say(f"database away: {work.finish()}; {time.monotonic() - begun:.0f} s")


@contextmanager
def _database_locked(hospital: Hospital) -> Iterator[None]:
    """Nobody else can write into the central database."""
    with closing(sqlite3.connect(hospital.environment.home / "zambezi.db", timeout=60, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            held.execute("ROLLBACK")


def _on_worklist(ct: Modality, accession: str) -> int:
    """How many worklist items of this accession number the archive's own DICOM port answers; -1 if it is closed."""
    try:
        return sum(item.AccessionNumber == accession for item in ct.worklist())
    except ModalityRefused:
        return -1


def _opens(hospital: Hospital, study_uid: str, token: str) -> bool:
    """Whether the token opens a study's metadata and pixels through the front door."""
    front, header = hospital.environment.front_url, {"X-Zambezi-Token": token}
    answer = requests.get(f"{front}/dicom-web/studies/{study_uid}/metadata", headers=header, timeout=30)
    if answer.status_code != 200:
        return False
    image = answer.json()[0]
    series, instance = image["0020000E"]["Value"][0], image["00080018"]["Value"][0]
    picture = requests.get(
        f"{front}/wado?requestType=WADO&studyUID={study_uid}&seriesUID={series}&objectUID={instance}"
        "&contentType=image/png",
        headers=header,
        timeout=30,
    )
    return picture.content.startswith(b"\x89PNG")
