"""Routing: instances a second to a local receiver, by a delivery of ours and by Orthanc's own store job, in turn.

The receiver is dcmtk's storescp, which throws away what it gets. A delivery is claimed, sent, and settled in the
database with its audit entry; Orthanc's job is started and waited for, and does nothing else. Beside them, without
anything to be held against, the gateway's own associations and its transcoding.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from demo.neighbours import free_port
from gateway import ways
from gateway.commitments_asked import Commitments
from gateway.deliveries import DicomSender
from tests.bench import instances
from tests.integration.archive_fixture import Archive
from zambezi import clock, outbox
from zambezi.bandwidth import Line
from zambezi.config.safety import Modality
from zambezi.config.settings import Destination, Site
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Delivery
from zambezi.database.upgrade import upgrade

#: Edge of a CT slice in pixels: what it is called, how many a study has.
SIZES = {512: ("512 KB", 400), 128: ("32 KB", 1600)}
ROUNDS = 5
NAME = "STO"
WAYS = {
    "a delivery": Destination(proof="acknowledged"),
    "by our own association": Destination(proof="acknowledged", aet="ZAMBEZI_OUT"),
    "as JPEG-LS": Destination(proof="acknowledged", transcode="jpeg-ls"),
}


class Bench:
    """An archive with one study, its database, and a receiver."""

    def __init__(self, archive: Archive, made: Sessions, port: int) -> None:
        self._archive = archive
        self._made = made
        self._there = ways.Neighbourhood(
            {NAME: Modality(NAME, NAME, "127.0.0.1", port)}, {}, Site(), "ZAMBEZI", archive.home
        )
        self._instances: list[list[str]] = []
        self._number = 0

    def store(self, edge: int, count: int) -> None:
        """A study of so many slices."""
        client = self._archive.as_service("migration")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            instances.write(instances.template(edge), count, Path(folder))
            ids = [client.store(file.read_bytes())["ID"] for file in sorted(Path(folder).iterdir())]
        self._instances = [[id, "1.2.3", f"1.2.3.{n}"] for n, id in enumerate(ids)]

    def job(self) -> float:
        """Orthanc's own store job with all of them; instances a second."""
        client = self._archive.as_service()
        begun = time.perf_counter()
        job = client.start_store(NAME, [one[0] for one in self._instances])
        while (state := client.job(job)["State"]) not in ("Success", "Failure"):
            time.sleep(0.02)
        if state != "Success":
            raise RuntimeError("Orthanc's job failed")
        return len(self._instances) / (time.perf_counter() - begun)

    def delivery(self, destination: Destination) -> float:
        """A delivery of ours with all of them; instances a second."""
        self._number += 1
        id = f"bench{self._number}"
        with self._made.begin() as session:
            outbox.add(
                session, id=id, kind="dicom", rule="bench", destination=NAME, because="bench", now=clock.now(),
                writer="gateway", study_uid="1.2", instances=self._instances,
            )  # fmt: skip
        stop = threading.Event()
        commitments = Commitments(self._made, self._there.modalities)
        courier = ways.courier(
            self._made, self._archive.as_service(), NAME, destination, self._there, commitments, Line(), stop
        )
        sender = DicomSender(self._made, courier, NAME, destination, Site(), "bench:1/run", stop)
        begun = time.perf_counter()
        sender.deliver_one()
        took = time.perf_counter() - begun
        with self._made.begin() as session:
            row = session.get_one(Delivery, id)
            if row.state != "delivered":
                raise RuntimeError(f"the delivery is {row.state}: {row.outcome}")
        return len(self._instances) / took


def measure() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home").mkdir()
        port = free_port()
        archive = Archive(folder / "home")
        peers = archive.environment.orthanc_config_dir / "40-peers.json"
        peers.write_text(f'{{"DicomModalities": {{"{NAME}": ["{NAME}", "127.0.0.1", {port}]}}}}')
        receiver = subprocess.Popen(["storescp", "--fork", "+xa", "--ignore", str(port)], env={"TCP_NODELAY": "1"})
        engine = connect(archive.environment.database_url, "bench")
        upgrade(engine)
        archive.start()
        try:
            bench = Bench(archive, sessions(engine, "bench"), port)
            print(f"routing, {ROUNDS} interleaved rounds, Orthanc {archive.as_service().system()['Version']}")
            for edge, (label, count) in SIZES.items():
                bench.store(edge, count)
                _table(label, {"Orthanc's own job": bench.job, **{
                    way: lambda destination=destination: bench.delivery(destination)
                    for way, destination in WAYS.items()
                }})  # fmt: skip
        finally:
            archive.stop()
            receiver.terminate()
            receiver.wait()
            engine.dispose()


def _table(label: str, runs: dict[str, Callable[[], float]]) -> None:
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + 1):
        order = list(runs)[number % len(runs) :] + list(runs)[: number % len(runs)]
        found = {way: runs[way]() for way in order}
        if number:  # the first round only warms up
            rounds.append(found)
    them, *ours = runs
    print(f"{label:>7}: {them} {statistics.median(one[them] for one in rounds):.0f}/s", end="")
    for way in ours:
        ratios = [one[way] / one[them] for one in rounds]
        rate = statistics.median(one[way] for one in rounds)
        print(
            f"; {way} {rate:.0f}/s, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            end="",
        )
    print(flush=True)
