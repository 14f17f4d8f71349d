"""Is what was migrated what was there? The messy samples of the pydicom package, and a kill in the middle.

Whether an instance is equal is found out here, with each mover alike: both sides are fetched, and compared byte by
byte, then by canonical digest. What is not equal and in no list of the mover's either is a silent loss. Beforehand the
new archive has one instance with another content: a migration that keeps the old one without a word has lost the
source's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files as resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
import requests
from sqlalchemy import select

from demo.hospital import wait_for
from migration import ledger
from tests.bench import migration_movers
from tests.bench.migration_movers import UNDER_WAY, Goal, left, our_goal, pid_of
from tests.bench.migration_places import AET, AT_ONCE, NAME, PASSWORD, USER, Meter, Plain
from zambezi import digest
from zambezi.database.tables import FolderFile, MigrationInstance, MigrationProject, MigrationStudy

if TYPE_CHECKING:
    from tests.bench.migration import Room

#: UIDs that are shorter than this stay as they are: they may be part of something else.
_LONG = 16
#: The instance that the new archive has before, with one pixel changed.
_TWIN, _IN_PIXELS = "-CT_small.dcm", -5000


@dataclass(frozen=True)
class Old:
    """One instance of the old archive."""

    sop_uid: str
    study_uid: str
    date: str
    content: bytes


def score(room: Room) -> None:
    """Print both tables."""
    print(f"\nthe pydicom package's samples, one of them there before with another pixel\n{'':36}{'equal':>12}"
          f"{'told':>8}{'lost silently':>15}{'seconds':>10}")  # fmt: skip
    movers = {
        "ours by C-MOVE": (0, lambda olds: _ours(room, "DICOM")),
        "ours from Orthanc": (1, lambda olds: _ours(room, "ORTHANC")),
        "ours from a folder": (2, lambda olds: _ours(room, "FOLDER")),
    }
    goal = our_goal(room.hospital)
    for name, (turn, mover) in movers.items():
        _judge(room, name, goal, turn, mover)
    with _fresh(room) as fresh:
        _judge(room, "orthanc-tools PacsMigrator", fresh, 0, lambda olds: _pacs_migrator(room, fresh, olds))
    with _fresh(room) as fresh:
        _judge(room, "orthanc-tools OrthancCloner", fresh, 0, lambda olds: _cloner(room, fresh))
    killed(room)


def _judge(
    room: Room, name: str, goal: Goal, turn: int, mover: Callable[[Mapping[str, Old]], set[str]]
) -> None:  # fmt: skip
    """One line: `mover` gives all that it tells of, SOP and Study Instance UIDs."""
    olds, twin = _messy(room, turn)
    _store(goal, twin)
    begun = time.perf_counter()
    told = mover(olds)
    seconds = time.perf_counter() - begun
    equal = {id for id, old in olds.items() if _is_equal(goal, old)}
    named = {id for id, old in olds.items() if id not in equal and {old.sop_uid, old.study_uid} & told}
    lost = set(olds) - equal - named
    print(f"{name:36}{len(equal):5} of {len(olds):3}{len(named):8}{len(lost):15}{seconds:10.1f}", flush=True)


def _messy(room: Room, turn: int) -> tuple[dict[str, Old], bytes]:
    """The samples, in the old archive and in the folder, by Orthanc id; and the changed twin of one of them.

    Each turn has UIDs of its own, so that an archive can be brought the same three times.
    """
    samples = {
        f"{number:03}-{file.name}": file.read_bytes()
        for number, file in enumerate(sorted(Path(str(resources("pydicom") / "data")).rglob("*")))
        if file.is_file() and file.suffix not in (".py", ".pyc", ".json")
    }
    uids = sorted({uid for content in samples.values() for uid in _uids(content)}, key=len, reverse=True)
    turned = {uid.encode(): str((int(uid[0]) + turn) % 3).encode() + uid[1:].encode() for uid in uids}
    for old in room.files.iterdir():
        old.unlink()
    twin = b""
    for name, content in samples.items():
        for before, after in turned.items():
            content = content.replace(before, after)
        (room.files / name).write_bytes(content)
        if name.endswith(_TWIN):
            twin = content[:_IN_PIXELS] + bytes([content[_IN_PIXELS] ^ 1]) + content[_IN_PIXELS + 1 :]
    room.source.fill([])
    room.source.post.files(sorted(room.files.iterdir()), refused=lambda file: None)
    olds = {}
    for id in room.source.ask("GET", "/instances"):
        tags = room.source.ask("GET", f"/instances/{id}/simplified-tags")
        sop_uid, study_uid, date = (
            str(tags.get(key, "")) for key in ("SOPInstanceUID", "StudyInstanceUID", "StudyDate")
        )
        content = _file(Goal(room.source.http_port, USER, PASSWORD), id) or b""
        olds[id] = Old(sop_uid, study_uid, date, content)
    return olds, twin


def _uids(content: bytes) -> Iterator[str]:
    try:
        read = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, force=True)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            uid = str(read.get(keyword, ""))
            if len(uid) >= _LONG and uid[:2] in ("0.", "1.", "2."):
                yield uid
    except (ValueError, KeyError, AttributeError, EOFError, NotImplementedError, pydicom.errors.InvalidDicomError):
        return  # a sample that pydicom can't read has no UIDs to be told apart by


def _store(goal: Goal, content: bytes) -> None:
    url, is_dicom = f"http://127.0.0.1:{goal.port}/instances", {"Content-Type": "application/dicom"}
    requests.post(url, content, auth=(goal.user, goal.password), headers=is_dicom, timeout=60).raise_for_status()


def _file(goal: Goal, id: str) -> bytes | None:
    url = f"http://127.0.0.1:{goal.port}/instances/{id}/file"
    answer = requests.get(
        url, auth=(goal.user, goal.password), headers={"Accept-Encoding": "identity"}, timeout=60
    )  # fmt: skip
    return answer.content if answer.ok else None


def _is_equal(goal: Goal, old: Old) -> bool:
    """Whether any copy in the new archive is; its Orthanc id may be another, for that goes by padding, too."""
    asked = {"Level": "Instance", "Query": {"SOPInstanceUID": old.sop_uid}}
    url = f"http://127.0.0.1:{goal.port}/tools/find"
    found = requests.post(url, json=asked, auth=(goal.user, goal.password), timeout=60)
    found.raise_for_status()
    copies = [_file(goal, id) for id in found.json()]
    return any(copy is not None and _is_same(copy, old.content) for copy in copies)


def _is_same(one: bytes, other: bytes) -> bool:
    try:
        return one == other or digest.fingerprint(one).digest == digest.fingerprint(other).digest
    except digest.Unreadable:
        return False


# --- what each of them says ---------------------------------------------------------------------------


def _ours(room: Room, source: str) -> set[str]:
    """Instances that aren't proven equal, by the ledger, and studies that a person must look at; of a folder also
    files that say something else (its index)."""
    project, _ = migration_movers.begin(room.hospital, source, "source")
    sessions = room.hospital.database()
    wait_for("the samples to be at rest", lambda: not left(sessions, project, UNDER_WAY), 240)
    query = (
        select(MigrationInstance.sop_uid)
        .join(MigrationStudy, MigrationStudy.id == MigrationInstance.study_id)
        .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
        .where(MigrationProject.name == project, MigrationInstance.verdict != "equal")
    )
    others = select(FolderFile.sop_uid).where(FolderFile.source == source, FolderFile.verdict.in_(("conflict", "held")))
    doubtful = (
        select(MigrationStudy.study_uid)
        .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
        .where(MigrationProject.name == project, MigrationStudy.state.in_(ledger.FOR_A_PERSON))
    )
    with sessions.begin() as session:
        return {str(uid) for chosen in (query, doubtful, others) for uid in session.scalars(chosen)}


def _pacs_migrator(room: Room, goal: Goal, olds: Mapping[str, Old]) -> set[str]:
    """It is given every date that there is, which nobody knows of a real archive, and does not wait to try again."""
    errors = room.folder / "errors.csv"
    days = sorted({old.date for old in olds.values() if len(old.date) == 8})
    program = room.tools.pacs_migrator(goal, threads=AT_ONCE, days=days, retries=1, errors=str(errors))
    migration_movers.took(program)
    lines = errors.read_text().splitlines() if errors.exists() else []
    return {line.split(";")[1] for line in lines}


def _cloner(room: Room, goal: Goal) -> set[str]:
    errors = room.folder / "errors"
    errors.mkdir(exist_ok=True)
    migration_movers.took(room.tools.cloner(room.source, goal, threads=AT_ONCE, retries=0, errors=str(errors)))
    said = " ".join(file.read_text() for file in errors.iterdir())
    ids = [id for id in room.source.ask("GET", "/instances") if id in said]
    return {str(room.source.ask("GET", f"/instances/{id}/simplified-tags")["SOPInstanceUID"]) for id in ids}


@contextmanager
def _fresh(room: Room) -> Iterator[Goal]:
    """An empty Orthanc at its best, which the old archive knows as ZAMBEZI."""
    settings = {
        "HttpCompressionEnabled": False, "UnknownSopClassAccepted": True,
        "DicomModalities": {NAME: [AET, "127.0.0.1", room.source.dicom_port]},
    }  # fmt: skip
    fresh = Plain(room.folder / f"fresh-{time.monotonic_ns()}", "ZAMBEZI", settings, {"TCP_NODELAY": "1"})
    fresh.start()
    room.source.send_by(fresh.dicom_port)
    try:
        yield Goal(fresh.http_port, USER, PASSWORD)
    finally:
        room.source.send_by(room.hospital.environment.ports.dicom)
        fresh.stop()


# --- kill -9 at half ----------------------------------------------------------------------------------


def killed(room: Room) -> None:
    """Print how much each of them sends again after a kill -9 when half of it is there."""
    print(f"\nkill -9 of the mover at half\n{'':36}{'MB again':>10}{'share of all':>14}{'seconds to the end':>20}")
    ports = room.hospital.environment.ports
    for name, port, mover in (
        ("ours by C-MOVE", ports.dicom, _kill_ours),
        ("orthanc-tools PacsMigrator", ports.dicom, _kill_pacs_migrator),
        ("orthanc-tools OrthancCloner", room.goal.port, _kill_cloner),
    ):
        lot = room.lot(512, 200, 25)
        meter = Meter(port)
        if port == ports.dicom:
            room.source.send_by(meter.port)
        there = room.count()
        begun = time.perf_counter()
        mover(room, meter, there + len(lot.files) // 2)
        seconds = time.perf_counter() - begun
        if room.count() - there != len(lot.files):
            raise RuntimeError(f"{name}: {room.count() - there} of {len(lot.files)} instances are there")
        room.source.send_by(ports.dicom)
        meter.close()
        again = max(0, meter.sent - lot.size)
        print(f"{name:36}{again / 1e6:10.1f}{again / lot.size:14.2f}{seconds:20.1f}", flush=True)


def _await(room: Room, count: int) -> None:
    wait_for("half of the instances", lambda: room.count() >= count, 120)


def _kill_ours(room: Room, meter: Meter, half: int) -> None:
    project, _ = migration_movers.begin(room.hospital, "DICOM", "arrival")
    _await(room, half)
    os.kill(pid_of(room.hospital, "migration"), signal.SIGKILL)
    wait_for("the rest", lambda: not left(room.hospital.database(), project, ("verified",), is_other=True), 240)


def _kill_pacs_migrator(room: Room, meter: Meter, half: int) -> None:
    first = room.tools.pacs_migrator(room.goal, threads=AT_ONCE)
    _await(room, half)
    _kill(first)
    migration_movers.took(room.tools.pacs_migrator(room.goal, threads=AT_ONCE))


def _kill_cloner(room: Room, meter: Meter, half: int) -> None:
    goal = Goal(meter.port, room.goal.user, room.goal.password)
    status = str(room.folder / "status")
    first = room.tools.cloner(room.source, goal, threads=AT_ONCE, status=status)
    _await(room, half)
    _kill(first)
    migration_movers.took(room.tools.cloner(room.source, goal, threads=AT_ONCE, status=status))


def _kill(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.communicate()
