"""Corrections against a real archive: each kind, undone again, and with a death at every place."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from gateway.pushes import Pushes
from operations.custody.correcting import Correcting
from operations.custody.worker import WRITER, Desk
from tests.integration.archive_fixture import Archive, image, until
from zambezi import audit, clock, corrections, hold, keys
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AuditEntry,
    Base,
    Correction,
    Delivery,
    ExceptionItem,
    Held,
    Patient,
)
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancError

#: So short that a dead worker's work is taken over at once; renewed while its worker lives.
LEASE = timedelta(seconds=0.6)
#: No correction here has more places to die at; the tests say so if one has.
MOST = 90


def desk(environment: Environment, orthanc: OrthancClient | None = None) -> Desk:
    """What the step works with, in this process."""
    made = sessions(connect(environment.database_url, WRITER), WRITER)
    client = orthanc or OrthancClient(environment, keys.load(environment.keys_file), WRITER)
    return Desk(environment, Zambezi(), made, client, clock.now, f"test/{os.getpid()}")


class Deadly(OrthancClient):
    """Kills Orthanc before or after the n-th request that changes something."""

    def __init__(self, environment: Environment, pid: int, n: int, after: bool) -> None:
        super().__init__(environment, keys.load(environment.keys_file), WRITER)
        self._pid, self._left, self._after = pid, n, after

    def request(self, method: str, path: str, timeout_s: float | None = None, **how: Any) -> Any:
        if method == "GET":
            return super().request(method, path, timeout_s, **how)
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.1)
        answer = super().request(method, path, timeout_s, **how)
        if self._left == 0:
            os.kill(self._pid, signal.SIGKILL)
        return answer


def work(variables: Mapping[str, str], rounds: int, deadly: tuple[int, int, bool] | None = None) -> None:
    """A worker in a process of its own, until nothing is due for a lease's time, or so many rounds."""
    os.environ.update(variables)
    environment = Environment.read(variables)
    client = Deadly(environment, *deadly) if deadly else None
    step = Correcting(desk(environment, client), lease=LEASE)
    idle_since = time.monotonic()
    while rounds and time.monotonic() - idle_since < 2 * LEASE.total_seconds():
        if step.round():
            rounds -= 1
            idle_since = time.monotonic()
        time.sleep(0.05)


