"""Orthanc's parent: `python -m operations.keeper PROGRAM CONFIGURATION INDEX STORAGE [CALLERS]`.

It hands on the signal to stop, waits for the end, and marks a clean one (operations.clean_stop): nobody else sees
Orthanc's exit code. It reads Orthanc's log, notes in the file CALLERS who calls at the DICOM port
(operations.dicom_log), and lets through what belongs into a log. It is small, and imports nothing that isn't needed:
it stays as long as Orthanc does.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from operations import clean_stop, dicom_log
from operations.dicom_log import DicomLog

#: Orthanc takes these for a stop.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: It is read no oftener than this, from a pipe of so many bytes: while images pour in, each brings some lines, and who
#: wakes for each of them takes time away from Orthanc.
_PILE_S, _PIPE_BYTES = 0.1, 2**20
#: A line that is longer isn't waited for.
_LONGEST = 2**16
_F_SETPIPE_SZ = 1031


def main(program: str, configuration: str, index: str, storage: str, callers: str = "") -> int:
    """Run Orthanc; its exit code, or 128 and the signal's number."""
    asked: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        for one in running:
            one.send_signal(number)

    for number in _STOPS:
        signal.signal(number, stop)
    command = [program, *(dicom_log.OPTIONS if callers else ()), configuration]
    process = subprocess.Popen(
        command, preexec_fn=_die_with_parent, stderr=subprocess.PIPE if callers else None, bufsize=0
    )
    running.append(process)
    if asked:  # between the handlers and here
        process.send_signal(asked[0])
    if process.stderr is not None:
        _read(process.stderr.fileno(), DicomLog(Path(callers)))
    code = process.wait()
    if code == 0:
        clean_stop.leave(Path(index), Path(storage))
    return code if code >= 0 else 128 - code


def _read(log: int, told: DicomLog) -> None:
    """Until Orthanc has closed its log. Whatever happens, it is read on: Orthanc waits where nobody reads."""
    with suppress(OSError):  # a machine may allow less
        fcntl.fcntl(log, _F_SETPIPE_SZ, _PIPE_BYTES)
    rest, read_at = b"", 0.0
    write_at: float | None = None
    while True:
        now = time.monotonic()
        wait_s = told.wait_s(time.time())
        if wait_s is not None:
            write_at = now + wait_s if write_at is None else min(write_at, now + wait_s)
        if select.select([log], [], [], None if write_at is None else max(0.0, write_at - now))[0]:
            time.sleep(max(0.0, min(_PILE_S, read_at + _PILE_S - time.monotonic())))
            read_at = time.monotonic()
            piece = os.read(log, _PIPE_BYTES)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LONGEST:
                lines, rest = [*lines, rest], b""
            _hand_on(lines, told)
        if write_at is not None and time.monotonic() >= write_at:
            told.write(time.time())
            write_at = None
    _hand_on([rest] if rest else [], told)
    told.write(time.time(), all_of_it=True)


def _hand_on(lines: list[bytes], told: DicomLog) -> None:
    kept = []
    now = time.time()
    for one in lines:
        try:
            stays = told.line(one, now)
        except Exception:  # noqa: BLE001  edge of the log: Orthanc would end with us; such a line stays in the log
            stays = True
        if stays:
            kept.append(one + b"\n")
    with suppress(OSError):  # nobody keeps our log: that must not stop the archive
        sys.stderr.buffer.write(b"".join(kept))
        sys.stderr.buffer.flush()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: an Orthanc whose keeper was killed would hold the ports, and nobody would see its end.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
