"""Storage commitment: verdicts, the queue, and stations that misbehave (real associations over loopback)."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from sqlalchemy import select

from gateway import ways
from gateway.commitment import elsewhere, reporting, requests, verdicts
from gateway.commitment.commands import commitment
from gateway.commitment.reporting import Askers, ReportFailed
from gateway.commitment.requests import SOP_CLASS, SOP_INSTANCE, Asked, Unacceptable
from gateway.commitment.verdicts import Copy
from gateway.commitment.worker import Worker, release_predecessors
from operations import status
from tests.unit.operations.receivers import certificate
from zambezi import clock
from zambezi.config.safety import Modality
from zambezi.config.settings import DestinationTls, DicomTls, StorageCommitment, Window, Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditEntry, CommitmentRequest, ExceptionItem, Held
from zambezi.orthanc_client import OrthancUnreachable
from zambezi.retries import ErrorClass

CT = str(CTImageStorage)
GOOD = Copy("1.9", CT, 10, "aa", 10, "aa")


@pytest.mark.parametrize(
    ("copies", "held", "reason", "may_come"),
    [
        ([GOOD], False, None, False),
        ([], False, 0x0112, True),
        ([Copy("1.9", CT, 10, "aa", -1, "")], False, 0x0110, False),
        ([Copy("1.9", CT, 10, "aa", 9, "")], False, 0x0110, False),
        ([Copy("1.9", CT, 10, "aa", 10, "bb")], False, 0x0110, False),
        ([Copy("1.9", CT, 10, "", 10, "")], False, 0x0110, False),
        ([Copy("1.9", str(MRImageStorage), 10, "aa", 10, "aa")], False, 0x0119, False),
        ([GOOD, Copy("1.8", CT, 10, "aa", -1, "")], False, 0x0110, False),
        ([GOOD], True, 0x0110, True),
    ],
)  # fmt: skip
def test_an_instance_is_safe_only_where_index_file_and_hold_agree(
    copies: list[Copy], held: bool, reason: int | None, may_come: bool
):
    verdict = verdicts.decide([(CT, "1.1")], {"1.1": copies}, {"1.1"} if held else set())
    assert [one.reason for one in verdict.failed] == ([] if reason is None else [reason])
    assert verdict.safe == (((CT, "1.1"),) if reason is None else ())
    assert verdict.may_come == may_come


def test_the_report_lists_what_is_safe_and_what_is_not():
    event, told = reporting.information("1.2", [[CT, "1.1"], [CT, "1.3"]], [[CT, "1.3", 0x0112, "not there"]])
    assert event == reporting.SOME_FAILED
    assert [one.ReferencedSOPInstanceUID for one in told.ReferencedSOPSequence] == ["1.1"]
    assert [(o.ReferencedSOPInstanceUID, o.FailureReason) for o in told.FailedSOPSequence] == [("1.3", 0x0112)]
    event, told = reporting.information("1.2", [[CT, "1.1"]], [])
    assert event == reporting.ALL_SAFE
    assert "FailedSOPSequence" not in told


def information(*uids: str, transaction: str = "1.2") -> Dataset:
    return reporting.information(transaction, [(CT, uid) for uid in uids], [])[1]


@pytest.mark.parametrize(
    ("action", "instance", "told", "status"),
    [
        (2, SOP_INSTANCE, information("1.1"), 0x0123),
        (1, "1.2.3", information("1.1"), 0x0112),
        (1, SOP_INSTANCE, information(), 0x0115),
        (1, SOP_INSTANCE, information("1.1", transaction=""), 0x0115),
        (1, SOP_INSTANCE, information("1.a"), 0x0115),
        (1, SOP_INSTANCE, Dataset(), 0x0115),
    ],
)
def test_what_is_no_request_is_refused(action: int, instance: str, told: Dataset, status: int):
    with pytest.raises(Unacceptable) as refused:
        requests.read(action, instance, told)
    assert refused.value.status == status


@dataclass
class Archive:
    """The seam to Orthanc's REST: what /zambezi/verify answers, a piece at a time."""

    copies: dict[str, list[Copy]] = field(default_factory=dict)
    away: bool = False

    def verify(self, uids: list[str]) -> list[dict[str, Any]]:
        if self.away:
            raise OrthancUnreachable("PUT /zambezi/verify: ConnectionError")
        return [{"sop_uid": uid, "copies": [vars(one) for one in self.copies.get(uid, [])]} for uid in uids[:2]]