@dataclass
class Room:
    """An archive, its database, and somebody who pushes what is announced."""

    archive: Archive
    sessions: Sessions
    crash_dir: Path
    orthanc: OrthancClient = field(init=False)

    def __post_init__(self) -> None:
        self.orthanc = self.archive.as_service("custody")
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload([__name__])

    def store(self, *images: Dataset) -> list[str]:
        """The Orthanc ids of the images, stored as a modality would."""
        assert self.archive.send(*images) == [0] * len(images)
        return [self.orthanc.find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})[0] for one in images]

    def study(self, instances: int = 2, **tags: Any) -> list[Dataset]:
        uid = generate_uid()
        return [image(uid, **{"AccessionNumber": "A1", "StudyDescription": "TC", **tags}) for _ in range(instances)]

    def named(self, images: list[Dataset]) -> dict[str, str]:
        found = self.orthanc.find("Study", {"StudyInstanceUID": images[0].StudyInstanceUID}, expand=True)
        mine = [one for one in found if one["PatientMainDicomTags"]["PatientID"] == images[0].PatientID]
        return {"study_uid": str(images[0].StudyInstanceUID), "orthanc_id": mine[0]["ID"]}

    def ask(self, kind: str, request: dict[str, Any], undo_of: int | None = None) -> int:
        with self.sessions.begin() as session:
            now = clock.now()
            return corrections.ask(session, kind, request, "a test", "ana", now, "ris", undo_of=undo_of).id

    def carry_out(self, correction: int, state: str = "done") -> Correction:
        """Let the step work in this process until the correction is in that state."""
        step = Correcting(desk(self.archive.environment), lease=LEASE)

        def is_over() -> Correction | None:
            step.round()
            with self.sessions.begin() as session:
                row = session.get_one(Correction, correction)
            return row if row.state == state else None

        return until(is_over, 20)

    def correct(self, kind: str, request: dict[str, Any], undo_of: int | None = None) -> Correction:
        return self.carry_out(self.ask(kind, request, undo_of))

    def run(self, rounds: int = 100, crash_at: int = 0, deadly: tuple[int, int, bool] | None = None) -> int | None:
        """A worker in a process of its own; its exit code."""
        if crash_at:
            (self.crash_dir / WRITER).write_text(str(crash_at))
        variables = {**self.archive.variables, "ZAMBEZI_CRASH_DIR": str(self.crash_dir)}
        worker = self.processes.Process(target=work, args=(variables, rounds, deadly))
        worker.start()
        worker.join(90)
        assert worker.exitcode is not None, "the worker hangs"
        (self.crash_dir / WRITER).unlink(missing_ok=True)
        return worker.exitcode

    def files(self, images: list[Dataset]) -> dict[str, list[bytes]]:
        """What the archive holds under each SOP Instance UID, wherever it is."""
        uids = [str(one.SOPInstanceUID) for one in images]
        return {
            uid: [self.orthanc.file(one) for one in self.orthanc.find("Instance", {"SOPInstanceUID": uid})]
            for uid in uids
        }

    def row(self, correction: int) -> Correction:
        with self.sessions.begin() as session:
            return session.get_one(Correction, correction)

    def patient(self, patient_id: str) -> int:
        with self.sessions.begin() as session:
            at = clock.text(clock.now())
            row = Patient(
                patient_id=patient_id, issuer="HCZ", family_name="Macuácua", given_name="Inês", birth_date="19800131",
                sex="F", created_at=at, updated_at=at,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id


def read(content: bytes) -> Dataset:
    return dcmread(io.BytesIO(content))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    archive = Archive(tmp_path_factory.mktemp("archive")).start()
    engine = connect(archive.environment.database_url, "test")
    Base.metadata.create_all(engine)
    made = sessions(engine, "test")
    over = threading.Event()

    def push() -> None:
        pushes = Pushes(made, Zambezi(), archive.as_service("gateway"))
        while not over.wait(0.1):
            try:
                pushes.push_what_is_newer(clock.now())
            except OrthancError:
                continue

    pusher = threading.Thread(target=push)
    pusher.start()
    yield Room(archive, made, tmp_path_factory.mktemp("crash"))
    over.set()
    pusher.join()
    archive.stop()


def holds_only_new(room: Room, images: list[Dataset], correction: int, **tags: str) -> None:
    """Each instance is there exactly once, corrected; its old bytes and its chain of entries are whole."""
    for uid, found in room.files(images).items():
        assert len(found) == 1, f"{uid} is there {len(found)} times"
        one = read(found[0])
        assert {name: str(one.get(name, "")) for name in tags} == tags
        assert one.PixelData == images[0].PixelData
    with room.sessions.begin() as session:
        items = corrections.items_of(session, correction)
        assert {item.state for item in items} == {"done"}
        for item in items:
            hold.get(room.archive.environment.hold_dir, item.old_sha256 or "")
        assert audit.verify(session) == []
    assert {item.sop_uid for item in items} == {str(one.SOPInstanceUID) for one in images}


def test_an_edit_keeps_the_identity_and_the_archive_answers_with_the_new_values(room: Room):
    images = room.study(3, PatientID="E1")
    room.store(*images)
    study = room.named(images)
    request = {"study": study, "set": {"00081030": "TC do tórax", "00100010": "Macuácua^Inês"}}
    row = room.correct("edit", request)
    holds_only_new(room, images, row.id, StudyDescription="TC do tórax", PatientName="Macuácua^Inês", PatientID="E1")
    found = room.orthanc.get(f"/studies/{study['orthanc_id']}")
    assert found["MainDicomTags"]["StudyDescription"] == "TC do tórax"
    assert found["PatientMainDicomTags"]["PatientName"] == "Macuácua^Inês"
    assert "3 instances corrected" in row.outcome


def test_a_study_is_reassigned_and_undone_to_the_same_bytes(room: Room):
    images = room.study(2, PatientID="R1")
    room.store(*images)
    before = room.files(images)
    into = room.patient("R2")
    row = room.correct("reassign", {"study": room.named(images), "patients": {"into": into}})
    holds_only_new(room, images, row.id, PatientID="R2", PatientName="Macuácua^Inês", IssuerOfPatientID="HCZ")
    undo = room.correct("undo", {}, undo_of=row.id)
    assert room.files(images) == before
    again = room.correct("undo", {}, undo_of=undo.id)
    holds_only_new(room, images, again.id, PatientID="R2")


def test_a_merge_takes_all_studies_and_a_split_takes_one_away(room: Room):
    one, other = room.study(2, PatientID="M1"), room.study(1, PatientID="M1")
    room.store(*one, *other)
    merge = room.correct("merge", {"patients": {"from": room.patient("M1"), "into": room.patient("M2")}})
    holds_only_new(room, [*one, *other], merge.id, PatientID="M2")
    for moved in other:
        moved.PatientID = "M2"
    split = room.correct("split", {"study": room.named(other), "set": {"00100020": "M3"}})
    holds_only_new(room, other, split.id, PatientID="M3")
    assert {read(found[0]).PatientID for found in room.files(one).values()} == {"M2"}
    reasons = [
        item.ReasonForTheAttributeModification
        for item in read(next(iter(room.files(other).values()))[0]).OriginalAttributesSequence
    ]
    assert reasons == ["COERCE", "CORRECT"]


def test_images_that_move_take_what_their_new_study_says(room: Room):
    mine, yours = room.study(3, PatientID="V1"), room.study(1, PatientID="V2", AccessionNumber="A2", StudyID="7")
    ids = room.store(*mine)
    room.store(*yours)
    target = str(yours[0].StudyInstanceUID)
    part = room.correct("move", {"instances": ids[:1], "set": {"0020000D": target}})
    holds_only_new(room, mine[:1], part.id, PatientID="V2", AccessionNumber="A2", StudyID="7", StudyInstanceUID=target)
    moved = read(room.files(mine[:1])[str(mine[0].SOPInstanceUID)][0])
    assert moved.SeriesInstanceUID != mine[0].SeriesInstanceUID, "a series belongs to one study"
    series = room.orthanc.find("Series", {"SeriesInstanceUID": str(mine[0].SeriesInstanceUID)})[0]
    request = {"series": {"orthanc_id": series}, "set": {"0020000D": target}}
    whole = room.correct("move", request)
    uid = str(mine[1].SeriesInstanceUID)
    holds_only_new(room, mine[1:], whole.id, StudyInstanceUID=target, SeriesInstanceUID=uid, PatientID="V2")


def test_what_is_held_takes_the_place_of_what_is_archived(room: Room):
    images = room.study(1, PatientID="H1")
    orthanc_id = room.store(*images)[0]
    newcomer = image(images[0].StudyInstanceUID, PatientID="H1", StudyDescription="outra")
    newcomer.SOPInstanceUID = newcomer.file_meta.MediaStorageSOPInstanceUID = images[0].SOPInstanceUID
    out = io.BytesIO()
    newcomer.save_as(out, enforce_file_format=True)
    sha256 = hold.put(room.archive.environment.hold_dir, out.getvalue())
    at = clock.text(clock.now())
    with room.sessions.begin() as session:
        held = Held(
            sha256=sha256, why="conflict", reason="r", reference="j/1", sop_uid=str(newcomer.SOPInstanceUID),
            study_uid=str(newcomer.StudyInstanceUID), orthanc_id=orthanc_id, held_at=at, next_at=at,
        )  # fmt: skip
        session.add(held)
    row = room.correct("replace", {"replace": held.id})
    assert room.files(images) == {str(images[0].SOPInstanceUID): [out.getvalue()]}
    room.correct("undo", {}, undo_of=row.id)
    assert read(room.files(images)[str(images[0].SOPInstanceUID)][0]).StudyDescription == "TC"


def test_what_stands_in_the_way_parks_the_correction_and_changes_nothing(room: Room):
    mine, yours = room.study(1, PatientID="C1"), room.study(1, PatientID="C2")
    yours[0].StudyInstanceUID, yours[0].SeriesInstanceUID = mine[0].StudyInstanceUID, mine[0].SeriesInstanceUID
    yours[0].SOPInstanceUID = yours[0].file_meta.MediaStorageSOPInstanceUID = mine[0].SOPInstanceUID
    room.store(*mine)
    room.store(*yours)
    before = room.files(mine)
    assert [len(found) for found in before.values()] == [2]
    asked = room.ask("reassign", {"study": room.named(mine), "set": {"00100020": "C2"}})
    row = room.carry_out(asked, "parked")
    assert "in the archive already" in row.outcome
    assert room.files(mine) == before
    with room.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem).where(ExceptionItem.reference == str(asked))).one()
        assert (item.room, item.kind, item.decided_at) == ("correction", "parked", None)
        corrections.cancel(session, asked, "ana", clock.now(), "ris")
        assert item.decision == "cancelled"


