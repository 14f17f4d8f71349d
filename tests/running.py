"""A whole installation with the demo's neighbours, on free ports and in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import play
from demo.hospital import Hospital
from demo.neighbours import Neighbours, free_port
from zambezi.environment import PORTS, REPOSITORY, Environment


@contextmanager
def a_hospital(
    quiet_seconds: float = 0.5, before: Callable[[Environment], None] = lambda _: None
) -> Iterator[Hospital]:
    """Do what is to be done `before`, start everything, hand it over, stop everything.

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
        try:
            play.start(hospital)
            yield hospital
        finally:
            hospital.try_zambezi("down")
            hospital.neighbours.stop()
            if "ZAMBEZI_KEEP" not in os.environ:
                shutil.rmtree(folder, ignore_errors=True)


def crash_folder(hospital: Hospital) -> Path:
    """Where a test asks a process to die at its n-th commit event (zambezi/crash.py)."""
    return hospital.environment.home.parent / "crash"
