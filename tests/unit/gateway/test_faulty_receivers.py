"""Deliveries to receivers that do what receivers do: real DICOM on loopback, the clock a parameter.

Each fault is met at the strictest proof that can be had there, and in the end the receiver has everything, once,
or a person knows what it hasn't, and why.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, MRImageStorage
from sqlalchemy.exc import DBAPIError

from gateway import commitments_asked
from gateway.associations import Address, Owes
from gateway.commitments_asked import Commitments
from gateway.courier import Courier
from gateway.deliveries import LEASE, DicomSender
from gateway.outgoing import Packer
from gateway.own_sender import OwnSender, Same
from gateway.transcoding import Transcoder
from tests import postgres
from tests.integration.archive_fixture import image, written
from tests.misbehaving import Receiver, Shelf
from tests.schema import upgraded
from zambezi import outbox, windows
from zambezi.bandwidth import Line
from zambezi.config.settings import Destination, DestinationTls, Site, Window
from zambezi.database.engine import Sessions, sessions
from zambezi.database.tables import CommitmentAsked, Delivery, ExceptionItem, Pseudonym
from zambezi.tls import to_peer

SILENCE_S = 0.6
REFUSED_FOR_NOW = 0xA700


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    engine = upgraded(f"sqlite:///{tmp_path_factory.mktemp('faults')}/z.db", "gateway")
    yield sessions(engine, "gateway")
    engine.dispose()


@dataclass
class Bench:
    """One study, a sender of ours and a receiver."""

    made: Sessions
    now: datetime
    receiver: Receiver
    destination: Destination
    images: list[Dataset]
    home: Path
    silence_s: float = 20.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        files = {f"id{n}": one for n, one in enumerate(self.images)}
        self.shelf = Shelf(
            {id: written(one) for id, one in files.items()},
            {
                id: {"SopClassUid": str(one.SOPClassUID), "TransferSyntax": str(one.file_meta.TransferSyntaxUID)}
                for id, one in files.items()
            },
        )
        self.study = str(self.images[0].StudyInstanceUID)
        self.wanted = {str(one.SOPInstanceUID) for one in self.images}
        self.name = f"PACS-{self.study[-12:]}"
        self.add(
            "d" + self.study[-20:],
            [[id, str(one.SeriesInstanceUID), str(one.SOPInstanceUID)] for id, one in files.items()],
        )
        self.sender = self.a_sender()

    def add(self, id: str, instances: list[list[str]], priority: int = 0) -> None:
        self.id = id
        with self.made.begin() as session:
            outbox.add(
                session, id=id, kind="dicom", rule="r", destination=self.name, because="it must", now=self.now,
                writer="gateway", study_uid=self.study, instances=instances,
            )  # fmt: skip
            session.get_one(Delivery, id).priority = priority

    def a_sender(
        self, names: Any = None, linger_s: float = 0.5, owes: Owes = lambda size: 0, tls: DestinationTls | None = None
    ) -> DicomSender:
        address = Address(
            self.name, self.receiver.aet, "127.0.0.1", self.receiver.port, self.destination.aet or "US",
            partial(to_peer, tls, self.home) if tls else None, tls.server_name if tls else "",
        )  # fmt: skip
        own = OwnSender(
            address,
            Packer(self.shelf, self.destination, self.home),
            self.stop,
            owes,
            names or Same(),
            self.silence_s,
            lambda: windows.is_open(self.destination.windows, self.now, Site().zone),
        )  # type: ignore[arg-type]  # the shelf stands in for Orthanc
        self.commitments = Commitments(self.made, {}, lambda: self.now)
        courier = Courier(self.name, self.destination, own, own, self.commitments, lambda: self.now, linger_s)
        return DicomSender(
            self.made, courier, self.name, self.destination, Site(), "host:1/run", self.stop, lambda: self.now,
            lambda: 0.0,
        )  # fmt: skip

    def attempt(self, after: timedelta = timedelta(hours=2)) -> Delivery:
        """One attempt once that much time has passed; the row as it is then."""
        self.now += after
        assert self.sender.deliver_one()
        return self.row()

    def row(self) -> Delivery:
        with self.made.begin() as session:
            return session.get_one(Delivery, self.id)

    def arrived_once(self) -> None:
        """It has all of it, and got nothing twice that it had."""
        assert set(self.receiver.has) == self.wanted
        assert set(self.receiver.offered.values()) == {1}


@pytest.fixture
def bench(made: Sessions, now: datetime, tmp_path: Path) -> Callable[..., Bench]:
    def build(
        receiver: Receiver, count: int = 4, images: list[Dataset] | None = None, silence_s: float = 20.0,
        made: Sessions = made, **how: Any
    ) -> Bench:  # fmt: skip
        study = image().StudyInstanceUID
        destination = Destination(aet="ZAMBEZI_OUT", **{"proof": "found", "attempts": 6, "retry_seconds": 30, **how})
        return Bench(
            made, now, receiver, destination, images or [image(study) for _ in range(count)], tmp_path, silence_s
        )

    return build


def kept_but_every_second(_event: Any, number: int) -> int | None:
    return None if number % 2 else 0


def hangs_at_the_third(event: Any, number: int) -> int | None:
    if number == 3:
        time.sleep(SILENCE_S * 2)
        event.assoc.abort()
    return None


def breaks_the_line_at_the_third(event: Any, number: int) -> int | None:
    if number == 3:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        return 0
    return None


def is_full_at_the_third(_event: Any, number: int) -> int | None:
    return REFUSED_FOR_NOW if number == 3 else None


@pytest.mark.parametrize("proof", ["acknowledged", "found", "committed"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (hangs_at_the_third, "was silent for 0.6 s in mid-study"),
        (breaks_the_line_at_the_third, "ended the association in mid-study"),
        (is_full_at_the_third, "status 0xA700"),
    ],
)
def test_what_broke_in_mid_study_goes_on_where_it_was(bench, proof, fault, said):
    one = bench(Receiver(fault), proof=proof, silence_s=SILENCE_S if fault is hangs_at_the_third else 20)
    with one.receiver.listening():
        failed = one.attempt()
        assert failed.state == "retrying"
        assert said in failed.outcome
        one.sender._courier._own._silence_s = 20
        kept = set(one.receiver.has)
        done = one.attempt()
    assert (done.state, done.proof) == ("delivered", proof)
    assert set(one.receiver.has) == one.wanted
    # What was acknowledged before isn't sent again; of the third nobody could know.
    assert {sop for sop, times in one.receiver.offered.items() if times > 1} <= one.wanted - (kept - {*list(kept)[2:3]})
    assert sum(one.receiver.offered.values()) <= len(one.wanted) + 1


@pytest.mark.parametrize("proof", ["found", "committed"])
@pytest.mark.parametrize(
    ("lies", "missing"), [(lambda event, number: 0, 4), (kept_but_every_second, 2)], ids=["all", "every second"]
)
def test_a_receiver_that_says_success_and_keeps_nothing_is_found_out_within_one_check(bench, proof, lies, missing):
    one = bench(Receiver(lies), proof=proof)
    with one.receiver.listening():
        failed = one.attempt()
        assert failed.state == "retrying"
        assert f"{missing} of 4 instances" in failed.outcome
        one.receiver.does = lambda event, number: None  # somebody repairs it
        had = set(one.receiver.has)
        done = one.attempt()
    assert done.state == "delivered"
    assert set(one.receiver.has) == one.wanted
    assert {sop for sop, times in one.receiver.offered.items() if times == 1} == had


def test_a_liar_that_goes_on_lying_ends_before_a_person(bench):
    one = bench(Receiver(lambda event, number: 0), attempts=3)
    with one.receiver.listening():
        for _ in range(3):
            row = one.attempt()
    assert row.state == "parked"
    with one.made.begin() as session:
        assert session.query(ExceptionItem).filter_by(reference=one.id).one().facts["attempts"] == 3


def test_at_acknowledged_a_liar_is_believed_and_the_outcome_says_what_it_rests_on(bench):
    one = bench(Receiver(lambda event, number: 0), proof="acknowledged")
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, row.proof) == ("delivered", "acknowledged")
    assert "acknowledged each of 4" in row.outcome


def test_a_warning_is_no_refusal_and_is_told(bench):
    one = bench(Receiver(lambda event, number: 0xB000))
    with one.receiver.listening():
        row = one.attempt()
    assert row.state == "delivered"
    assert "4 with the warning 0xB000" in row.outcome
    one.arrived_once()


def test_a_receiver_down_for_a_day_gets_everything_once_when_it_is_back(bench):
    one = bench(Receiver(), attempts=50)
    for _ in range(12):
        row = one.attempt()
    assert row.state == "retrying"
    assert "Connection refused" in row.outcome
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    one.arrived_once()


@pytest.mark.parametrize(
    ("rejects", "state", "said"),
    [
        ((2, 3, 2), "retrying", "refuses the association: local limit exceeded"),
        ((1, 1, 3), "parked", "it doesn't know our AE title"),
        ((1, 1, 7), "parked", "its AE title is another one"),
    ],
)
def test_a_refused_association_is_for_now_or_for_a_person(bench, rejects, state, said):
    one = bench(Receiver(rejects=rejects))
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, said in row.outcome) == (state, True), row.outcome
    assert not one.receiver.offered


def a_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", f"{name}.key", "-out", f"{name}.pem"], check=True, cwd=folder, capture_output=True,
    )  # fmt: skip


def test_a_receiver_that_shows_another_certificate_gets_nothing_and_a_person_is_told(bench, tmp_path):
    for name in ("theirs", "other"):
        a_certificate(tmp_path, name)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(tmp_path / "theirs.pem", tmp_path / "theirs.key")
    one = bench(Receiver(tls=theirs))

    def trusts(**tls: str) -> Delivery:
        one.sender = one.a_sender(tls=DestinationTls(**tls))
        row = one.attempt()
        with one.made.begin() as session:
            outbox.resume(session, one.name, now=one.now, writer="test", who="maria")
        return row

    with one.receiver.listening():
        row = trusts(ca_file="other.pem")
        assert (row.state, "self-signed certificate" in row.outcome) == ("parked", True), row.outcome
        row = trusts(ca_file="missing.pem")
        assert (row.state, "the files of Tls can't be used" in row.outcome) == ("parked", True), row.outcome
        assert not one.receiver.offered
        assert trusts(ca_file="theirs.pem", server_name="somebody").state == "parked"
        assert trusts(ca_file="theirs.pem").state == "delivered"
    one.arrived_once()


def test_a_receiver_that_drops_each_association_is_tried_again(bench):
    one = bench(Receiver(lambda event, number: event.assoc.abort() or 0))
    with one.receiver.listening():
        assert one.attempt().state == "retrying"
        one.receiver.does = lambda event, number: None
        assert one.attempt().state == "delivered"
    assert set(one.receiver.has) == one.wanted


@pytest.mark.parametrize("proof", ["acknowledged", "found"])
def test_one_class_that_isnt_taken_keeps_no_other_back_and_a_person_is_told(bench, proof):
    study = image().StudyInstanceUID
    images = [image(study, SOPClassUID=MRImageStorage if n == 1 else CTImageStorage) for n in range(4)]
    for one in images:
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one = bench(Receiver(classes=(CTImageStorage,)), images=images, proof=proof)
    with one.receiver.listening():
        states = [one.attempt() for _ in range(3)]
    assert [row.state for row in states] == ["retrying", "retrying", "parked"]
    assert "it takes no 1.2.840.10008.5.1.4.1.1.4" in states[0].outcome
    assert "takes none of: MR Image Storage" in states[-1].outcome
    assert set(one.receiver.has) == one.wanted - {str(images[1].SOPInstanceUID)}
    assert set(one.receiver.offered.values()) == {1}


def test_a_status_that_refuses_one_image_keeps_no_other_back(bench):
    one = bench(Receiver(lambda event, number: 0xC000 if number == 2 else None))
    with one.receiver.listening():
        row = one.attempt()
        assert len(one.receiver.has) == 3
        assert "1 of 4 instances don't go" in row.outcome
        assert "status 0xC000" in row.outcome
        assert one.attempt().state == "delivered"


def test_a_receiver_that_takes_implicit_vr_alone_gets_it(bench):
    one = bench(Receiver(syntaxes=("1.2.840.10008.1.2",)))
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    got = next(iter(one.receiver.has.values()))
    assert got.PatientName == "Teste^Ana"
    assert got.PixelData == bytes(64)


def test_what_is_compressed_isnt_unpacked_without_being_asked(bench):
    study = image().StudyInstanceUID
    images = [image(study) for _ in range(2)]
    images[0].file_meta.TransferSyntaxUID = JPEGLSLossless
    images[0].PixelData = encapsulate([b"abcd"])
    images[0]["PixelData"].is_undefined_length = True
    one = bench(Receiver(), images=images)
    with one.receiver.listening():
        row = one.attempt()
    assert JPEGLSLossless in row.outcome
    assert set(one.receiver.has) == {str(images[1].SOPInstanceUID)}


def test_bytes_go_out_as_they_are_stored(bench):
    one = bench(Receiver(), count=1)
    seen = []
    one.receiver.does = lambda event, number: seen.append(event.request.DataSet.getvalue())
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    file = one.shelf.files["id0"]
    assert file.endswith(seen[0])
    assert len(seen[0]) > len(file) - 400
    assert one.receiver.callers[0] == "ZAMBEZI_OUT"


# --- what happens on our side ------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here, as by kill -9: nothing of it is told to anybody."""


