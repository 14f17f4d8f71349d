"""Orthanc's parent: `python -m operations.keeper PROGRAM CONFIGURATION INDEX STORAGE`.

It hands on the signal to stop, waits for the end, and marks a clean one (operations.clean_stop): nobody else sees
Orthanc's exit code. It is small, and imports nothing that isn't needed: it stays as long as Orthanc does.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from operations import clean_stop

#: Orthanc takes these for a stop.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def main(program: str, configuration: str, index: str, storage: str) -> int:
    """Run Orthanc; its exit code, or 128 and the signal's number."""
    asked: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        for one in running:
            one.send_signal(number)

    for number in _STOPS:
        signal.signal(number, stop)
    process = subprocess.Popen([program, configuration], preexec_fn=_die_with_parent)
    running.append(process)
    if asked:  # between the handlers and here
        process.send_signal(asked[0])
    code = process.wait()
    if code == 0:
        clean_stop.leave(Path(index), Path(storage))
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: an Orthanc whose keeper was killed would hold the ports, and nobody would see its end.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
