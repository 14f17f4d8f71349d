"""A whole installation with the demo's neighbours, on free ports and in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from demo import play
from demo.hospital import PASSWORD, PEOPLE, Hospital
from demo.neighbours import Neighbours, free_port
from ris_service.commands import CHAIN
from tests import postgres
from zambezi import clock, users
from zambezi.environment import PORTS, REPOSITORY, Environment


@contextmanager
def a_hospital(
    quiet_seconds: float = 0.5,
    before: Callable[[Environment], None] = lambda _: None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Hospital]:
    """Do what is to be done `before`, start everything (with more `variables`), hand it over, stop everything.

    With ZAMBEZI_KEEP its folder stays, to look at the logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="zambezi-test-"))
    folder.chmod(0o755)  # the processes run under an account of their own
    shutil.copytree(REPOSITORY / "demo" / "config", folder / "config")
    settings = folder / "config" / "30-zambezi.json"
    text = settings.read_text()
    changed = re.sub(r'"QuietSeconds": [0-9.]+', f'"QuietSeconds": {quiet_seconds}', text)
    assert changed != text or f'"QuietSeconds": {quiet_seconds}' in text
    settings.write_text(changed)
    environ = {
        **os.environ,
        **{variable: str(free_port()) for variable, _ in PORTS.values()},
        **{f"DEMO_{name}_PORT": str(free_port()) for name in ("HIS", "SECOND", "BACKUP", "LEGACY")},
        "ZAMBEZI_HOME": str(folder / "home"),
        "ZAMBEZI_CONFIG": str(folder / "config"),
        "ZAMBEZI_DATABASE_URL": "",
        **(variables or {}),
    }
    environment = Environment.read(environ)
    hospital = Hospital(environment, Neighbours.read(environment, environ))
    crash_folder(hospital).mkdir()
    crash_folder(hospital).chmod(0o777)  # the processes, whose account is another, take the files away
    before(environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZAMBEZI_CRASH_DIR", str(crash_folder(hospital)))
        # The code of this checkout, wherever the virtual environment's own `zambezi` was installed from.
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        try:
            play.start(hospital)
            _bring_people(hospital)
            yield hospital
        finally:
            hospital.try_zambezi("down")
            hospital.neighbours.stop()
            if "ZAMBEZI_KEEP" not in os.environ:
                shutil.rmtree(folder, ignore_errors=True)


def _bring_people(hospital: Hospital) -> None:
    """The demo's accounts, without a process for each."""
    now = clock.now()
    with hospital.database().begin() as session:
        for login, name, role in PEOPLE:
            user = users.add(session, login, name, role, PASSWORD, now, CHAIN, "tests")
            users.set_password(session, user, PASSWORD, now, CHAIN)


@contextmanager
def a_hospital_on_postgresql(
    quiet_seconds: float = 0.5, more: Mapping[str, str] | None = None
) -> Iterator[OnPostgresql]:
    """The same with the central database and Orthanc's index in PostgreSQL, as tools/postgresql sets it up.

    Each lies in a cluster of its own, with fsync on, so that one may be away without the other.
    """
    found = postgres.programs()
    assert found, "PostgreSQL is not installed; tools/install --tests brings it"
    password = uuid.uuid4().hex
    with postgres.a_cluster(found, is_durable=True) as index, postgres.a_cluster(found, is_durable=True) as central:
        for cluster in (index, central):
            cluster.make_databases(password)
        folder = Path(tempfile.mkdtemp(prefix="zambezi-clock-"))
        folder.chmod(0o755)
        variables = {
            "ZAMBEZI_CLOCK": str(folder / "ahead"),
            "ZAMBEZI_DATABASE_URL": f"postgresql://zambezi@127.0.0.1:{central.port}/zambezi",
            "ZAMBEZI_POSTGRES_PORT": str(index.port),
            "PGPASSWORD": password,
            **(more or {}),
        }
        with a_hospital(quiet_seconds, index_in_postgresql, variables) as hospital:
            yield OnPostgresql(hospital, index, central, folder / "ahead")
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class OnPostgresql:
    """An installation, the two clusters that it has everything in but files and journal, and the clock of it all."""

    hospital: Hospital
    index: postgres.Cluster
    central: postgres.Cluster
    clock: Path

    def kill(self) -> bool:
        """kill -9 of the postmasters, and start them again; True, for it was done."""
        clusters = (self.index, self.central)
        for cluster in clusters:
            cluster.kill()
        for cluster in clusters:
            cluster.start()
        return True

    def let_pass(self, passing: timedelta, seconds: float) -> None:
        """Let time pass for every process, in so many seconds, a minute at a time."""
        minutes = int(passing.total_seconds() // 60)
        before = float(self.clock.read_text()) if self.clock.exists() else 0.0
        for minute in range(1, minutes + 1):
            self.clock.with_suffix(".new").write_text(str(before + 60 * minute))
            self.clock.with_suffix(".new").chmod(0o644)
            self.clock.with_suffix(".new").rename(self.clock)  # nobody reads half a number
            time.sleep(seconds / minutes)


def index_in_postgresql(environment: Environment) -> None:
    """Change the JSON as tools/postgresql does."""
    subprocess.run([REPOSITORY / "tools" / "index-in-postgresql", environment.config_dir], check=True)


def crash_folder(hospital: Hospital) -> Path:
    """Where a test asks a process to die at its n-th commit event (zambezi/crash.py)."""
    return hospital.environment.home.parent / "crash"
