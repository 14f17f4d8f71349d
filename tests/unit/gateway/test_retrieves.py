"""C-GET from an archive on loopback, written with pynetdicom; what Orthanc stores is made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from demo.neighbours import free_port
from gateway.associations import Address
from gateway.coercing_admission import Gate
from gateway.retrieves import CUT, ByGet, Ending, Named
from gateway.sending import AttemptFailed, Interrupted
from tests.integration.archive_fixture import image
from tests.misbehaving_sources import LegacyArchive
from zambezi import retrieving
from zambezi.coercion import envelope
from zambezi.config.safety import Modality
from zambezi.config.settings import Admission
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

STUDY = "1.2.3"


@dataclass
class Shelf:
    """Orthanc's store, and what it was given: SOP Instance UIDs, and who sent each."""

    refuses: Exception | None = None
    came: list[str] = field(default_factory=list)
    senders: set[str] = field(default_factory=set)

    def store(self, content: bytes) -> dict[str, Any]:
        if self.refuses:
            raise self.refuses
        plain, sender = envelope.unwrap(content)
        self.came.append(str(dcmread(DicomBytesIO(plain)).SOPInstanceUID))
        self.senders.add(sender)
        return {"Status": "Success"}


@dataclass
class Fetch:
    source: LegacyArchive
    folder: Path
    now: datetime
    shelf: Shelf = field(default_factory=Shelf)
    may_go_on: Callable[[], bool] = lambda: True
    owes: Callable[[int], float] = lambda size: 0
    stop: threading.Event = field(default_factory=threading.Event)
    admission: Admission = field(default_factory=Admission)

    def get(self, lacking: set[str] | None = None) -> Ending:
        named = {
            str(one.SOPInstanceUID): Named(str(one.SeriesInstanceUID), str(one.SOPClassUID))
            for one in self.source.holds
        }
        no_database: Any = None
        gate = Gate(
            no_database, self.admission, {"OLD": Modality("OLD", "LEGACY", "127.0.0.1", 1)}, self.folder,
            lambda: self.now,
        )  # fmt: skip
        orthanc: Any = self.shelf
        address = Address("OLD", "LEGACY", "127.0.0.1", self.source.port, "ZAMBEZI")
        way = ByGet(orthanc, address, gate, self.stop, lambda: self.may_go_on(), self.owes)
        return way.retrieve(STUDY, named, set(named) if lacking is None else lacking)


@pytest.fixture
def fetch(tmp_path: Path, now: datetime) -> Iterator[Fetch]:
    holds = [image(STUDY, f"1.2.3.{n % 2}") for n in range(6)]
    with LegacyArchive(free_port(), ("", 0), holds).listening() as source:
        yield Fetch(source, tmp_path, now)


def test_what_is_lacking_comes_and_nothing_else_and_the_archive_knows_who_sent_it(fetch: Fetch):
    uids = [str(one.SOPInstanceUID) for one in fetch.source.holds]
    assert fetch.get(set(uids[1:3])) == Ending()
    assert sorted(fetch.shelf.came) == sorted(uids[1:3])
    assert fetch.get({*uids} - {*uids[1:3]}) == Ending()
    assert sorted(fetch.shelf.came) == sorted(uids)
    assert fetch.shelf.senders == {"LEGACY"}


def test_a_window_that_closes_or_a_stop_ends_it_in_the_middle(fetch: Fetch):
    fetch.may_go_on = lambda: len(fetch.shelf.came) < 2
    fetch.source.before_sending = lambda event, dataset: time.sleep(0.15)
    assert fetch.get() == CUT
    assert 2 <= len(fetch.shelf.came) < 6
    fetch.may_go_on = lambda: True

    def stops(_event: Any, _dataset: Dataset) -> None:
        fetch.stop.set()
        time.sleep(0.15)

    fetch.source.before_sending = stops
    with pytest.raises(Interrupted, match="the gateway stops"):
        fetch.get()


def test_a_cap_holds_within_a_single_image(fetch: Fetch):
    fetch.source.holds = [image(STUDY, Rows=1024, Columns=1024, PixelData=bytes(1 << 20))]
    waited: list[float] = []

    def owes(size: int) -> float:
        waited.append(size / (4 << 20))
        return waited[-1]

    fetch.owes = owes
    begun = time.monotonic()
    assert fetch.get() == Ending()
    assert time.monotonic() - begun >= 0.25  # a megabyte at four a second
    assert max(waited) < 0.1


@pytest.mark.parametrize(
    ("refuses", "raised", "kind"),
    [
        (OrthancUnreachable("POST /instances: ConnectionError"), Interrupted, None),
        (OrthancRefused("POST", "/instances", 507, "no room"), AttemptFailed, ErrorClass.DISK),
    ],
)
def test_an_archive_that_can_store_no_more_has_no_more_sent_over_the_line(
    fetch: Fetch, refuses: Exception, raised: type[Exception], kind: ErrorClass | None
):
    sent: list[Dataset] = []

    def slowly(_event: Any, dataset: Dataset) -> None:
        sent.append(dataset)
        time.sleep(0.1)

    fetch.source.before_sending, fetch.shelf.refuses = slowly, refuses
    with pytest.raises(raised) as why:
        fetch.get()
    assert getattr(why.value, "kind", None) is kind
    assert len(sent) < 6


def test_what_the_door_does_not_take_is_named_and_the_others_come(fetch: Fetch):
    strange = image(STUDY, "1.2.3.0", PatientID="")
    fetch.source.holds.append(strange)
    fetch.admission = Admission.model_validate({"MissingIdentity": "refuse"})
    sent: list[str] = []
    fetch.source.before_sending = lambda event, dataset: sent.append(dataset.SOPInstanceUID)
    why = "the archive does not take 1 of them: it has no Patient ID"
    assert fetch.get() == Ending(ErrorClass.OBJECT, why)
    assert len(fetch.shelf.came) == 6
    assert sent.count(strange.SOPInstanceUID) == 1, "it came over the line again, in vain"


def test_the_fewest_questions_name_what_is_lacking_and_no_more():
    named = {"a": "1", "b": "1", "c": "2", "d": "2"}
    study, one = {"StudyInstanceUID": "S"}, {"StudyInstanceUID": "S", "SeriesInstanceUID": "2"}
    assert retrieving.fewest("S", named, set(named)) == [("Study", study)]
    assert retrieving.fewest("S", named, {"c", "d"}) == [("Series", one)]
    assert retrieving.fewest("S", named, {"a", "c", "d"}) == [
        ("Series", one),
        ("Instance", {**study, "SeriesInstanceUID": "1", "SOPInstanceUID": "a"}),
    ]
    assert retrieving.fewest("S", named, set()) == retrieving.fewest("S", {}, set()) == []