def test_what_has_the_values_already_is_left_alone(room: Room):
    images = room.study(1, PatientID="N1")
    room.store(*images)
    before = room.files(images)
    row = room.correct("edit", {"study": room.named(images), "set": {"00081030": "TC"}})
    assert row.outcome.startswith("nothing to change")
    assert room.files(images) == before


def test_what_was_corrected_again_is_not_undone(room: Room):
    images = room.study(1, PatientID="U1")
    room.store(*images)
    study = room.named(images)
    first = room.correct("edit", {"study": study, "set": {"00081030": "eins"}})
    undo = room.ask("undo", {}, undo_of=first.id)
    with room.sessions.begin() as session:
        corrections.cancel(session, undo, "ana", clock.now(), "ris")
    room.correct("edit", {"study": study, "set": {"00081030": "zwei"}})
    with room.sessions.begin() as session:
        assert "changed the same instances later" in corrections.why_not_undone(session, first.id)


def test_of_two_corrections_of_the_same_images_one_comes_after_the_other(room: Room):
    images = room.study(2, PatientID="T1")
    room.store(*images)
    study = room.named(images)
    first = room.ask("edit", {"study": study, "set": {"00081030": "eins"}})
    second = room.ask("edit", {"study": study, "set": {"00200010": "zwei"}})
    room.run(rounds=1, crash_at=8)  # dies with the instances in its hands
    assert room.row(first).state == "preparing"
    step = Correcting(desk(room.archive.environment), lease=LEASE)
    with room.sessions.begin() as session:
        session.get_one(Correction, first).lease_until = clock.text(clock.now() + timedelta(seconds=3))
    step.round()
    assert room.row(second).state == "retrying"
    assert f"correction {first} is changing the same instances" in room.row(second).outcome
    room.carry_out(first)
    room.carry_out(second)
    holds_only_new(room, images, second, StudyDescription="eins", StudyID="zwei")


