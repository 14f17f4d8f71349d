"""Ingest: the same instances into bare Orthanc and into Zambezi, in turn; the ratio and its spread.

All have the same Orthanc settings and TCP_NODELAY. Zambezi has journal, audit, routing decisions, access filter and
every process running. It is held against Orthanc with the viewers' plugins that it has, too (DICOMweb, web viewer,
GDCM: what a hospital would load anyway, and the web viewer looks at each instance), against the same with the memory
allocator that ours has (what remains is the cost of our own code), and against Orthanc without any plugin. Beside it,
fewer runs into Orthanc with Debian's stock environment (no TCP_NODELAY).
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.hospital import Hospital
from demo.neighbours import free_port
from operations import supervision
from operations.archive import allocator
from tests.bench import instances
from tests.bench.migration_places import busy
from tests.running import a_hospital
from zambezi import config

#: Edge in pixels of a square CT slice of 16 bit: what it is called, and how many a run stores.
SIZES = {512: ("512 KB", 300), 128: ("32 KB", 800)}
SENDERS = (1, 4)
#: Many short rounds: a disk that others use, too, has good and bad seconds.
ROUNDS = 11
#: The DICOM ports of one archive; of several nodes all.
Doors = tuple[int, ...]

#: Archives that use less than so much of one core, all together, are at rest; looked at for so long.
_AT_REST, _LOOK_S = 0.15, 0.5
#: What is stored is not delivered while others are measured.
NEVER = 86400
_OURS = ("PythonScript", "LuaScripts", "Python")
_VIEWERS = ("Plugins", "DicomWeb", "WebViewer")


class Bare:
    """Orthanc without anything of ours: our checked settings, with the viewers' plugins or without any."""

    def __init__(
        self, folder: Path, hospital: Hospital, nodelay: bool, viewers: bool = False, our_allocator: bool = False
    ) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        loaded = config.load(hospital.environment.config_dir, hospital.variables()).orthanc
        settings = {key: value for key, value in loaded.items() if key not in ("Zambezi", *_OURS, *_VIEWERS)}
        if viewers:
            plugins = [plugin for plugin in loaded["Plugins"] if "Python" not in plugin]
            settings |= {"Plugins": plugins, "DicomWeb": loaded["DicomWeb"]}
            settings["WebViewer"] = {**loaded["WebViewer"], "CachePath": str(folder / "viewer-cache")}
        settings |= {
            "DicomPort": self.dicom_port, "HttpPort": self.http_port, "RegisteredUsers": {"bench": "bench"},
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"),
            "TemporaryDirectory": str(folder),
        }  # fmt: skip
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(json.dumps(settings))
        environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
        if our_allocator:
            environment |= allocator({})
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

    @property
    def pid(self) -> int:
        return self._process.pid

    def count(self) -> int:
        answer = requests.get(f"http://127.0.0.1:{self.http_port}/statistics", auth=("bench", "bench"), timeout=30)
        return int(answer.json()["CountInstances"])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def rate(doors: Doors, made: Sequence[bytes], count: int, senders: int, nodelay: bool = True) -> float:
    """Instances a second that `senders` dcmsend programs get into the archive.

    Each stores copies of the next of what is `made`, by the next of the archive's DICOM ports.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # memory, so that reading costs nothing
        lots = []
        for sender, copied in zip(range(senders), itertools.cycle(made), strict=False):
            lot = Path(folder) / str(sender)
            instances.write(copied, count // senders, lot)
            lots.append(lot)
        environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
        begun = time.perf_counter()
        programs = [
            subprocess.Popen(
                ["dcmsend", "-q", "-aet", "CT1", "-aec", "ZAMBEZI", "127.0.0.1", str(door), "+sd", str(lot)],
                env=environment,
            )
            for lot, door in zip(lots, itertools.cycle(doors))
        ]  # fmt: skip
        codes = [program.wait(600) for program in programs]
        took = time.perf_counter() - begun
    if any(codes):
        raise RuntimeError(f"dcmsend ended with {codes}")
    return count / took


@dataclass(frozen=True)
class Archive:
    """One that is stored to: its DICOM ports, and its processes, where their work is measured."""

    doors: Doors
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Run:
    """Instances a second, and milliseconds of processor for each: of the archive, until it was at rest again."""

    rate: float
    processor_ms: float


def measure(
    edge: int, senders: int, ours: Archive, others: dict[str, Archive], settle: Callable[[], None],
    name: str = "ours", times: int = ROUNDS, made: Sequence[bytes] = (),
) -> None:  # fmt: skip
    """Interleaved runs into ours and each of the others; ours divided by the other's, round by round.

    `made`: what each of the senders stores; a CT slice of that edge unless told.
    """
    label, count = SIZES[edge]
    made = made or [instances.template(edge)]
    archives = [ours, *others.values()]
    rounds = []
    for number in range(times + 1):
        found = {}
        for archive in archives[number % len(archives) :] + archives[: number % len(archives)]:
            before = busy(archive.pids)
            stored = rate(archive.doors, made, count, senders)
            settle()
            found[archive] = Run(stored, (busy(archive.pids) - before) * 1000 / count)
        if number:  # the first round only warms up
            rounds.append(found)
    print(f"{label:>7}, {senders} sender{'s' if senders > 1 else ' '}: {_told(name, ours, rounds)}", end="")
    for other, archive in others.items():
        ratios = [found[ours].rate / found[archive].rate for found in rounds]
        print(
            f"; {_told(other, archive, rounds)}, ratio {statistics.median(ratios):.2f} "
            f"(quarters {_quarters(ratios)}, all {min(ratios):.2f} to {max(ratios):.2f})",
            end="",
        )
    print(flush=True)


def _told(name: str, archive: Archive, rounds: Sequence[Mapping[Archive, Run]]) -> str:
    rates = statistics.median(found[archive].rate for found in rounds)
    work = statistics.median(found[archive].processor_ms for found in rounds)
    return f"{name} {rates:6.0f}/s" + (f", {work:.2f} ms of processor" if archive.pids else "")


def _quarters(ratios: Sequence[float]) -> str:
    first, _, third = statistics.quantiles(ratios, n=4)
    return f"{first:.2f} to {third:.2f}"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, a_hospital(quiet_seconds=NEVER) as hospital:
        bare = Bare(Path(name) / "bare", hospital, nodelay=True)
        viewers = Bare(Path(name) / "viewers", hospital, nodelay=True, viewers=True)
        alike = Bare(Path(name) / "alike", hospital, nodelay=True, viewers=True, our_allocator=True)
        stock = Bare(Path(name) / "stock", hospital, nodelay=False)
        pids = tuple(one.pid for one in supervision.processes(hospital.environment) or [])
        ours = Archive((hospital.environment.ports.dicom,), pids)
        others = {
            "with the viewers' plugins": Archive((viewers.dicom_port,), (viewers.pid,)),
            "and our allocator": Archive((alike.dicom_port,), (alike.pid,)),
            "without any": Archive((bare.dicom_port,), (bare.pid,)),
        }

        def settle() -> None:
            settled(hospital)
            rested((*pids, bare.pid, viewers.pid, alike.pid))

        try:
            print(f"ingest, {ROUNDS} interleaved rounds each, Orthanc {hospital.orthanc().system()['Version']}")
            for edge in SIZES:
                for senders in SENDERS:
                    measure(edge, senders, ours, others, settle)
            for edge, (label, _) in SIZES.items():
                made = [instances.template(edge)]
                quick = rate(ours.doors, made, 200, 1)
                plain = rate((stock.dicom_port,), made, 200, 1, nodelay=False)
                print(f"{label:>7}, 1 sender : ours {quick:6.0f}/s, Debian's stock environment {plain:6.0f}/s, "
                      f"ratio {quick / plain:.1f}")  # fmt: skip
        finally:
            for one in (bare, viewers, alike, stock):
                one.stop()


def rested(pids: Collection[int], seconds: float = 60) -> None:
    """Wait until none of these works any more: the web viewer goes on with what came long after the sender has left."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = busy(pids)
        time.sleep(_LOOK_S)
        if busy(pids) - before < _AT_REST * _LOOK_S:
            return


def settled(hospital: Hospital) -> None:
    """Wait until the journal has caught up, so that no run pays for the one before."""
    for _ in range(600):
        status = json.loads(hospital.zambezi("status", "--json"))
        if status.get("orthanc", {}).get("lag", 0) == 0:
            return
        time.sleep(0.2)
