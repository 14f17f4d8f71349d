"""How long a start takes, until the pages and the DICOM port answer: after a clean stop, and after a kill."""

from __future__ import annotations

import os
import signal
import socket
import time

from demo.hospital import Hospital, wait_for
from operations import supervision


def measure(hospital: Hospital) -> None:
    """Print the seconds; everything runs again afterwards."""
    count = hospital.orthanc().get("/statistics")["CountInstances"]
    hospital.zambezi("down")
    begun = time.perf_counter()
    hospital.zambezi("up", "--detach")
    _await_door(hospital)
    print(f"start of everything after a clean stop, {count} instances: {time.perf_counter() - begun:.1f} s", flush=True)
    (orthanc,) = (one for one in supervision.processes(hospital.environment) or [] if one.name == "orthanc")
    begun = time.perf_counter()
    os.kill(orthanc.pid, signal.SIGKILL)
    wait_for("the DICOM port to close", lambda: not _answers(hospital))
    _await_door(hospital)
    print(f"orthanc alone after kill -9, {count} instances: {time.perf_counter() - begun:.1f} s", flush=True)


def _await_door(hospital: Hospital) -> None:
    wait_for("the DICOM port", lambda: _answers(hospital), seconds=600)


def _answers(hospital: Hospital) -> bool:
    try:
        socket.create_connection(("127.0.0.1", hospital.environment.ports.dicom), timeout=5).close()
    except OSError:
        return False
    return True
