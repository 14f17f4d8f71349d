import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from gateway.deliveries import PARDONED, DicomSender
from zambezi import outbox
from zambezi.config.settings import Destination, Site
from zambezi.database.tables import Delivery
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable


class Orthanc:
    """An Orthanc that starts jobs; what becomes of them is said by `fate`: a state, or an exception."""

    def __init__(self) -> None:
        self.fate: str | Exception = "Success"
        self.away = False
        self.sent: list[list[str]] = []

    def start_store(self, _modality: str, orthanc_ids: list[str]) -> str:
        if self.away:
            raise OrthancUnreachable("POST /modalities/PACS/store: ConnectionError")
        self.sent.append(orthanc_ids)
        return "job"

    def job(self, _job_id: str) -> dict[str, str]:
        if isinstance(self.fate, Exception):
            raise self.fate
        return {"State": self.fate}


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


@pytest.fixture
def sender(made, orthanc, watch, now) -> DicomSender:
    with made.begin() as session:
        outbox.add(
            session, id="d1", kind="dicom", rule="r", destination="PACS", because="it must", now=now, writer="gateway",
            study_uid="1.2", instances=[["a", "1.2.3", "1.2.3.4"]],
        )  # fmt: skip
    destination = Destination(proof="acknowledged", retry_seconds=30, attempts=6)
    return DicomSender(
        made, orthanc, "PACS", destination, Site(), "host:1/run", threading.Event(), lambda: watch.at, lambda: 0.0
    )


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


def test_a_job_that_fails_is_tried_again_after_the_configured_wait(sender, orthanc, watch, now):
    orthanc.fate = "Failure"
    sender.deliver_one()
    assert not sender.deliver_one()
    watch.at = now + timedelta(seconds=30)
    assert sender.deliver_one()
