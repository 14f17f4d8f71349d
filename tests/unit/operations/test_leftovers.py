"""What counts as a process of this installation that was left behind, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operations import leftovers
from zambezi.environment import Environment


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/usr/sbin/Orthanc", "/srv/zambezi/orthanc/config", ""], "orthanc"),
        (["/v/bin/python3", "-P", "-m", "zambezi.starting", "operations.archive", ""], "orthanc"),
        (["/v/bin/python3", "-P", "-S", "-m", "operations.keeper", "/usr/sbin/Orthanc", "c", ""], "orthanc"),
        (["/v/bin/python3", "-P", "-m", "zambezi.starting", "gateway.service", ""], "gateway"),
        (["/v/bin/python3", "-P", "-m", "gateway.service", ""], "gateway"),  # of the version before an upgrade
        (["/v/bin/python3", "-P", "-m", "supervisor.supervisord", "-c", "x", ""], "supervisord"),
        (["/v/bin/python3", "-P", "-m", "demo.play", ""], ""),
        (["/v/bin/python3", "-m"], ""),
        (["vi", "gateway.service"], ""),
        ([""], ""),
    ],
)
def test_a_process_is_known_by_its_command(words: list[str], name: str):
    assert leftovers.program(words) == name


@contextmanager
def a_process(home: Path, module: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like one of ours and only sleeps."""
    package, _, name = module.partition(".")
    (folder / package).mkdir(parents=True, exist_ok=True)
    (folder / package / f"{name}.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", module], cwd=folder, stdout=subprocess.PIPE,
        env={"ZAMBEZI_HOME": str(home), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    try:
        assert process.stdout and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_only_this_very_installations_processes_are_ended(tmp_path: Path):
    home = tmp_path / "home"
    environment = Environment.read({"ZAMBEZI_HOME": str(home)})
    with (
        a_process(home, "gateway.service", tmp_path / "a") as ours,
        a_process(tmp_path / "home2", "gateway.service", tmp_path / "b") as neighbour,
        a_process(home, "somebody.elses", tmp_path / "c") as other,
    ):
        assert [(one.pid, one.name) for one in leftovers.find(environment)] == [(ours.pid, "gateway")]
        assert [one.pid for one in leftovers.end(environment)] == [ours.pid]
        assert not leftovers.is_alive(ours.pid)
        assert leftovers.is_alive(neighbour.pid) and leftovers.is_alive(other.pid)
        assert leftovers.end(environment) == []


def test_a_process_that_nobody_waited_for_is_not_alive():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not leftovers.is_alive(process.pid)
    process.wait()
    assert not leftovers.is_alive(process.pid)