class Station:
    """A modality that listens for reports, and does with them what it is told."""

    def __init__(
        self, act: Callable[[evt.Event], int | None] = lambda _: 0, role: bool = True, syntax: str = SOP_CLASS,
        title: str = "CT1", tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.told: list[tuple[int, Dataset]] = []
        self._act = act
        ae = AE(title)
        ae.require_called_aet = True
        # The one that reports is the SCP: this side takes the part of the SCU, where it says anything about roles.
        ae.add_supported_context(syntax, scu_role=False, scp_role=True) if role else ae.add_supported_context(syntax)
        self._server: Any = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report)], ssl_context=tls
        )
        self.place = Modality("ct", "CT1", "127.0.0.1", self._server.server_address[1])

    def _report(self, event: evt.Event) -> tuple[int | None, Dataset | None]:
        status = self._act(event)
        if status == 0:
            self.told.append((int(event.event_type or 0), event.event_information))
        return status, None

    def close(self) -> None:
        self._server.shutdown()


@contextmanager
def listening(**how: Any) -> Iterator[Station]:
    station = Station(**how)
    try:
        yield station
    finally:
        station.close()


@dataclass
class Bench:
    """A queue with one worker, whose clock the test turns."""

    sessions: Sessions
    archive: Archive
    at: datetime
    settings: StorageCommitment

    def ask(self, *uids: str, transaction: str = "1.2", aet: str = "CT1") -> int:
        asked = Asked(transaction, tuple((CT, uid) for uid in uids))
        with self.sessions.begin() as session:
            return requests.take(session, asked, aet, "ZAMBEZI", self.at)

    def work(
        self, place: Modality, after: float = 1, ready: Any = lambda *_: None, tls: DicomTls | None = None
    ) -> list[CommitmentRequest]:
        self.at += timedelta(seconds=after)
        settings = Zambezi(storage_commitment=self.settings, dicom_tls=tls or DicomTls())
        worker = Worker(
            self.sessions, self.archive, settings, {"ct": place}, Askers(), "host:1/run",  # type: ignore[arg-type]
            threading.Event(), Path("/nowhere"), ready, lambda: self.at, lambda: 0.0,
        )  # fmt: skip
        while worker.work_one():
            pass
        return self.all(CommitmentRequest)

    def all(self, table: Any, *where: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).where(*where).order_by(table.id)))

    def waiting(self, kind: str) -> int:
        return len(self.all(ExceptionItem, ExceptionItem.kind == kind, ExceptionItem.decided_at.is_(None)))


@pytest.fixture
def bench(made: Sessions, now: datetime) -> Bench:
    return Bench(made, Archive({"1.1": [GOOD], "1.3": [GOOD], "1.5": [GOOD]}), now, StorageCommitment(attempts=3))


NOWHERE = Modality("ct", "CT1", "127.0.0.1", 9)


def test_images_that_are_safe_are_told_once_and_make_their_study_ready(bench: Bench):
    heard = []
    assert bench.ask("1.1", "1.3", "1.5") == 0
    with listening() as station:
        (row,) = bench.work(station.place, ready=lambda _s, study, by, _n: heard.append((study, by)))
        bench.work(station.place)
    assert (row.state, row.failed, row.study_uids) == ("reported", [], ["1.9"])
    ((event, told),) = station.told
    assert (event, told.TransactionUID, len(told.ReferencedSOPSequence)) == (1, "1.2", 3)
    assert heard == [("1.9", "commitment")]
    said = [entry.payload.decode() for entry in bench_audit(bench)]
    assert ['"state":"asked"' in said[0], '"state":"checked"' in said[1], '"state":"reported"' in said[2]] == [True] * 3


def bench_audit(bench: Bench) -> list[AuditEntry]:
    with bench.sessions() as session:
        return list(session.scalars(select(AuditEntry).order_by(AuditEntry.seq)))


def test_images_on_their_way_are_waited_for_and_then_named_as_missing(bench: Bench):
    bench.ask("1.1", "1.7")
    with listening() as station:
        (row,) = bench.work(station.place)
        assert (row.state, row.attempts, station.told) == ("due", 0, [])
        bench.work(station.place, after=60)
        bench.ask("1.1", "1.8", transaction="1.4")
        bench.archive.copies["1.8"] = [GOOD]
        bench.work(station.place)
    (_, told), (event, _) = station.told
    assert (told.FailedSOPSequence[0].FailureReason, event) == (0x0112, 1)
    assert bench.waiting("commitment-failed") == 1


def test_images_that_are_sent_again_settle_what_waited_for_them(bench: Bench):
    bench.archive.copies["1.1"] = [Copy("1.9", CT, 10, "aa", -1, "")]
    bench.ask("1.1", "1.3")
    with listening() as station:
        bench.work(station.place)
        assert bench.waiting("commitment-failed") == 1
        bench.archive.copies["1.1"] = [GOOD]
        bench.ask("1.1", transaction="1.4")
        bench.work(station.place)
    assert bench.waiting("commitment-failed") == 0


