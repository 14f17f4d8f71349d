"""Processes of this installation that nobody looks after any more: supervisord was killed, its children stayed.

They hold ports, the index and the journal, so a new start would stand beside them. A process counts as ours if
it belongs to our account, runs one of our programs, and carries this very ZAMBEZI_HOME; all else is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from operations.supervision import PROCESSES
from zambezi.environment import Environment

PROC = Path("/proc")
#: As long as supervisord itself would wait for Orthanc.
_END_SECONDS = 60.0


@dataclass(frozen=True)
class Leftover:
    """A process that was left: its id, and its name among our processes."""

    pid: int
    name: str


def find(environment: Environment) -> list[Leftover]:
    """What is left, supervisord first: it ends its children itself."""
    found = [Leftover(pid, name) for pid in _ours() if (name := _name(pid, environment))]
    return sorted(found, key=lambda one: (one.name != "supervisord", one.pid))


def end(environment: Environment) -> list[Leftover]:
    """Ask each to stop; what is still there after a minute is killed. Which they were."""
    ended: dict[int, Leftover] = {}
    begun = time.monotonic()
    while left := find(environment):
        late = time.monotonic() - begun > _END_SECONDS
        for one in left:
            if one.pid not in ended or late:
                _send(one, signal.SIGKILL if late else signal.SIGTERM, environment)
                ended[one.pid] = one
        time.sleep(0.1)
    return list(ended.values())


def ask(ones: list[Leftover], environment: Environment) -> None:
    """Ask these to stop; who supervises them starts them again."""
    for one in ones:
        _send(one, signal.SIGTERM, environment)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent to notice doesn't."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _ours() -> Iterator[int]:
    for entry in PROC.iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid() and is_alive(int(entry.name)):
                yield int(entry.name)
        except OSError:
            continue  # ended meanwhile


def _name(pid: int, environment: Environment) -> str:
    """Which of our programs it is, in this installation; empty for everything else."""
    process = PROC / str(pid)
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        variables = (process / "environ").read_bytes().split(b"\0")
        if (process / "exe").readlink().name == "nginx":
            # nginx writes its title over its environment; supervisord starts it in our run folder.
            return "front" if (process / "cwd").readlink() == environment.run_dir.resolve() else ""
    except OSError:
        return ""  # ended meanwhile
    if f"ZAMBEZI_HOME={environment.home}".encode() not in variables:
        return ""
    return program(words)


def program(words: list[str]) -> str:
    """The process that a command line belongs to, or supervisord; empty if it is none of ours."""
    if Path(words[0]).name == "Orthanc":
        return "orthanc"
    behind = words[words.index("-m") + 1 :] if "-m" in words else []
    module = next((word for word in behind if word != "zambezi.starting"), "")
    if module == "supervisor.supervisord":
        return "supervisord"
    if module == "operations.keeper":
        return "orthanc"
    return next((name for name, own in PROCESSES.items() if own and own == module), "")


def _send(one: Leftover, number: int, environment: Environment) -> None:
    """The signal, to this process and to none that took its id over meanwhile."""
    with _held(one.pid) as descriptor:
        if descriptor is not None and _name(one.pid, environment) == one.name:
            with suppress(ProcessLookupError):  # ended meanwhile
                signal.pidfd_send_signal(descriptor, number)


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