@contextmanager
def killed_at(where: Any, name: str, when: str) -> Iterator[None]:
    """Let a method of `where` end the process, before or after what it does."""
    real = getattr(where, name)

    def deadly(*given: Any, **named: Any) -> Any:
        if when == "after":
            real(*given, **named)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, deadly)
        yield


@pytest.mark.parametrize("proof", ["acknowledged", "found", "committed"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["bring", "_send", "_settle"])
def test_a_gateway_that_is_killed_at_a_step_is_followed_by_another_and_nothing_is_lost(bench, proof, when, step):
    one = bench(Receiver(), proof=proof)
    where = one.sender if step == "_settle" else one.sender._courier
    with one.receiver.listening():
        with killed_at(where, step, when), pytest.raises(Killed):
            one.attempt()
        one.sender = one.a_sender()
        one.now += LEASE * 2
        while one.row().state not in outbox.AT_REST:
            one.attempt()
        row = one.row()
    assert (row.state, row.proof) == ("delivered", proof)
    assert set(one.receiver.has) == one.wanted
    # What isn't written down yet is repeated after a crash, and asked for first where that can be.
    assert max(one.receiver.offered.values()) <= (1 if proof == "found" else 2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that may die: the run's own serves others, too."""
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed; tools/install --tests brings it")
    with postgres.a_cluster(found) as running:
        yield running


def in_vain(one: Bench, where: str, name: str, meet: threading.Barrier) -> None:
    """One attempt, in the midst of which the database goes: when all have come to this method."""
    met = one.sender if where == "sender" else one.sender._courier
    real, died = getattr(met, name), threading.Event()

    def dies(*given: Any) -> Any:
        if not died.is_set():
            died.set()
            meet.wait(20)
        return real(*given)

    setattr(met, name, dies)
    with pytest.raises(DBAPIError):
        one.sender.deliver_one()


def test_a_database_that_is_killed_at_each_step_loses_nothing_and_what_is_proven_isnt_sent_again(
    cluster, bench, monkeypatch
):
    monkeypatch.setattr(OwnSender, "part", 2)
    engine = upgraded(cluster.url("postgres"), "gateway")
    made = sessions(engine, "gateway")
    for where, name in (("sender", "_save"), ("courier", "bring"), ("courier", "_ask"), ("sender", "_settle")):
        proofs = ["committed"] if name == "_ask" else ["acknowledged", "found", "committed"]
        benches = [bench(Receiver(), proof=proof, made=made) for proof in proofs]
        meet = threading.Barrier(len(benches), cluster.kill)

        with ExitStack() as listening:
            for one in benches:
                listening.enter_context(one.receiver.listening())
            with ThreadPoolExecutor(len(benches)) as pool:
                list(pool.map(partial(in_vain, where=where, name=name, meet=meet), benches))
            cluster.start()
            engine.dispose()
            for one in benches:
                one.sender = one.a_sender()
                row = one.attempt(LEASE * 2)
                while row.state not in outbox.AT_REST:  # a report that comes late on a busy machine
                    row = one.attempt()
                assert (row.state, row.proof) == ("delivered", one.destination.proof), (name, row.outcome)
                assert set(one.receiver.has) == one.wanted
                # What isn't written down yet is repeated, but where the receiver can be asked first.
                once = row.proof == "found" or name == "_ask"
                assert max(one.receiver.offered.values()) <= (1 if once else 2), name


def test_an_archive_that_goes_away_in_mid_study_costs_nothing_that_arrived(bench):
    one = bench(Receiver(), proof="acknowledged", count=3)

    def goes_away(_event: Any, number: int) -> None:
        one.shelf.away = number == 2

    one.receiver.does = goes_away
    with one.receiver.listening():
        assert one.attempt().state == "retrying"
        one.shelf.away = False
        assert one.attempt().state == "delivered"
    one.arrived_once()


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


# --- commitment -----------------------------------------------------------------------------------


def test_a_commitment_that_comes_hours_later_ends_the_delivery_and_nobody_stood_by(bench):
    one = bench(Receiver(reports=False), proof="committed", commitment_minutes=600)
    with one.receiver.listening():
        waiting = one.attempt()
        assert (waiting.state, waiting.attempts) == ("due", 0)
        assert "has yet to commit itself" in waiting.outcome
        assert not one.sender.deliver_one()
        with one.made.begin() as session:
            asked = session.query(CommitmentAsked).filter_by(delivery_id=one.id).one()
            report = commitments_asked.question(asked.transaction_uid, [("1.2", sop) for sop in one.wanted])
            one.now += timedelta(hours=3)
            assert commitments_asked.take(session, "STRANGER", report, {}, one.now) == 0x0112
            assert commitments_asked.take(session, "PACS", report, {}, one.now) == 0
        row = one.attempt(timedelta())
    assert (row.state, row.proof) == ("delivered", "committed")
    one.arrived_once()


def test_a_person_who_tries_again_has_the_receiver_asked_again_and_nothing_sent(bench):
    one = bench(Receiver(reports=False), proof="committed", commitment_minutes=600)
    one.sender = one.a_sender(linger_s=0.05)
    with one.receiver.listening():
        assert one.attempt().state == "due"
        one.receiver.reports = True
        one.sender = one.a_sender()
        with one.made.begin() as session:
            assert outbox.retry(session, one.id, now=one.now, writer="ris", who="maria")
        assert one.attempt(timedelta()).state == "delivered"
    one.arrived_once()


def test_a_receiver_that_never_commits_itself_is_asked_again_and_in_the_end_a_person_is_told(bench):
    one = bench(Receiver(reports=False), proof="committed", attempts=2, commitment_minutes=60)
    one.sender = one.a_sender(linger_s=0.05)
    states = []
    with one.receiver.listening():
        while one.row().state != "parked":
            states.append(one.attempt().state)
    assert states == ["due", "retrying", "due", "parked"]
    assert "has not committed itself" in one.row().outcome
    one.arrived_once()


def test_what_it_doesnt_commit_itself_to_is_sent_again_alone(bench):
    bad: list[str] = []
    one = bench(Receiver(commits=lambda sop: 0x0110 if bad[:1] == [sop] else None), proof="committed")
    bad.append(min(one.wanted))
    with one.receiver.listening():
        failed = one.attempt()
        assert "does not commit itself to 1 of 4 instances" in failed.outcome
        assert "processing failure" in failed.outcome
        sent = dict(one.receiver.offered)
        bad.clear()
        assert one.attempt().state == "delivered"
    assert {sop: times for sop, times in one.receiver.offered.items() if times != sent[sop]} == {min(one.wanted): 2}


# --- what is changed on the way out ---------------------------------------------------------------------


@pytest.mark.parametrize(("transcode", "syntax"), [("jpeg-ls", JPEGLSLossless), ("jpeg-2000", JPEG2000Lossless)])
def test_images_go_out_compressed_without_loss_and_what_has_no_pixels_as_it_is(bench, transcode, syntax):
    study = image().StudyInstanceUID
    pixels = bytes(range(256)) * 16
    report = image(study)
    del report.PixelData
    images = [image(study, Rows=64, Columns=64, PixelData=pixels), report]
    one = bench(Receiver(syntaxes=(ExplicitVRLittleEndian, syntax)), images=images, transcode=transcode)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    packed, whole = (one.receiver.has[str(image.SOPInstanceUID)] for image in images)
    assert (packed.file_meta.TransferSyntaxUID, whole.file_meta.TransferSyntaxUID) == (syntax, ExplicitVRLittleEndian)
    assert len(packed.PixelData) < 2048
    unpacked = Transcoder("uncompressed", one.home).transcoded(written(packed))
    assert dcmread(BytesIO(unpacked)).PixelData == pixels
    assert not list((one.home / "transcoding").iterdir())


def test_an_image_that_the_codec_cant_take_waits_for_a_person_and_keeps_no_other_back(bench):
    study = image().StudyInstanceUID
    images = [image(study, PixelData=bytes(6)), image(study, Rows=8, Columns=8)]
    one = bench(Receiver(syntaxes=(ExplicitVRLittleEndian, JPEGLSLossless)), images=images, transcode="jpeg-ls")
    with one.receiver.listening():
        row = one.attempt()
    assert "can't be transcoded" in row.outcome
    assert set(one.receiver.has) == {str(images[1].SOPInstanceUID)}


def test_an_image_that_is_malformed_waits_for_a_person_and_keeps_no_other_back(bench):
    one = bench(Receiver(), count=2, set_={"InstitutionName": "X"})
    file = one.shelf.files["id0"]
    at = file.find(b"LO", file.find(b"DICM") + 200)  # a length that reaches beyond the end
    one.shelf.files["id0"] = file[: at + 2] + b"\xfe\xff" + file[at + 4 :]
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, len(one.receiver.has)) == ("retrying", 1)
    assert "1 of 2 instances don't go" in row.outcome
    assert "it is cut off" in row.outcome


def test_attributes_are_set_and_removed_on_the_way_out_and_pixels_stay(bench):
    changes = {"set_": {"InstitutionName": "Clínica Central"}, "remove": ("PatientName",)}
    one = bench(Receiver(), count=1, **changes)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    (got,) = one.receiver.has.values()
    assert got.InstitutionName == "Clínica Central"
    assert got.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientName" not in got
    assert got.PixelData == bytes(64)


def test_a_deidentified_study_is_proven_under_its_new_uids_and_found_again_by_its_mapping(bench):
    from gateway.pseudonyms import Pseudonyms

    study = image().StudyInstanceUID
    images = [image(study, PatientID="NID-4711", StudyDescription="secret", InstanceNumber=n) for n in (1, 2)]
    one = bench(Receiver(), images=images, deidentify=True)
    one.sender = one.a_sender(Pseudonyms(one.made, one.name, lambda: one.now))
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    assert not set(one.receiver.has) & one.wanted
    for got in one.receiver.has.values():
        assert "NID-4711" not in str(got)
        assert "secret" not in str(got)
        assert got.PixelData == bytes(64)
    with one.made.begin() as session:
        kept = {row.pseudonym: row.original for row in session.query(Pseudonym).filter_by(destination=one.name)}
    assert kept == {str(got.PatientID): "NID-4711", str(got.StudyInstanceUID): str(study)}


# --- another destination ---------------------------------------------------------------------------------


def test_what_waits_while_a_destination_fails_goes_to_its_alternate_and_it_is_found_again(bench):
    one = bench(Receiver(), alternate="SECOND", alternate_after=3, break_after=2)
    first = one.id
    one.attempt()
    one.attempt()
    assert not one.sender.deliver_one()  # paused now, and two failures aren't three
    assert one.row().state == "retrying"
    one.attempt()  # the probe fails, too
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
