"""Memory of every process: idle, of Orthanc while requests pass its access filter, and while instances come.

Ingest must be flat. Debian 12's Python plugin loses about a kilobyte with each request that its filter sees; what
bounds that is a memory limit and a start in a quiet hour (docs/install.md).
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from demo.hospital import Hospital
from operations import supervision
from tests.bench import ingest, instances

INSTANCES, LOTS, SENDERS, EDGE = 20_000, 5, 4, 128
REQUESTS = 10_000
#: Processes with their caches filled and their first batches behind them.
_IDLE_S = 20


def resident(hospital: Hospital) -> dict[str, int]:
    """KB of memory in use, by process with all its children."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(told["PPid"])
        used[int(folder.name)] = int(told.get("VmRSS", "0").split()[0])
    children = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)

    def tree(pid: int) -> int:
        return used.get(pid, 0) + sum(tree(child) for child in children[pid])

    return {one.name: tree(one.pid) for one in supervision.processes(hospital.environment) or [] if one.pid}


def _asked(hospital: Hospital) -> None:
    """Print what a request leaves behind; before anything is stored, since an allocator's free memory would hide it."""
    orthanc = hospital.orthanc()
    for _ in range(REQUESTS // 10):  # caches of the web server's threads
        orthanc.get("/system")
    before = resident(hospital)["orthanc"]
    for _ in range(REQUESTS):
        orthanc.get("/system")
    growth = (resident(hospital)["orthanc"] - before) * 1024 / REQUESTS
    print(f"orthanc grows by {growth:.0f} bytes with each of {REQUESTS} requests that pass the filter", flush=True)


def measure(hospital: Hospital) -> None:
    """Print the table; the hospital holds `INSTANCES` more afterwards."""
    version = hospital.orthanc().system()["Version"]
    print(f"memory in MB, Orthanc {version}, {INSTANCES} instances of {ingest.SIZES[EDGE][0]}", flush=True)
    time.sleep(_IDLE_S)
    samples = [resident(hospital)]
    _asked(hospital)
    made = [instances.template(EDGE)]
    for _ in range(LOTS):
        ingest.rate((hospital.environment.ports.dicom,), made, INSTANCES // LOTS, SENDERS)
        ingest.settled(hospital)
        samples.append(resident(hospital))
    heads = ["idle", *(str(INSTANCES // LOTS * lot) for lot in range(1, LOTS + 1)), " bytes an instance, second half"]
    print(f"{'':>12}" + "".join(f"{head:>8}" for head in heads))
    half = LOTS // 2
    for name in samples[0]:
        sizes = [sample.get(name, 0) for sample in samples]
        growth = (sizes[-1] - sizes[-1 - half]) * 1024 / (INSTANCES // LOTS * half)
        print(f"{name:>12}" + "".join(f"{size / 1024:8.0f}" for size in sizes) + f"{growth:8.0f}", flush=True)
    print(f"{'all':>12}" + "".join(f"{sum(sample.values()) / 1024:8.0f}" for sample in samples))