def test_receivers_of_the_old_copy_are_sent_the_corrected_one(room: Room):
    images = room.study(2, PatientID="D1")
    ids = room.store(*images)
    uid, at = str(images[0].StudyInstanceUID), clock.text(clock.now())
    told = [[one, str(made.SeriesInstanceUID), str(made.SOPInstanceUID)] for one, made in zip(ids, images, strict=True)]
    common = {"kind": "dicom", "rule": "r", "because": "b", "study_uid": uid, "next_at": at, "created_at": at}
    with room.sessions.begin() as session:
        for number, (destination, state, which) in enumerate(
            (("PACS2", "delivered", told), ("WS1", "due", told[:1]), ("WS2", "retrying", told))
        ):
            session.add(
                Delivery(
                    id=f"d{number}", destination=destination, state=state, instances=which, updated_at=at, **common
                )
            )  # fmt: skip
    row = room.correct("reassign", {"study": room.named(images), "set": {"00100020": "D2"}})
    with room.sessions.begin() as session:
        made = session.scalars(select(Delivery).where(Delivery.rule == f"correction {row.id}")).all()
        items = {item.sop_uid: item for item in corrections.items_of(session, row.id)}
        old = {one.id: one for one in session.scalars(select(Delivery).where(Delivery.id.in_(("d0", "d1", "d2"))))}
    assert {one.destination: len(one.instances) for one in made} == {"PACS2": 2, "WS1": 1, "WS2": 2}
    assert all(one.state == "due" for one in made)
    sent = [instance for one in made for instance in one.instances]
    assert all(items[sop].new_orthanc_id == orthanc_id for orthanc_id, _, sop in sent)
    assert {one.id: one.state for one in old.values()} == {"d0": "delivered", "d1": "cancelled", "d2": "cancelled"}
    assert "PACS2 has the old copy of 2 instances" in row.outcome
    assert "WS1" not in row.outcome


