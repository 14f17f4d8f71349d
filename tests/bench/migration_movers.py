"""Those who move studies, each asked in its own way for the same: ours, orthanc-tools' two, and nobody but movescu.

orthanc-tools comes from the package index into a virtual environment of its own, which is thrown away; it is no
dependency of ours. Each mover says how long it took and what processor time was its own; the start of a program and
its imports count for nobody.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import select, update

from demo.hospital import Hospital
from operations import supervision
from tests.bench.migration_places import AET, AT_ONCE, NAME, PASSWORD, USER, Plain, Post, busy
from zambezi import clock, keys
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationProject, MigrationStudy

ORTHANC_TOOLS = "orthanc-tools==0.23.0"
#: States of a study to which more will happen by itself.
UNDER_WAY = ("ready", "moving", "verifying", "retrying")
#: Of every study that is measured (pydicom's CT_small).
STUDY_DATE = "20040119"

_PACS_MIGRATOR = """
from orthanc_tools import PacsMigrator
archive = OrthancApiClient(to["url"], user=to["user"], pwd=to["password"], pool_maxsize=10, pool_block=True)
def run():
    for day in how["days"]:
        day = datetime.datetime.strptime(day, "%Y%m%d").date()
        PacsMigrator(
            archive, day, day, source_modality=how["modality"], worker_threads_count=how["threads"],
            max_retries=how.get("retries", 5), error_log_path=how.get("errors"),
        ).execute()
    return time.perf_counter()
"""
_CLONER = """
from orthanc_api_client import ChangeType
from orthanc_tools import OrthancCloner
source = OrthancApiClient(how["url"], user=how["user"], pwd=how["password"])
archive = OrthancApiClient(to["url"], user=to["user"], pwd=to["password"], pool_maxsize=10, pool_block=True)
mode = {"mode": "Peering", "destination_peer": how["peer"]} if how.get("peer") else {"destination": archive}
cloner = OrthancCloner(
    source, worker_threads_count=how["threads"], persist_status_path=how.get("status"),
    max_retries=how.get("retries", 5), error_folder_path=how.get("errors"), **mode,
)
ended = time.perf_counter()
def cloned(*of_it):
    global ended
    cloner.handle_new_instance(*of_it)
    ended = time.perf_counter()
cloner.add_handler(ChangeType.NEW_INSTANCE, cloned)
def run():
    cloner.execute(existing_changes_only=True)
    return ended
