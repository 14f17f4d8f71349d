import threading
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import pytest

from gateway.commitments_asked import Commitments
from gateway.courier import Courier
from gateway.deliveries import PARDONED, DicomSender
from gateway.orthanc_jobs import Jobs, ModalityJobs, done
from gateway.pseudonyms import Pseudonyms
from gateway.sending import Instance
from tests.integration.archive_fixture import image
from zambezi import breakers, outbox
from zambezi.config.settings import Destination, Site, Window
from zambezi.database.tables import Delivery, ExceptionItem, Pseudonym
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

BREAK_AFTER = 5


class Orthanc:
    """An Orthanc that starts jobs; what becomes of them is said by `fate`: a state, or an exception."""

    def __init__(self) -> None:
        self.fate: str | Exception = "Success"
        self.away = False
        self.refuses = ""
        self.progress = 0
        self.sent: list[list[str]] = []
        self.gone: set[str] = set()

    def contents(self, orthanc_ids) -> list[dict[str, str]]:
        return [{"ID": one} for one in orthanc_ids if one not in self.gone]

    def start_store(self, _modality: str, orthanc_ids: list[str], _kind: str) -> str:
        if self.away:
            raise OrthancUnreachable("POST /modalities/PACS/store: ConnectionError")
        if self.refuses:
            raise OrthancRefused("POST", "/modalities/PACS/store", 500, self.refuses)
        self.sent.append(orthanc_ids)
        return "job"

    def job(self, _job_id: str) -> dict[str, str | int]:
        if isinstance(self.fate, Exception):
            raise self.fate
        refused = "TCP Initialization Error: Connection refused"
        return {"State": self.fate, "ErrorDetails": refused, "Progress": self.progress}


@dataclass
class Watch:
    """What time it is."""

    at: datetime


@pytest.fixture
def watch(now) -> Watch:
    return Watch(now)


@pytest.fixture
def orthanc() -> Orthanc:
    return Orthanc()


def a_sender(made, orthanc: Orthanc, destination: Destination, watch: Watch) -> DicomSender:
    stop = threading.Event()
    jobs = ModalityJobs(Jobs(orthanc, "modalities", "PACS", stop), None)
    courier = Courier("PACS", destination, jobs, None, Commitments(made, {}), lambda: watch.at)
    return DicomSender(
        made, courier, "PACS", destination, Site(), "host:1/run", stop, lambda: watch.at, lambda: 0.0
    )  # fmt: skip


@pytest.fixture
def sender(made, orthanc, watch, now) -> DicomSender:
    with made.begin() as session:
        outbox.add(
            session, id="d1", kind="dicom", rule="r", destination="PACS", because="it must", now=now, writer="gateway",
            study_uid="1.2", instances=[["a", "1.2.3", "1.2.3.4"]],
        )  # fmt: skip
    destination = Destination(proof="acknowledged", retry_seconds=30, attempts=6, break_after=BREAK_AFTER)
    return a_sender(made, orthanc, destination, watch)


def row(made) -> Delivery:
    with made.begin() as session:
        return session.get_one(Delivery, "d1")


@pytest.mark.parametrize(
    "fate", [OrthancUnreachable("GET /jobs/job: ConnectionError"), OrthancRefused("GET", "/jobs/job", 404, "")]
)
def test_sending_that_a_restart_of_the_archive_cut_short_is_tried_again_at_once(made, sender, orthanc, fate):
    orthanc.fate = fate
    sender.deliver_one()
    assert row(made).state == "retrying"
    orthanc.fate = "Success"
    assert sender.deliver_one()
    assert (row(made).state, row(made).attempts) == ("delivered", 2)


def test_images_whose_sending_brings_the_archive_down_wait_longer_and_then_for_a_person(
    made, sender, orthanc, watch, now
):
    orthanc.fate = OrthancUnreachable("GET /jobs/job: ConnectionError")
    for _ in range(PARDONED + 1):
        sender.deliver_one()
    assert not sender.deliver_one()
    assert len(orthanc.sent) == PARDONED + 1
    for hours in (1, 2):
        watch.at = now + timedelta(hours=hours)
        sender.deliver_one()
    assert (row(made).state, row(made).attempts) == ("parked", 6)


def test_an_archive_that_is_away_beforehand_counts_no_attempt(made, sender, orthanc):
    orthanc.away = True
    assert not sender.deliver_one()
    assert (row(made).state, row(made).attempts) == ("due", 0)


def more(made, now, count: int) -> None:
    with made.begin() as session:
        for n in range(2, count + 1):
            outbox.add(
                session, id=f"d{n}", kind="dicom", rule="r", destination="PACS", because="it must", now=now,
                writer="gateway", study_uid=f"1.2.{n}", instances=[["a", "1.2.3", "1.2.3.4"]],
            )  # fmt: skip