def test_another_content_that_waits_in_the_hold_is_not_answered_for(bench: Bench, now: datetime):
    with bench.sessions.begin() as session:
        session.add(Held(sha256="a" * 64, why="conflict", reason="differs", reference="r", sop_uid="1.1",
                         held_at=clock.text(now), next_at=clock.text(now)))  # fmt: skip
    bench.ask("1.1")
    (row,) = bench.work(NOWHERE, after=61)
    assert [one[2] for one in row.failed] == [0x0110]


def test_an_archive_that_is_away_costs_no_attempt(bench: Bench):
    bench.archive.away = True
    bench.ask("1.1")
    (row,) = bench.work(NOWHERE)
    assert (row.state, row.attempts, row.checked_at) == ("due", 0, None)


def refusing(status: int | None) -> Callable[[evt.Event], int | None]:
    return lambda _: status


def aborting(event: evt.Event) -> int | None:
    event.assoc.abort()
    return 0x0110


def hanging(_: evt.Event) -> int | None:
    threading.Event().wait(3)
    return 0x0110


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ({}, None, ""),
        ({"role": False}, None, ""),
        ({"act": refusing(0x0110)}, ErrorClass.OBJECT, "answered 0x0110"),
        ({"act": aborting}, ErrorClass.TRANSIENT, "did not answer"),
        ({"act": hanging}, ErrorClass.TRANSIENT, "did not answer"),
        ({"syntax": "1.2.840.10008.1.1"}, ErrorClass.OBJECT, "takes no storage commitment reports"),
        ({"title": "OTHER"}, ErrorClass.OBJECT, "rejects our association"),
    ],
)
def test_a_station_is_told_or_the_reason_is_known(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], kind: ErrorClass | None, words: str
):
    monkeypatch.setattr(reporting, "_ANSWER_S", 0.5 if how.get("act") is hanging else 30)
    with listening(**how) as station:
        place = ways.called(station.place, "ZAMBEZI", DestinationTls(), Path("/nowhere"))
        if kind is None:
            reporting.call(place, 1, information("1.1"))
            assert [event for event, _ in station.told] == [1]
            return
        with pytest.raises(ReportFailed, match=words) as failed:
            reporting.call(place, 1, information("1.1"))
        assert (failed.value.kind, station.told) == (kind, [])