def test_its_entries_name_digests_and_no_patient(room: Room):
    images = room.study(1, PatientID="X1", PatientName="Segredo^Ana")
    room.store(*images)
    row = room.correct("edit", {"study": room.named(images), "set": {"00100010": "Segredo^Maria"}})
    with room.sessions.begin() as session:
        payloads = [
            one.payload.decode()
            for one in session.scalars(select(AuditEntry).where(AuditEntry.event.in_(("correction-changed", "held"))))
        ]
        item = corrections.items_of(session, row.id)[0]
    assert any(item.old_sha256 in one and item.new_sha256 in one and '"switching"' in one for one in payloads)
    assert not any("Segredo" in one for one in payloads)


@pytest.mark.parametrize(("kind", "changes"), [("reassign", {"00100020": "Z2"}), ("edit", {"00081030": "anders"})])
def test_a_death_at_any_place_ends_in_all_old_or_all_new(room: Room, kind: str, changes: dict[str, str]):
    deaths = 0
    for n in range(1, MOST):
        images = room.study(2, PatientID=f"Z{kind}{n}")
        room.store(*images)
        before = room.files(images)
        asked = room.ask(kind, {"study": room.named(images), "set": changes})
        died = room.run(rounds=1, crash_at=n)
        if room.row(asked).state in ("due", "preparing", "retrying"):
            assert room.files(images) == before, f"changed before the point of no return (place {n})"
        found = room.files(images)
        for uid, files in before.items():
            in_hold = hold.path(room.archive.environment.hold_dir, hashlib.sha256(files[0]).hexdigest())
            assert files == found[uid] or in_hold.read_bytes() == files[0], f"{uid} is lost at place {n}"
        assert room.run() == 0
        assert room.row(asked).state == "done", f"place {n}: {room.row(asked).outcome}"
        tags = {"PatientID": "Z2"} if kind == "reassign" else {"StudyDescription": "anders"}
        holds_only_new(room, images, asked, **tags)
        assert all(len(read(files[0]).OriginalAttributesSequence) == 1 for files in room.files(images).values())
        if died == 0:
            break
        assert died == 137
        deaths += 1
    else:
        pytest.fail(f"there are more than {MOST} places to die at: raise MOST")
    assert deaths > 25


def test_an_undo_that_dies_anywhere_gives_the_same_bytes_back(room: Room):
    for n in range(1, MOST):
        images = room.study(1, PatientID=f"Y{n}")
        room.store(*images)
        before = room.files(images)
        row = room.correct("reassign", {"study": room.named(images), "set": {"00100020": "Y"}})
        undo = room.ask("undo", {}, undo_of=row.id)
        died = room.run(rounds=1, crash_at=n)
        assert room.run() == 0
        assert room.row(undo).state == "done"
        assert room.files(images) == before
        if died == 0:
            assert n > 15
            return
    pytest.fail(f"there are more than {MOST} places to die at: raise MOST")


@pytest.mark.parametrize(("kind", "changes"), [("reassign", {"00100020": "O2"}), ("edit", {"00081030": "anders"})])
def test_orthanc_may_die_at_every_request_too(room: Room, kind: str, changes: dict[str, str]):
    killed = 0
    for n, after in ((n, after) for n in range(1, 9) for after in (False, True)):
        images = room.study(1, PatientID=f"O{kind}{n}{after}")
        room.store(*images)
        asked = room.ask(kind, {"study": room.named(images), "set": changes})
        process = room.archive.process
        assert process is not None
        room.run(rounds=1, deadly=(process.pid, n, after))
        time.sleep(0.2)
        if process.poll() is None:
            break
        killed += 1
        room.archive.start()
        with room.sessions.begin() as session:  # its wait is over
            row = session.get_one(Correction, asked)
            row.next_at = clock.text(clock.now())
            row.lease_until = row.next_at if row.lease_until else None
        room.carry_out(asked)
        tags = {"PatientID": "O2"} if kind == "reassign" else {"StudyDescription": "anders"}
        holds_only_new(room, images, asked, **tags)
    assert killed >= 5
