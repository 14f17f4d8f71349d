"""The demo hospital as the play sees it: an installation, its neighbours, its people, and one run's identifiers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, TypeVar

from demo import images
from demo.modality import Modality
from demo.neighbours import Neighbours
from demo.person import Person
from zambezi import config, keys
from zambezi.config import Configuration
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.environment import REPOSITORY, Environment
from zambezi.orthanc_client import OrthancClient

T = TypeVar("T")

#: Demo logins: login, name, role. The password is the same for all, printed at the end, and of this demo only.
PEOPLE = (
    ("admin", "Administradora", "administrator"),
    ("radiologista", "Dra. Graça Mondlane", "radiologist"),
    ("tecnico", "Téc. Inácio Sitoe", "radiographer"),
    ("recepcao", "Recepção", "reception"),
    ("migracao", "Eng. Tendai Moyo", "migration-engineer"),
)
PASSWORD = "zambeze-demo-2026"


class StepFailed(Exception):
    """Something was not as it must be; the text says what was expected and what was seen."""


@dataclass
class Run:
    """The identifiers of one run of the play; they lie in play.json once the run is over."""

    number: str
    study_date: str
    order: dict[str, Any] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)

    @property
    def patient_id(self) -> str:
        return f"HCZ{self.number}"

    @property
    def patient_name(self) -> str:
        return "Conceição^João António"

    @property
    def accession_number(self) -> str:
        return f"A{self.number}"

    @property
    def exam(self) -> images.Exam:
        """The exam's identifiers, once the worklist has told the Study UID."""
        return images.Exam(self.patient_id, self.patient_name, "19790412", "M", self.accession_number,
                           self.order["study_uid"], self.study_date)  # fmt: skip


@dataclass(frozen=True)
class Hospital:
    """One running installation with its neighbours."""

    environment: Environment
    neighbours: Neighbours

    @property
    def play_file(self) -> Path:
        return self.environment.home / "play.json"

    @property
    def ct(self) -> Modality:
        return Modality("CT1", self.environment.ports.dicom, self.environment.ports.mpps)

    def variables(self) -> dict[str, str]:
        """The environment of every process of this hospital."""
        return {**os.environ, **self.environment.variables(), **self.neighbours.variables()}

    def zambezi(self, *words: str, said: str = "") -> str:
        """Run `zambezi WORDS` with `said` on its standard input; its output, or StepFailed with its last lines."""
        done = self.try_zambezi(*words, said=said)
        if done.returncode:
            tail = (done.stdout + done.stderr).strip().splitlines()[-6:]
            raise StepFailed(f"`zambezi {' '.join(words)}` ended with {done.returncode}: {' / '.join(tail)}")
        return done.stdout

    def try_zambezi(self, *words: str, said: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `zambezi WORDS`, whatever comes of it."""
        command = [str(Path(sys.executable).parent / "zambezi"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, input=said, cwd=REPOSITORY,
                              env={**self.variables(), **variables})  # fmt: skip

    def configuration(self) -> Configuration:
        """The configuration as the processes read it."""
        return config.load(self.environment.config_dir, self.variables())

    def database(self) -> Sessions:
        """The central database, for looking only."""
        return sessions(connect(self.environment.database_url, "demo"), "demo")

    def orthanc(self) -> OrthancClient:
        """Orthanc, as the service `operations` sees it."""
        return OrthancClient(self.environment, keys.load(self.environment.keys_file), "operations")

    def person(self, login: str) -> Person:
        """Somebody who signed in through the front door."""
        person = Person(self.environment.front_url)
        person.sign_in(login, PASSWORD)
        return person

    def load_run(self) -> Run | None:
        """The last run that was played to its end."""
        if not self.play_file.exists():
            return None
        return Run(**json.loads(self.play_file.read_text()))

    def save_run(self, run: Run) -> None:
        self.play_file.write_text(json.dumps(asdict(run), indent=2))


def new_run(now: datetime, zone: tzinfo) -> Run:
    """A run with identifiers that no run had before, on the hospital's own day (after 22:00 UTC that is the next)."""
    return Run(number=now.strftime("%m%d%H%M%S"), study_date=now.astimezone(zone).strftime("%Y%m%d"))


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 30) -> T:
    """Look again and again until something is seen; StepFailed after `seconds`, naming what was waited for."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise StepFailed(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(0.2)


def must(holds: object, otherwise: str) -> None:
    """StepFailed unless it holds."""
    if not holds:
        raise StepFailed(otherwise)