"""
_SCRIPT = """
import datetime, json, sys, time
from orthanc_api_client import OrthancApiClient
to, how = json.loads(sys.argv[1]), json.loads(sys.argv[2])
{}
begun, busy = time.perf_counter(), time.process_time()
ended = run()
print(json.dumps([ended - begun, time.process_time() - busy]))
"""


@dataclass(frozen=True)
class Took:
    """Seconds on the clock, and processor seconds of the mover itself."""

    seconds: float
    busy: float


@dataclass(frozen=True)
class Goal:
    """The archive that a mover of another house brings studies into, by its REST API."""

    port: int
    user: str
    password: str

    @property
    def told(self) -> str:
        return json.dumps({"url": f"http://127.0.0.1:{self.port}", "user": self.user, "password": self.password})


def our_goal(hospital: Hospital) -> Goal:
    """Our own archive, as the service that migrates sees it."""
    user, password = keys.load(hospital.environment.keys_file).basic("migration")
    return Goal(hospital.environment.ports.orthanc_http, user, password)


# --- orthanc-tools -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tools:
    """orthanc-tools in a virtual environment of its own."""

    python: Path

    @classmethod
    def install(cls, folder: Path) -> Tools:
        """Get them from the package index."""
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "install", "-q", ORTHANC_TOOLS], check=True, capture_output=True)
        return cls(python)

    def pacs_migrator(self, goal: Goal, **how: Any) -> subprocess.Popen[str]:
        """PacsMigrator: `threads`, `modality`, `days` (one or more study dates); `retries`, `errors` (a CSV file)."""
        return self._start(_PACS_MIGRATOR, goal, {"modality": NAME, "days": [STUDY_DATE], **how})

    def cloner(self, source: Plain, goal: Goal, **how: Any) -> subprocess.Popen[str]:
        """OrthancCloner: `threads`, `peer` (then the source pushes), `status` (a file), `retries`, `errors`."""
        where = {"url": f"http://127.0.0.1:{source.http_port}", "user": USER, "password": PASSWORD}
        return self._start(_CLONER, goal, {**where, **how})

    def _start(self, script: str, goal: Goal, how: dict[str, Any]) -> subprocess.Popen[str]:
        command = [str(self.python), "-c", _SCRIPT.format(script), goal.told, json.dumps(how)]
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def took(program: subprocess.Popen[str], seconds: float = 600) -> Took:
    """What one of the Tools says of itself once it has ended; RuntimeError where it failed."""
    said, words = program.communicate(timeout=seconds)
    if program.returncode:
        raise RuntimeError(f"orthanc-tools ended with {program.returncode}: {words[-2000:]}")
    return Took(*json.loads(said.splitlines()[-1]))


# --- movescu -----------------------------------------------------------------------------------------


def movescu(source: Plain, to: str, studies: Sequence[str], folder: Path, associations: int = AT_ONCE) -> Took:
    """Bare movescu, as many programs as associations, each with its share of the studies one after the other."""
    shares = [studies[number::associations] for number in range(associations)]
    commands = [
        [
            "movescu", "-q", "-S", "-aet", "MOVESCU", "-aec", AET, "-aem", to, "127.0.0.1", str(source.dicom_port),
            *(str(_question(folder, study)) for study in share),
        ]
        for share in shares
        if share
    ]  # fmt: skip
    begun, busy_before = time.perf_counter(), _of_children()
    programs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [program.communicate(timeout=600)[1] for program in programs]
    if any(program.returncode for program in programs):
        raise RuntimeError(f"movescu failed: {said}")
    return Took(time.perf_counter() - begun, _of_children() - busy_before)


def _question(folder: Path, study_uid: str) -> Path:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", study_uid
    asked.file_meta = FileMetaDataset()
    asked.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    asked.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.2.2.2")
    asked.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    file = folder / f"{study_uid}.dcm"
    asked.save_as(file, enforce_file_format=True)
    return file


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- nobody: Orthanc's own ingest ---------------------------------------------------------------------


def post(goal: Goal, files: Sequence[Path]) -> Took:
    """The very files, stored by REST from memory: what Orthanc takes in at most."""
    begun = time.perf_counter()
    own = Post(goal.port, goal.user, goal.password).files(files)
    return Took(time.perf_counter() - begun, own)


# --- ours --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours(Took):
    """From when the first study is asked for to the last one's verdict.

    `inventory`: seconds of what came before; `archive`: processor seconds of the archive until then.
    """

    inventory: float
    archive: float


def ours(hospital: Hospital, source: str, level: str, seconds: float = 600) -> Ours:
    """`zambezi migrate inventory` and the migration process; RuntimeError unless every study is verified.

    `level`: "arrival" (levels 1 and 2) or "source" (level 3 for every instance).
    """
    name, inventory = begin(hospital, source, level)
    sessions, pids = hospital.database(), [pid_of(hospital, "migration")]
    busy_before, archive = busy(pids), archive_busy(hospital)
    until = time.monotonic() + seconds
    while left(sessions, name, UNDER_WAY):
        if time.monotonic() > until:
            raise RuntimeError(f"{name} was not done in {seconds} s")
        time.sleep(0.05)
    own = busy(pids) - busy_before
    with sessions.begin() as session:
        studies = session.scalars(_of(name)).all()
        faults = [f"{study.state}: {study.reason}" for study in studies if study.state != "verified"]
        low = [study.level for study in studies if study.level < {"arrival": 2, "source": 3}[level]]
        if faults or low:
            raise RuntimeError(f"{name}: {faults[:3]}, levels {low[:3]}")
        begun = min(clock.parse(study.looked_at) for study in studies if study.looked_at)
        ended = max(clock.parse(study.verified_at) for study in studies if study.verified_at)
    return Ours((ended - begun).total_seconds(), own, inventory, archive)


def begin(hospital: Hospital, source: str, level: str) -> tuple[str, float]:
    """Take inventory and let it run; the project's name, and how long the inventory took."""
    name, begun = f"bench-{uuid.uuid4().hex[:12]}", time.perf_counter()
    hospital.zambezi("migrate", "inventory", source, "--project", name)
    inventory = time.perf_counter() - begun
    with hospital.database().begin() as session:
        session.execute(
            update(MigrationProject)
            .where(MigrationProject.name == name)
            .values(state="running", plan={"Level": level, "Order": "newest"})
        )
    return name, inventory


def left(sessions: Sessions, project: str, states: Sequence[str], is_other: bool = False) -> int:
    """How many studies of a project are in one of these states; or in none of them."""
    is_in = MigrationStudy.state.in_(states)
    with sessions.begin() as session:
        return len(session.scalars(_of(project).where(~is_in if is_other else is_in)).all())


def _of(project: str) -> Any:
    return (
        select(MigrationStudy)
        .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
        .where(MigrationProject.name == project)
    )


def pid_of(hospital: Hospital, name: str) -> int:
    """The process of the installation that has this name now."""
    return next(one.pid for one in supervision.processes(hospital.environment) or [] if one.name == name)


def archive_busy(hospital: Hospital) -> float:
    """Processor seconds of the whole installation but the process that migrates."""
    return busy(one.pid for one in supervision.processes(hospital.environment) or [] if one.name != "migration")
