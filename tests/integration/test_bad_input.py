"""Bad input at the command line: a sentence that says what and what to do, exit code 2, never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zambezi.environment import REPOSITORY


@pytest.fixture
def folder() -> Iterator[Path]:
    """A copy of the configuration, where the system account can read it, too."""
    with tempfile.TemporaryDirectory(prefix="zambezi-test-") as made:
        Path(made).chmod(0o755)
        yield Path(shutil.copytree(REPOSITORY / "orthanc-config", Path(made) / "config"))


def zambezi(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`zambezi WORDS` with the folder as its configuration, in a home that is never made."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from zambezi.cli import main; main()", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "ZAMBEZI_CONFIG": str(folder),
            "ZAMBEZI_HOME": str(folder.parent / "home"),
            **environ,
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What was said, if it was a refusal in sentences."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_broken_json(folder: Path):
    (folder / "30-zambezi.json").write_text('{ "Zambezi": { "Site": }\n')
    assert "30-zambezi.json: can't be read as JSON" in refused(zambezi(folder, "config", "check"))


def test_unknown_keys_and_wrong_types_are_all_told(folder: Path):
    (folder / "30-zambezi.json").write_text('{ "Zambezi": { "Sites": {}, "Completeness": { "QuietSeconds": [] } } }')
    said = refused(zambezi(folder, "config", "check"))
    assert "Zambezi.Sites: no such key" in said
    assert "Zambezi.Completeness.QuietSeconds: found []" in said


def test_a_missing_debian_package(folder: Path):
    file = folder / "20-plugins.json"
    file.write_text(
        file.read_text().replace("/usr/share/orthanc/plugins/libOrthancPython.so", "/x/libOrthancPython.so")
    )
    assert "as root: apt-get install orthanc-python" in refused(zambezi(folder, "config", "check"))


def test_orthanc_without_the_python_plugin(folder: Path):
    file = folder / "20-plugins.json"
    file.write_text(re.sub(r'"[^"]*libOrthancPython.so",', "", file.read_text()))
    assert "libOrthancPython.so is not named" in refused(zambezi(folder, "config", "check"))


def test_a_port_that_is_no_port_and_two_that_are_one(folder: Path):
    said = refused(zambezi(folder, "up", ZAMBEZI_DICOM_PORT="high", ZAMBEZI_RIS_PORT="8042"))
    assert "ZAMBEZI_DICOM_PORT: found 'high'" in said
    assert "ZAMBEZI_RIS_PORT: found 8042, which ZAMBEZI_ORTHANC_HTTP_PORT has already" in said


def test_a_port_in_use(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        said = refused(zambezi(folder, "up", ZAMBEZI_MLLP_PORT=port))
    assert f"port {port} is in use" in said
    assert "ZAMBEZI_MLLP_PORT=" in said


def test_a_database_that_is_none(folder: Path):
    said = refused(zambezi(folder, "audit", "verify", ZAMBEZI_DATABASE_URL="oracle-of-delphi"))
    assert "ZAMBEZI_DATABASE_URL" in said


def test_a_reload_before_the_first_start(folder: Path):
    assert "`zambezi up`" in refused(zambezi(folder, "config", "reload"))