def attempts(made) -> list[int]:
    with made.begin() as session:
        return sorted(row.attempts for row in session.query(Delivery).all())


def test_a_backlog_is_not_tried_against_a_destination_that_is_down_all_night(made, sender, orthanc, watch, now):
    more(made, now, 40)
    orthanc.fate = "Failure"
    for second in range(12 * 3600 // 30):
        watch.at = now + timedelta(seconds=30 * second)
        sender.deliver_one()
    # Five failures open the breaker; then one probe at a time, at growing pauses of up to an hour.
    assert len(orthanc.sent) < 30
    assert sum(attempts(made)) == len(orthanc.sent)
    assert row(made).state == "retrying"


def test_when_it_is_back_one_probe_finds_it_and_all_of_the_backlog_goes(made, sender, orthanc, watch, now):
    more(made, now, 20)
    orthanc.fate = "Failure"
    while sender.deliver_one():
        pass
    assert len(orthanc.sent) == BREAK_AFTER
    watch.at = now + timedelta(seconds=30)
    orthanc.fate = "Success"
    while sender.deliver_one():
        pass
    with made.begin() as session:
        assert {delivery.state for delivery in session.query(Delivery).all()} == {"delivered"}


def test_a_person_who_tries_one_again_is_answered_at_once_though_its_destination_is_paused(made, sender, orthanc, now):
    more(made, now, 10)
    orthanc.fate = "Failure"
    while sender.deliver_one():
        pass
    assert not sender.deliver_one()
    with made.begin() as session:
        assert outbox.retry(session, "d1", now=now, writer="ris", who="maria")
    orthanc.fate = "Success"
    assert sender.deliver_one()
    with made.begin() as session:
        assert breakers.paused(session) == []


def test_a_wrong_configuration_parks_one_delivery_and_keeps_the_others_waiting(made, sender, orthanc, watch, now):
    more(made, now, 10)
    orthanc.refuses = "No modality with symbolic name: PACS"
    for minutes in range(60):
        watch.at = now + timedelta(minutes=minutes)
        sender.deliver_one()
    with made.begin() as session:
        states = sorted(delivery.state for delivery in session.query(Delivery).all())
        assert states.count("parked") == 1
        assert {item.room for item in session.query(ExceptionItem).all()} == {"delivery", "neighbour"}
        outbox.resume(session, "PACS", now=watch.at, writer="ris", who="maria")
    orthanc.refuses = ""
    watch.at += timedelta(hours=1)
    while sender.deliver_one():
        pass
    with made.begin() as session:
        assert {delivery.state for delivery in session.query(Delivery).all()} == {"delivered"}
        assert all(item.decided_at for item in session.query(ExceptionItem).all())


def test_a_full_disk_of_ours_pauses_the_queue_and_costs_no_attempt(made, sender, orthanc, watch, now):
    orthanc.refuses = '{"OrthancError": "The file storage is full", "OrthancStatus": 19}'
    sender.deliver_one()
    assert (row(made).state, row(made).attempts) == ("retrying", 0)
    with made.begin() as session:
        assert [one.name for one in breakers.paused(session)] == ["queue:dicom"]


@pytest.mark.parametrize(("gone", "kind"), [({"a"}, ErrorClass.OBJECT), (set(), ErrorClass.CONFIGURATION)])
def test_an_image_that_is_gone_is_told_apart_from_a_destination_that_is_not_known(orthanc, gone, kind):
    orthanc.refuses, orthanc.gone = "No modality with symbolic name: PACS", gone  # 1.13.0: status 500 for both
    sent = Jobs(orthanc, "modalities", "PACS", threading.Event()).store([Instance("a", "1.2.3", "1.2.3.4")])
    assert sent.fault.kind == kind


def test_outside_its_windows_nothing_is_sent_and_then_it_goes(made, orthanc, watch, now):
    nights = Destination(proof="acknowledged", windows=(Window(from_=time(20), to=time(6)),))
    sender = a_sender(made, orthanc, nights, watch)
    more(made, now, 1)
    with made.begin() as session:
        outbox.add(
            session, id="d1", kind="dicom", rule="r", destination="PACS", because="it must", now=now, writer="gateway",
            study_uid="1.2", instances=[["a", "1.2.3", "1.2.3.4"]],
        )  # fmt: skip
    watch.at = datetime(2026, 3, 1, 17, 59, tzinfo=UTC)  # 19:59 in Maputo
    assert not sender.deliver_one()
    assert row(made).attempts == 0
    watch.at += timedelta(minutes=1)
    assert sender.deliver_one()
    assert row(made).state == "delivered"


@pytest.mark.parametrize(
    ("percent", "of", "sent"),
    [(0, 4, 0), (25, 4, 1), (33, 3, 1), (67, 3, 2), (29, 7, 2), (50, 200, 99), (1, 500, 3), (100, 4, 3)],
)
def test_how_far_a_job_came_is_read_from_its_progress_and_never_too_far(percent: int, of: int, sent: int):
    assert done(percent, of) == sent


def test_what_a_job_had_sent_when_it_failed_isnt_sent_again(made, sender, orthanc, watch, now):
    four = [[id, "1.2.3", f"1.2.3.{id}"] for id in "abcd"]
    with made.begin() as session:
        session.get_one(Delivery, "d1").instances = four
    orthanc.fate, orthanc.progress = "Failure", 50
    sender.deliver_one()
    watch.at = now + timedelta(seconds=30)
    orthanc.fate = "Success"
    sender.deliver_one()
    assert orthanc.sent == [["a", "b", "c", "d"], ["c", "d"]]
    assert row(made).state == "delivered"


def test_what_nobody_foresaw_counts_and_ends_before_a_person(made, sender, orthanc, watch, now):
    orthanc.fate = KeyError("a patient's name")
    for hour in range(3):
        watch.at = now + timedelta(hours=hour)
        sender.deliver_one()
    assert row(made).state == "parked"
    assert row(made).outcome.startswith("KeyError in job (test_deliveries.py:")
    assert "name" not in row(made).outcome


def test_a_backlog_goes_to_the_alternate_once_and_the_destination_is_still_asked(made, orthanc, watch, now):
    away = Destination(proof="acknowledged", break_after=2, alternate="SECOND", alternate_after=3, attempts=9)
    sender = a_sender(made, orthanc, away, watch)
    more(made, now, 61)
    orthanc.fate = "Failure"
    for minute in range(10):
        watch.at = now + timedelta(minutes=minute)
        while sender.deliver_one():
            pass
    with made.begin() as session:
        to = {(row.destination, row.state) for row in session.query(Delivery).all()}
        assert to == {("PACS", "cancelled"), ("SECOND", "due")}
        assert session.query(Delivery).filter_by(destination="SECOND").count() == 60
        # A person wants it there after all: it goes there, and the probe finds it well.
        assert outbox.retry(session, "d60", now=watch.at, writer="ris", who="maria")
    orthanc.fate = "Success"
    watch.at += timedelta(minutes=30)
    assert sender.deliver_one()
    with made.begin() as session:
        assert session.get_one(Delivery, "d60").state == "delivered"
        assert breakers.paused(session) == []


def test_pseudonyms_are_the_same_each_time_and_others_for_each_destination(made, now):
    first, again, other = (Pseudonyms(made, name, lambda: now) for name in ("UEM", "UEM", "UZ"))
    assert first.uid("1.2.3") == again.uid("1.2.3") != other.uid("1.2.3")
    assert first.patient("NID-1") == again.patient("NID-1") != first.patient("NID-2")
    assert len(first.uid("1.2.3")) <= 64
    for names in (first, again):
        change = names.deidentify("1.2")
        change(image("1.2", PatientID="NID-1"))
    with made.begin() as session:
        assert {row.original for row in session.query(Pseudonym).all()} == {"NID-1", "1.2"}


def test_where_nothing_is_due_no_probe_is_taken(made, sender, orthanc, watch, now):
    more(made, now, BREAK_AFTER)
    orthanc.fate = "Failure"
    while sender.deliver_one():
        pass
    with made.begin() as session:
        for delivery in session.query(Delivery).all():
            outbox.cancel(session, delivery.id, now=now, writer="ris", who="maria")
    watch.at = now + timedelta(minutes=5)
    assert not sender.deliver_one()
    with made.begin() as session:
        assert [one.is_asked for one in breakers.paused(session)] == [False]


def test_a_probe_is_not_lost_where_the_archive_is_away(made, sender, orthanc, watch, now):
    more(made, now, 10)
    orthanc.fate = "Failure"
    while sender.deliver_one():
        pass
    watch.at = now + timedelta(seconds=30)
    orthanc.away = True
    assert not sender.deliver_one()
    orthanc.away, orthanc.fate = False, "Success"
    assert sender.deliver_one()


def test_a_job_that_fails_is_tried_again_after_the_configured_wait(sender, orthanc, watch, now):
    orthanc.fate = "Failure"
    sender.deliver_one()
    assert not sender.deliver_one()
    watch.at = now + timedelta(seconds=30)
    assert sender.deliver_one()
