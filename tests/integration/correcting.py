"""A room for corrections: an archive with its plugin, a database, and workers that live in processes of their own."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from zambezi.database.tables import Base, Correction, Patient
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancError

#: So short that a dead worker's work is taken over at once; renewed while its worker lives.
LEASE = timedelta(seconds=0.6)
#: Where no power is cut, nothing has to be waited for.
AT_ONCE = timedelta()


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
    """A worker in a process of its own, until nothing is left to do, or so many rounds that did something."""
    os.environ.update(variables)
    environment = Environment.read(variables)
    made = desk(environment, Deadly(environment, *deadly) if deadly else None)
    step = Correcting(made, lease=LEASE, settle=AT_ONCE)
    while rounds:
        if step.round():
            rounds -= 1
            continue
        with made.sessions.begin() as session:
            if session.scalars(select(Correction.id).where(Correction.state.in_(corrections.OPEN))).first() is None:
                return
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
        step = Correcting(desk(self.archive.environment), lease=LEASE, settle=AT_ONCE)

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

    def lease_is_over(self, correction: int) -> None:
        """As if the time had passed that a dead worker's lease lasts on."""
        with self.sessions.begin() as session:
            row = session.get_one(Correction, correction)
            if row.lease_until:
                row.lease_until = clock.text(clock.now())

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


@contextmanager
def a_room(folder: Path) -> Iterator[Room]:
    """Start it, hand it over, stop it."""
    (folder / "crash").mkdir()
    archive = Archive(folder / "archive").start()
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
    yield Room(archive, made, folder / "crash")
    over.set()
    pusher.join()
    archive.leave()


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
