"""Ingest: the same instances into bare Orthanc and into Zambezi, in turn; the ratio and its spread.

Both have the same Orthanc settings and TCP_NODELAY; Zambezi has journal, audit, routing decisions, access filter and
every process running. Beside it, fewer runs into Orthanc with Debian's stock environment (no TCP_NODELAY).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from demo.hospital import Hospital
from demo.neighbours import free_port
from tests.bench import instances
from tests.running import a_hospital
from zambezi import config

#: Edge in pixels of a square CT slice of 16 bit: what it is called, and how many a run stores.
SIZES = {512: ("512 KB", 400), 128: ("32 KB", 1600)}
SENDERS = (1, 4)
ROUNDS = 5


class Bare:
    """Orthanc alone: our checked settings without any plugin."""

    def __init__(self, folder: Path, hospital: Hospital, nodelay: bool) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        settings = {
            key: value
            for key, value in config.load(hospital.environment.config_dir, hospital.variables()).orthanc.items()
            if key not in ("Zambezi", "Plugins", "PythonScript", "LuaScripts", "DicomWeb", "WebViewer", "Python")
        }
        settings |= {
            "DicomPort": self.dicom_port, "HttpPort": self.http_port, "RegisteredUsers": {"bench": "bench"},
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"),
            "TemporaryDirectory": str(folder),
        }  # fmt: skip
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(json.dumps(settings))
        environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/Orthanc", str(folder / "orthanc.json")], env=environment, stdout=log, stderr=log
            )
        for _ in range(200):
            try:
                requests.get(f"http://127.0.0.1:{self.http_port}/system", auth=("bench", "bench"), timeout=5)
                return
            except requests.ConnectionError:
                time.sleep(0.05)
        raise RuntimeError("bare Orthanc did not start")

    def count(self) -> int:
        answer = requests.get(f"http://127.0.0.1:{self.http_port}/statistics", auth=("bench", "bench"), timeout=30)
        return int(answer.json()["CountInstances"])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def rate(port: int, made: bytes, count: int, senders: int, nodelay: bool = True) -> float:
    """Instances a second that `senders` dcmsend programs get into the archive on `port`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # memory, so that reading costs nothing
        lots = []
        for sender in range(senders):
            lot = Path(folder) / str(sender)
            instances.write(made, count // senders, lot)
            lots.append(lot)
        environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
        begun = time.perf_counter()
        programs = [
            subprocess.Popen(
                ["dcmsend", "-q", "-aet", "CT1", "-aec", "ZAMBEZI", "127.0.0.1", str(port), "+sd", str(lot)],
                env=environment,
            )
            for lot in lots
        ]  # fmt: skip
        codes = [program.wait(600) for program in programs]
        took = time.perf_counter() - begun
    if any(codes):
        raise RuntimeError(f"dcmsend ended with {codes}")
    return count / took


def measure(edge: int, senders: int, ours: int, bare: int, settle: Callable[[], None]) -> list[float]:
    """Interleaved runs; ours divided by bare, pair by pair."""
    label, count = SIZES[edge]
    made = instances.template(edge)
    ratios, rates = [], []
    for number in range(ROUNDS + 1):
        ports = (ours, bare) if number % 2 else (bare, ours)
        found = {}
        for port in ports:
            found[port] = rate(port, made, count, senders)
            settle()
        if number:  # the first pair only warms up
            ratios.append(found[ours] / found[bare])
            rates.append((found[ours], found[bare]))
    us, them = (statistics.median(pair[which] for pair in rates) for which in (0, 1))
    print(
        f"{label:>7}, {senders} sender{'s' if senders > 1 else ' '}: ours {us:6.0f}/s, bare {them:6.0f}/s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )
    return ratios


def main() -> int:
    """Print the table."""
    if not Path("/usr/sbin/Orthanc").exists():
        print("Orthanc is not installed; `make install` as root installs it", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, a_hospital(quiet_seconds=600) as hospital:
        bare = Bare(Path(name) / "bare", hospital, nodelay=True)
        stock = Bare(Path(name) / "stock", hospital, nodelay=False)
        try:
            print(f"ingest, {ROUNDS} interleaved pairs each, Orthanc {hospital.orthanc().system()['Version']}")
            for edge in SIZES:
                for senders in SENDERS:
                    measure(edge, senders, hospital.environment.ports.dicom, bare.dicom_port, lambda: settled(hospital))
            for edge, (label, _) in SIZES.items():
                made = instances.template(edge)
                ours = rate(hospital.environment.ports.dicom, made, 200, 1)
                plain = rate(stock.dicom_port, made, 200, 1, nodelay=False)
                print(f"{label:>7}, 1 sender : ours {ours:6.0f}/s, Debian's stock environment {plain:6.0f}/s, "
                      f"ratio {ours / plain:.1f}")  # fmt: skip
        finally:
            bare.stop()
            stock.stop()
    return 0


def settled(hospital: Hospital) -> None:
    """Wait until the journal has caught up, so that no run pays for the one before."""
    for _ in range(600):
        status = json.loads(hospital.zambezi("status", "--json"))
        if status.get("orthanc", {}).get("lag", 0) == 0:
            return
        time.sleep(0.2)
