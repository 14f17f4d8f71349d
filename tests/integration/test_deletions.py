"""Deletion by its one path, with a real Orthanc and our plugin: two people, the wait, the hold, deaths on the way."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import inspect, select

from gateway.journal import Follower
from gateway.pushes import Pushes
from operations.custody.deleting import Deleting
from operations.custody.worker import WRITER, Desk
from tests import custody_process
from tests.integration.archive_fixture import Archive, image, until
from tests.schema import upgraded
from zambezi import audit, clock, deletions, hold, outbox
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Deletion, DeletionItem, Delivery, ExceptionItem, Held, Study
from zambezi.orthanc_client import OrthancClient, OrthancUnreachable

ENDED = ("done", "parked", "restored", "asked", "withdrawn")


class Clumsy(OrthancClient):
    """Custody's client; `at` is called at each request with method, path and whether it has been answered."""

    at: Callable[[str, str, bool], None] | None = None

    def request(self, method: str, path: str, timeout_s: float | None = None, **how: Any) -> requests.Response:
        if self.at:
            self.at(method, path, False)
        answer = super().request(method, path, timeout_s, **how)
        if self.at:
            self.at(method, path, True)
        return answer


@dataclass
class Room:
    """An archive, the central database, a gateway that follows when it is asked to, and custody in this process."""

    archive: Archive
    sessions: Sessions
    ahead: timedelta = timedelta()
    orthanc: Clumsy = field(init=False)

    def __post_init__(self) -> None:
        environment = self.archive.environment
        self.orthanc = Clumsy(environment, self.archive.keys, WRITER)
        self.follower = Follower(self.sessions, Zambezi(), self.archive.as_service("gateway"))
        self.pushes = Pushes(self.sessions, Zambezi(), self.archive.as_service("gateway"))
        self.step = Deleting(Desk(environment, Zambezi(), self.sessions, self.orthanc, self.now, "test"))

    def now(self) -> Any:
        return clock.now() + self.ahead

    def follow(self) -> None:
        while self.follower.follow(0):
            pass

    def stored(self, *images: Dataset) -> Study:
        """These images are in the archive, and the central database knows it."""
        assert self.archive.send(*images) == [0] * len(images)
        uids = {one.SOPInstanceUID for one in images}
        until(lambda: uids <= {e["sop_uid"] for e in self.archive.events("stored")})
        self.follow()
        with self.sessions.begin() as session:
            return session.scalars(select(Study).where(Study.study_uid == images[0].StudyInstanceUID)).one()

    def ask(self, study: Study, **what: Any) -> int:
        with self.sessions.begin() as session:
            return deletions.ask(
                session, study_uid=study.study_uid, study_orthanc_id=study.orthanc_id, code="quality",
                reason="movement", who="ana", now=clock.now(), writer="ris", **what,
            ).id  # fmt: skip

    def confirm(self, number: int, waiting: timedelta = timedelta()) -> None:
        with self.sessions.begin() as session:
            deletions.confirm(session, session.get_one(Deletion, number), "rui", clock.now(), "ris", waiting)

    def decided(self, study: Study, **what: Any) -> int:
        number = self.ask(study, **what)
        self.confirm(number)
        return number

    def deletion(self, number: int) -> Deletion:
        with self.sessions.begin() as session:
            return session.get_one(Deletion, number)

    def items(self, number: int) -> dict[str, DeletionItem]:
        with self.sessions.begin() as session:
            rows = session.scalars(select(DeletionItem).where(DeletionItem.deletion_id == number)).all()
            return {one.sop_uid: one for one in rows}

    def work(self, number: int) -> Deletion:
        """Until custody has nothing left to do with it; waits and dead leases pass at once."""
        for _ in range(20):
            while self.step.round():
                pass
            found = self.deletion(number)
            if found.state in ENDED:
                return found
            self.ahead += timedelta(minutes=15)
        raise AssertionError(f"deletion {number} is {found.state}: {found.outcome}")

    def there(self, study_uid: str) -> dict[str, bytes]:
        """SOP Instance UID -> file, of what the archive has."""
        found = self.archive.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid},
                                                  "Expand": True}).json()  # fmt: skip
        return {
            one["MainDicomTags"]["SOPInstanceUID"]: self.archive.get(f"/instances/{one['ID']}/file").content
            for one in found
        }

    def all(self, table: Any, *conditions: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).where(*conditions).order_by(*inspect(table).primary_key)))

    def told(self, number: int) -> list[dict[str, Any]]:
        """The deletion's audit entries, whoever wrote them, in the order of their times."""
        facts = [json.loads(one.payload) for one in self.all(AuditEntry, AuditEntry.event == "deletion-changed")]
        return sorted((one for one in facts if one["deletion"] == number), key=lambda one: one["at"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("archive")
    archive = Archive(home).start()
    upgraded(archive.environment.database_url)
    yield archive
    archive.leave()


@pytest.fixture
def room(running: Archive) -> Iterator[Room]:
    engine = connect(running.environment.database_url, WRITER)
    yield Room(running, sessions(engine, WRITER))
    with sessions(engine, "test").begin() as session:
        assert audit.verify(session) == []
    engine.dispose()


def study_of(count: int) -> list[Dataset]:
    uid = generate_uid()
    return [image(uid, PatientID=f"P{uid[-8:]}") for _ in range(count)]


def test_what_two_people_decided_leaves_the_archive_and_comes_back_byte_for_byte(room: Room) -> None:
    images = study_of(3)
    study = room.stored(*images)
    before = room.there(study.study_uid)
    number = room.ask(study)
    assert not room.step.round(), "one person alone is not enough"
    room.confirm(number, timedelta(hours=72))
    room.ahead = timedelta(hours=71)
    assert not room.step.round(), "the wait is not over"
    room.ahead = timedelta(hours=72, minutes=1)
    done = room.work(number)
    assert (done.state, room.there(study.study_uid)) == ("done", {})
    items = room.items(number)
    assert {uid: one.sha256 for uid, one in items.items()} == {
        uid: hashlib.sha256(content).hexdigest() for uid, content in before.items()
    }
    held = {one.sop_uid: one for one in room.all(Held, Held.reference == f"deletion {number}")}
    assert {(one.why, one.state, one.keep_until is not None) for one in held.values()} == {("deleted", "kept", True)}
    assert {uid: hold.get(room.archive.environment.hold_dir, one.sha256) for uid, one in held.items()} == before

    listed = [one for entry in room.told(number) if entry["state"] == "listed" for one in entry["instances"]]
    assert sorted(listed) == sorted([i.orthanc_id, i.series_uid, i.sop_uid, i.sha256] for i in items.values())
    assert [one["state"] for one in room.told(number)] == ["asked", "confirmed", "deleting", "listed", "done"]

    until(lambda: room.follow() or {one.state for one in room.items(number).values()} == {"gone"})
    assert room.all(ExceptionItem, ExceptionItem.study_uid == study.study_uid) == []

    with room.sessions.begin() as session:
        deletions.restore(session, session.get_one(Deletion, number), "ana", "was right", clock.now(), "ris")
    pushing = room.orthanc.at = lambda *_: room.pushes.push_what_is_newer(clock.now())
    assert pushing
    back = room.work(number)
    assert (back.state, back.restored_by, room.there(study.study_uid)) == ("restored", "ana", before)


def test_of_a_series_or_one_image_nothing_else_goes(room: Room) -> None:
    uid = generate_uid()
    one, other = [image(uid, "1.2.3.1") for _ in range(2)], [image(uid, "1.2.3.2") for _ in range(2)]
    study = room.stored(*one, *other)
    single = room.decided(study, series_uid="1.2.3.1", sop_uid=one[0].SOPInstanceUID)
    assert room.work(single).state == "done"
    assert set(room.there(uid)) == {i.SOPInstanceUID for i in (one[1], *other)}
    whole = room.decided(study, series_uid="1.2.3.2")
    assert room.work(whole).state == "done"
    assert set(room.there(uid)) == {one[1].SOPInstanceUID}


def test_what_comes_after_the_decision_stays_and_is_told(room: Room) -> None:
    images = study_of(2)
    study = room.stored(*images)
    number = room.decided(study)
    until(lambda: clock.text(clock.now())[:19] > (room.deletion(number).confirmed_at or "")[:19])
    late = image(study.study_uid, PatientID=images[0].PatientID)
    room.stored(late)
    done = room.work(number)
    assert set(room.there(study.study_uid)) == {late.SOPInstanceUID}
    assert "1 images that came after the decision stay" in done.outcome
    told = room.all(ExceptionItem, ExceptionItem.kind == "deletion-newcomers")
    assert [one.study_uid for one in told] == [study.study_uid]


def test_deliveries_of_what_goes_are_cancelled_and_receivers_are_named(room: Room) -> None:
    images = study_of(2)
    study = room.stored(*images)
    ids = {one["MainDicomTags"]["SOPInstanceUID"]: one["ID"] for one in room.archive.post("/tools/find", {
        "Level": "Instance", "Query": {"StudyInstanceUID": study.study_uid}, "Expand": True}).json()}  # fmt: skip
    first, second = ([ids[one.SOPInstanceUID], one.SeriesInstanceUID, one.SOPInstanceUID] for one in images)
    names = {name: f"{name}-{study.study_uid[-20:]}" for name in ("made", "whole", "part")}
    with room.sessions.begin() as session:
        for name, instances in {"made": [first], "whole": [first], "part": [first, second]}.items():
            outbox.add(session, id=names[name], kind="dicom", rule="r", destination=name.upper(), because="b",
                       now=clock.now(), writer="gateway", study_uid=study.study_uid, instances=instances)  # fmt: skip
        session.get_one(Delivery, names["made"]).state = "delivered"
    number = room.decided(study, series_uid=first[1], sop_uid=first[2])
    assert "MADE may still hold copies" in room.work(number).outcome
    rows = {one.destination: one for one in room.all(Delivery, Delivery.study_uid == study.study_uid)}
    assert (rows["WHOLE"].state, f"deletion {number}" in rows["WHOLE"].outcome) == ("cancelled", True)
    assert (rows["PART"].state, rows["PART"].instances) == ("due", [second])
    assert rows["MADE"].state == "delivered"


def test_a_legal_hold_stops_it_before_and_between(room: Room) -> None:
    images = study_of(3)
    study = room.stored(*images)
    number = room.decided(study)

    def forbid() -> int:
        with room.sessions.begin() as session:
            patient = images[0].PatientID
            return deletions.set_legal_hold(
                session, patient_id=patient, reason="court", who="eva", now=clock.now(), writer="ris"
            ).id

    def lift(hold_id: int) -> None:
        with room.sessions.begin() as session:
            found = session.get_one(deletions.LegalHold, hold_id)
            deletions.lift_legal_hold(session, found, "over", "eva", clock.now(), "ris")

    held: list[int] = []

    def when_all_is_copied(method: str, path: str, answered: bool) -> None:
        if path == f"/studies/{study.orthanc_id}" and not held:
            held.append(forbid())

    room.orthanc.at = when_all_is_copied
    stopped = room.work(number)
    assert (stopped.state, stopped.confirmed_by) == ("asked", None)
    assert len(room.there(study.study_uid)) == 3
    lift(held[0])
    assert not room.step.round(), "lifting alone deletes nothing"

    def after_the_first(method: str, path: str, answered: bool) -> None:
        if method == "DELETE" and answered and len(held) == 1:
            held.append(forbid())

    room.orthanc.at = after_the_first
    room.confirm(number)
    stopped = room.work(number)
    assert (stopped.state, len(room.there(study.study_uid))) == ("parked", 2)
    with room.sessions.begin() as session, pytest.raises(deletions.Refused, match="legal hold"):
        deletions.again(session, stopped, "rui", clock.now(), "ris")
    lift(held[1])
    with room.sessions.begin() as session, pytest.raises(deletions.Refused, match="confirm it anew"):
        deletions.again(session, stopped, "rui", clock.now(), "ris")
    room.orthanc.at = None
    room.confirm(number)
    assert (room.work(number).state, room.there(study.study_uid)) == ("done", {})


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_orthanc_dies_in_the_midst(room: Room, answered: bool) -> None:
    images = study_of(4)
    study = room.stored(*images)
    stays = room.stored(*study_of(2))
    before = room.there(study.study_uid)
    number = room.decided(study)
    seen: list[str] = []

    def die(method: str, path: str, is_answered: bool) -> None:
        if method == "DELETE" and is_answered == answered:
            seen.append(path)
            if len(seen) == 2:
                room.archive.kill()
                if is_answered:
                    raise OrthancUnreachable("it died before the answer was read")

    room.orthanc.at = die
    while room.step.round():
        pass
    assert room.deletion(number).state == "deleting"
    room.archive.start()
    assert room.work(number).state == "done"
    assert room.there(study.study_uid) == {}
    assert len(room.there(stays.study_uid)) == 2
    folder = room.archive.environment.hold_dir
    assert {uid: hold.get(folder, one.sha256 or "") for uid, one in room.items(number).items()} == before


def test_a_death_at_any_commit_deletes_nothing_without_its_copy_and_nothing_else(room: Room) -> None:
    stays = room.stored(*study_of(1))
    crash = room.archive.home / "crash"
    crash.mkdir(exist_ok=True)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([custody_process.__name__])
    folder = room.archive.environment.hold_dir
    deaths = 0
    for n in range(1, 80):
        images = study_of(2)
        study = room.stored(*images)
        before = room.there(study.study_uid)
        number = room.decided(study)
        (crash / WRITER).write_text(str(n))
        process = processes.Process(target=custody_process.work, args=(room.archive.variables, str(crash)))
        process.start()
        process.join(60)
        (crash / WRITER).unlink(missing_ok=True)
        items, left = room.items(number), room.there(study.study_uid)
        for uid in set(before) - set(left):
            assert hold.get(folder, items[uid].sha256 or "") == before[uid], f"gone without a copy at event {n}"
            assert "listed" in [one["state"] for one in room.told(number)]
        room.ahead += timedelta(minutes=2)
        assert room.work(number).state == "done", n
        assert room.there(study.study_uid) == {}
        assert {uid: hold.get(folder, one.sha256 or "") for uid, one in room.items(number).items()} == before
        if process.exitcode == 0:
            break
        assert process.exitcode == 137
        deaths += 1
    assert deaths >= 15
    assert len(room.there(stays.study_uid)) == 1


def test_what_recovery_brings_back_meanwhile_goes_again(room: Room) -> None:
    images = study_of(3)
    study = room.stored(*images)
    before = room.there(study.study_uid)
    number = room.decided(study)
    back: list[bool] = []

    def bring_back(method: str, path: str, answered: bool) -> None:
        items = room.items(number).values()
        if not back and items and {one.state for one in items} == {"deleted"}:
            back.append(True)
            until(
                lambda: sum(len(e["instances"]) for e in room.archive.events("deleted", study_uid=study.study_uid)) == 3
            )
            room.archive.as_service("recovery").store(before[images[0].SOPInstanceUID])

    room.orthanc.at = bring_back
    assert (room.work(number).state, back, room.there(study.study_uid)) == ("done", [True], {})
    until(lambda: room.follow() or {one.state for one in room.items(number).values()} == {"gone"})
    assert room.all(ExceptionItem, ExceptionItem.study_uid == study.study_uid) == []


def test_what_is_not_what_was_copied_is_not_deleted(room: Room) -> None:
    images = study_of(2)
    study = room.stored(*images)
    number = room.decided(study)
    folder = room.archive.environment.hold_dir

    def spoil(method: str, path: str, answered: bool) -> None:
        if path == f"/studies/{study.orthanc_id}" and answered:
            for one in room.items(number).values():
                hold.path(folder, one.sha256 or "").write_bytes(b"something else")

    room.orthanc.at = spoil
    stopped = room.work(number)
    assert (stopped.state, "bytes have changed" in stopped.outcome) == ("parked", True)
    assert len(room.there(study.study_uid)) == 2
    waits = room.all(ExceptionItem, ExceptionItem.reference == f"deletion {number}")
    assert [(one.kind, one.study_uid) for one in waits] == [("deletion-parked", study.study_uid)]


def test_nobody_deletes_but_custody_and_what_it_was_not_told_to_is_an_incident(room: Room) -> None:
    images = study_of(2)
    study = room.stored(*images)
    first, second = (
        one["ID"] for one in room.archive.get(f"/studies/{study.orthanc_id}/instances", service="custody").json()
    )
    base = room.archive.environment.orthanc_url
    paths = (f"/instances/{first}", f"/studies/{study.orthanc_id}", "/changes")
    for service in ("ris", "gateway", "migration", "operations", "recovery", "front"):
        for path in paths:
            answer = requests.delete(base + path, auth=room.archive.keys.basic(service), timeout=30)
            assert answer.status_code == 403, (service, path)
        refused = room.archive.post("/tools/bulk-delete", {"Resources": [first]}, service)
        assert refused.status_code == 403, service
    for path in (f"/studies/{study.orthanc_id}", "/patients/x", "/changes", f"/instances/{first}/metadata/1024"):
        assert requests.delete(base + path, auth=room.archive.keys.basic("custody"), timeout=30).status_code == 403
    assert len(room.there(study.study_uid)) == 2

    room.orthanc.request("DELETE", f"/instances/{second}")  # as somebody with custody's password would
    until(lambda: room.archive.events("deleted", study_uid=study.study_uid))
    room.follow()
    waits = room.all(ExceptionItem, ExceptionItem.kind == "deletion-unordered")
    assert [one.study_uid for one in waits] == [study.study_uid]
    incidents = [json.loads(one.payload) for one in room.all(AuditEntry, AuditEntry.event == "incident")]
    assert [one["orthanc_ids"] for one in incidents if one.get("study_uid") == study.study_uid] == [[second]]