def test_a_station_that_is_known_by_its_certificate_is_called_at_its_own_address_over_tls(bench: Bench, tmp_path: Path):
    (tmp_path / "stranger").mkdir()
    own, context = certificate(tmp_path)
    another, _ = certificate(tmp_path / "stranger")
    behind = Modality("ct", "CT1", "127.0.10.1", 104)  # what stands for it here
    bench.ask("1.1")
    with listening(tls=context) as station:

        def tls(trusted: Path) -> DicomTls:
            where = {"CaFile": str(trusted), "Host": "127.0.0.1", "Port": station.place.port, "ServerName": "localhost"}
            return DicomTls.model_validate({"Certificates": {"ct": "AB" * 20}, "Calls": {"ct": where}})

        (row,) = bench.work(behind, tls=tls(another))
        assert (row.state, station.told) == ("retrying", []), "somebody else may sit at that address"
        assert row.outcome == f"CT1 at 127.0.0.1:{station.place.port} over TLS can't be reached"
        (row,) = bench.work(behind, after=3600, tls=tls(tmp_path / "none.crt"))
        assert "DicomTls.Calls.ct can't be used" in row.outcome
        with bench.sessions.begin() as session:
            assert requests.retry(session, row.id, now=bench.at, who="ana")
        (row,) = bench.work(behind, tls=tls(own))
    assert (row.state, [event for event, _ in station.told]) == ("reported", [reporting.ALL_SAFE])


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ({"CT2": {"CaFile": "a.crt", "Host": "10.1.0.21"}}, r'Calls\.CT2: no "CT2" in Certificates \(known: CT1\)'),
        ({"CT1": {"CaFile": "a.crt"}}, r"Calls\.CT1: CaFile and Host are needed"),
        ({"CT1": {"Host": "10.1.0.21"}}, r"Calls\.CT1: CaFile and Host are needed"),
    ],
)
def test_a_call_over_tls_that_is_half_written_is_refused(calls: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        DicomTls.model_validate({"Certificates": {"CT1": "AB" * 20}, "Calls": calls})


def test_a_station_that_is_away_is_left_alone_and_in_the_end_put_before_a_person(bench: Bench):
    for n in range(3):
        bench.ask("1.1", transaction=f"1.2.{n}")
    rows = bench.work(NOWHERE)
    assert [row.attempts for row in rows] == [1, 0, 0], "the first tells of all of them that nobody is there"
    assert {row.next_at for row in rows} == {clock.text(bench.at + timedelta(seconds=30))}
    for _ in range(20):
        rows = bench.work(NOWHERE, after=3600)
    assert {row.state for row in rows} == {"parked"}
    assert bench.waiting("commitment-parked") == 3
    with bench.sessions.begin() as session:
        assert requests.retry(session, rows[0].id, now=bench.at, who="ana")
    with listening() as station:
        assert [row.state for row in bench.work(station.place)] == ["reported", "parked", "parked"]
    assert bench.waiting("commitment-parked") == 2


@pytest.mark.parametrize("sign", ["the time", "a request", "a person"])
def test_a_station_that_listens_again_is_told_all_that_waited(bench: Bench, sign: str):
    for n in range(3):
        bench.ask("1.1", transaction=f"1.2.{n}")
    bench.work(NOWHERE)
    if sign == "a request":
        bench.ask("1.1", transaction="1.2.3")
    if sign == "a person":
        with bench.sessions.begin() as session:
            assert requests.retry(session, bench.all(CommitmentRequest)[1].id, now=bench.at, who="ana")
    with listening() as station:
        assert {row.state for row in bench.work(station.place, after=30 if sign == "the time" else 1)} == {"reported"}
    assert sorted(told.TransactionUID for _, told in station.told)[:3] == ["1.2.0", "1.2.1", "1.2.2"]


def test_stations_are_called_inside_the_windows_alone(bench: Bench):
    bench.settings = StorageCommitment(windows=(Window.model_validate({"From": "20:00", "To": "21:00"}),))
    bench.ask("1.1")
    with listening() as station:
        (row,) = bench.work(station.place)  # 08:30 UTC is 10:30 in Maputo
        assert (row.state, row.next_at, row.attempts) == ("due", "2026-03-01T18:00:00.000000Z", 0)
        assert bench.work(station.place, after=10 * 3600)[0].state == "reported"


@pytest.mark.parametrize("is_started_again", [False, True])
def test_a_worker_that_died_after_its_look_is_followed_by_one_that_tells(bench: Bench, is_started_again: bool):
    bench.ask("1.1")
    until = bench.at + (timedelta(hours=1) if is_started_again else timedelta())
    with bench.sessions.begin() as session:
        row = session.scalars(select(CommitmentRequest)).one()
        row.state, row.checked_at, row.attempts, row.fence = "working", clock.text(bench.at), 1, 1
        row.lease_owner, row.lease_until = "host:1/dead/commitment", clock.text(until)
    if is_started_again:
        with bench.sessions.begin() as session:
            assert release_predecessors(session, "host:1", "run") == 1
    with listening() as station:
        (row,) = bench.work(station.place)
    assert (row.state, row.attempts, len(station.told)) == ("reported", 1, 1)


def test_the_same_request_again_is_answered_anew_and_a_changed_one_is_refused(bench: Bench):
    bench.ask("1.1")
    with listening() as station:
        bench.work(station.place)
        assert bench.ask("1.1") == 0
        bench.work(station.place)
    assert len(station.told) == 2
    assert bench.ask("1.3") == 0x0115


def test_what_was_asked_at_orthancs_own_port_is_told_of_once(bench: Bench):
    job = {"Type": "StorageCommitmentScp", "Content": {"RemoteAet": "CT1", "TransactionUid": generate_uid()}}
    ((aet, uid),) = elsewhere.seen([job, {"Type": "DicomModalityStore", "Content": {"RemoteAet": "PACS"}}])
    for fresh in (True, False):
        with bench.sessions.begin() as session:
            assert elsewhere.note(session, aet, uid, 4243, bench.at) is fresh
    assert bench.waiting("commitment-own-port") == 1
    with bench.sessions.begin() as session:
        assert status.queues(session, bench.at)["modalities that ask port 4242 for storage commitment"] == 1
        elsewhere.forget(session, bench.at + timedelta(days=91))
    assert bench.all(CommitmentRequest) == []


def test_at_the_console_a_request_is_shown_given_up_and_taken_up_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tables_url: str, tmp_path: Path
):
    monkeypatch.setenv("ZAMBEZI_DATABASE_URL", tables_url)
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path))
    bench.archive.copies["1.3"] = [Copy("1.9", CT, 10, "aa", 10, "bb")]
    bench.ask("1.1", "1.3")
    bench.work(NOWHERE)

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(commitment, words)
        return done.exit_code, done.output

    assert "1 of 2 safe" in typed("list")[1]
    assert "1.3  0x0110  its file has other bytes than what came" in typed("show", "1")[1]
    assert [typed("cancel", "1")[0], typed("cancel", "1")[0], typed("retry", "2")[0]] == [0, 1, 1]
    assert [row.state for row in bench.work(NOWHERE, after=7200)] == ["cancelled"]
    assert typed("retry", "1")[0] == 0
    assert [row.state for row in bench.all(CommitmentRequest)] == ["due"]
