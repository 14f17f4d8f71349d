"""Migration: ours beside orthanc-tools and bare movescu, the same data between the same Orthancs, round by round.

The ceiling of a DICOM source is bare movescu with as many associations; that of a source that hands over bytes is
Orthanc's own ingest of the same files by REST. All bring into the archive of a whole installation, whose journal and
audit all of them pay; "as shipped" the others bring into Debian's Orthanc as it is. Ours is measured from when the
first study is asked for to the last one's verdict, at the level of proof that is said, and fails unless every study is
verified; its inventory, which comes before, is named beside it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.hospital import Hospital, wait_for
from tests.bench import instances, migration_movers, migration_score
from tests.bench.migration_movers import Goal, Ours, Took, Tools, our_goal, took
from tests.bench.migration_places import AET, AT_ONCE, NAME, PASSWORD, USER, Meter, Plain, a_folder
from tests.running import a_hospital
from zambezi.environment import Environment

#: Edge of a CT slice in pixels: what it is called, how many a run moves, how many a study has.
SIZES = {512: ("512 KB", 400, 25), 128: ("32 KB", 1200, 50)}
ROUNDS = 2
#: Bytes a second of the line in between, where one is.
LINE = 12.5e6
#: A run at factory settings moves so many: it is slow.
SHIPPED = 50


@dataclass(frozen=True)
class Lot:
    """What one run moves."""

    files: list[Path]
    studies: list[str]
    folder: Path

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Figures:
    """What one run gave; processor time is by thousand instances."""

    rate: float
    megabytes: float
    mover: float
    archive: float
    inventory: float | None


#: Moves it all; how long that took.
Mover = Callable[[Lot], Took]


class Room:
    """The old archive, a whole installation, orthanc-tools, and a folder whose files are migrated, too."""

    def __init__(self, hospital: Hospital, folder: Path, source: Plain, files: Path) -> None:
        self.hospital, self.folder, self.source, self.files = hospital, folder, source, files
        self.tools = Tools.install(folder / "tools")
        self.goal = our_goal(hospital)
        self.stock = Plain(folder / "stock", "STOCK", {"DicomModalities": _old(source.dicom_port)}, {})
        source.start(**self.best)

    @property
    def best(self) -> dict[str, object]:
        """How the old archive is set up at its best, and what it knows of ours."""
        return {"HttpCompressionEnabled": False, "DicomThreadsCount": 2 * AT_ONCE, **self.neighbours}

    @property
    def neighbours(self) -> dict[str, object]:
        ports = self.hospital.environment.ports
        return {
            "DicomModalities": {
                "ours": ["ZAMBEZI", "127.0.0.1", ports.dicom], "stock": ["STOCK", "127.0.0.1", self.stock.dicom_port],
            },
            "OrthancPeers": {"ours": [f"http://127.0.0.1:{self.goal.port}", self.goal.user, self.goal.password]},
        }  # fmt: skip

    def lot(self, edge: int, count: int, a_study: int) -> Lot:
        """Studies that were never seen before: in the old archive, and as files."""
        for old in self.files.iterdir():
            old.unlink()
        instances.write(instances.template(edge), count, self.files, a_study)
        files = sorted(self.files.iterdir())
        self.source.fill(files)
        studies = [self.source.ask("GET", f"/studies/{one}") for one in self.source.ask("GET", "/studies")]
        return Lot(files, sorted(one["MainDicomTags"]["StudyInstanceUID"] for one in studies), self.folder)

    def run(self, mover: Mover, lot: Lot) -> Figures:
        """Let somebody move it all."""
        before = migration_movers.archive_busy(self.hospital)
        there = self.count()
        done = mover(lot)
        arrived = self.count() - there
        if arrived != len(lot.files):
            raise RuntimeError(f"{arrived} of {len(lot.files)} instances arrived")
        self.settled()
        used = migration_movers.archive_busy(self.hospital) - (done.archive if isinstance(done, Ours) else before)
        thousands = len(lot.files) / 1000
        inventory = done.inventory if isinstance(done, Ours) else None
        return Figures(
            len(lot.files) / done.seconds, lot.size / 1e6 / done.seconds, done.busy / thousands, used / thousands,
            inventory,
        )  # fmt: skip

    def settled(self) -> None:
        """Wait until the journal has caught up, so that no run pays for the one before."""
        orthanc = self.hospital.orthanc()
        last = orthanc.get("/changes", last="")["Last"]
        wait_for("the journal", lambda: orthanc.get("/zambezi/status")["follower"]["change"] >= last, 120)

    def count(self) -> int:
        return int(self.hospital.orthanc().get("/statistics")["CountInstances"])

    def ours(self, source: str, level: str) -> Mover:
        return lambda lot: migration_movers.ours(self.hospital, source, level)

    def movescu(self, lot: Lot) -> Took:
        return migration_movers.movescu(self.source, "ZAMBEZI", lot.studies, lot.folder)

    def pacs_migrator(self, lot: Lot) -> Took:
        return took(self.tools.pacs_migrator(self.goal, threads=AT_ONCE))

    def post(self, lot: Lot) -> Took:
        return migration_movers.post(self.goal, lot.files)

    def cloner(self, lot: Lot) -> Took:
        return took(self.tools.cloner(self.source, self.goal, threads=AT_ONCE))

    def cloner_peering(self, lot: Lot) -> Took:
        return took(self.tools.cloner(self.source, self.goal, threads=AT_ONCE, peer="ours"))


def contenders(room: Room) -> dict[str, dict[str, Mover]]:
    """Who is held against which ceiling: the first of each is the ceiling."""
    return {
        f"C-MOVE, {AT_ONCE} associations": {
            "movescu (the ceiling)": room.movescu,
            "ours, levels 1 and 2": room.ours("DICOM", "arrival"),
            "ours, level 3 by a second retrieve": room.ours("DICOM", "source"),
            "orthanc-tools PacsMigrator": room.pacs_migrator,
        },
        f"bytes over HTTP or from files, {AT_ONCE} at once": {
            "POST of the files (the ceiling)": room.post,
            "ours from Orthanc, level 3": room.ours("ORTHANC", "source"),
            "ours from a folder, level 3": room.ours("FOLDER", "source"),
            "orthanc-tools OrthancCloner": room.cloner,
            "orthanc-tools OrthancCloner, peering": room.cloner_peering,
        },
    }


def table(room: Room, edge: int, heading: str, movers: Mapping[str, Mover], is_first: bool = False) -> None:
    """Print who moves how fast, the ceiling first; `is_first`: before that everybody warms up."""
    label, count, a_study = SIZES[edge]
    names = list(movers)
    rounds: list[dict[str, Figures]] = []
    for number in range(0 if is_first else 1, ROUNDS + 1):
        size = count if number else 4 * a_study  # caches are filled, and ours learns how much a source bears
        order = names[number % len(names) :] + names[: number % len(names)]
        found = {name: room.run(movers[name], room.lot(edge, size, a_study)) for name in order}
        if number:
            rounds.append(found)
    print(f"\n{label}, {count} instances in studies of {a_study}, {heading}, {ROUNDS} interleaved rounds")
    print(f"{'':36}{'inst/s':>8}{'MB/s':>7}{'share of the ceiling':>24}{'CPU s of 1000: mover, archive':>33}")
    for name in names:
        of_it = [one[name] for one in rounds]
        shares = [one[name].rate / one[names[0]].rate for one in rounds]
        share = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        print(
            f"{name:36}{_median(of_it, 'rate'):8.0f}{_median(of_it, 'megabytes'):7.0f}{share:>24}"
            f"{_median(of_it, 'mover'):25.2f}{_median(of_it, 'archive'):8.2f}"
            + (f"  (inventory before: {_median(of_it, 'inventory'):.1f} s)" if of_it[0].inventory else ""),
            flush=True,
        )


def lined(room: Room) -> None:
    """Print the same where a line is what limits, as between two buildings: source and archive have time to spare."""
    meter = Meter(room.hospital.environment.ports.dicom, LINE)
    room.source.send_by(meter.port)
    movers: dict[str, Mover] = {
        "movescu (the ceiling)": room.movescu,
        "ours, levels 1 and 2": room.ours("DICOM", "arrival"),
        "orthanc-tools PacsMigrator": room.pacs_migrator,
    }
    table(room, 512, f"C-MOVE, {AT_ONCE} associations over a line of {LINE * 8 / 1e6:.0f} Mbit/s", movers)
    room.source.send_by(room.hospital.environment.ports.dicom)
    meter.close()


def _median(figures: list[Figures], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in figures))


def shipped(room: Room) -> None:
    """Print the same at factory settings: everybody one at a time, Debian's environment, compression of HTTP on."""
    room.source.stop()
    room.source.start(**room.neighbours)
    room.stock.start()
    stock = Goal(room.stock.http_port, USER, PASSWORD)
    movers: dict[str, Mover] = {
        "movescu": lambda lot: migration_movers.movescu(room.source, "STOCK", lot.studies, lot.folder, 1),
        "orthanc-tools PacsMigrator": lambda lot: took(room.tools.pacs_migrator(stock, threads=1)),
        "orthanc-tools OrthancCloner": lambda lot: took(room.tools.cloner(room.source, stock, threads=1)),
        "ours, levels 1 and 2": room.ours("SHIPPED", "arrival"),
    }
    for edge, (label, _, a_study) in SIZES.items():
        print(f"\n{label}, {SHIPPED} instances, everybody as shipped")
        for name, mover in movers.items():
            done = mover(room.lot(edge, SHIPPED, a_study))
            print(f"{name:36}{SHIPPED / done.seconds:8.0f}", flush=True)
    room.stock.stop()
    room.source.stop()
    room.source.start(**room.best)


def _old(port: int) -> dict[str, object]:
    return {NAME: [AET, "127.0.0.1", port]}


def _configure(environment: Environment, source: Plain, files: Path) -> None:
    """Make the old archive and the folder known to the installation."""
    folder = environment.config_dir
    peers = {"AET": AET, "Host": "127.0.0.1", "Port": source.dicom_port, "AllowStore": True, "AllowEcho": True}
    closed = dict.fromkeys(("AllowFind", "AllowGet", "AllowMove", "AllowFindWorklist"), False)
    _insert(folder / "40-peers.json", '"DicomModalities": {', {NAME: {**peers, **closed}})
    where = {"Url": f"http://127.0.0.1:{source.http_port}", "Username": USER, "Password": PASSWORD}
    (folder / "50-bench.json").write_text(json.dumps({"OrthancPeers": {NAME: where}}))
    soon: dict[str, object] = {"RetrySeconds": 0.2, "RetryCapSeconds": 1}
    sources: dict[str, dict[str, object]] = {
        "DICOM": {"Peer": NAME, "Ceiling": AT_ONCE, **soon},
        "SHIPPED": {"Peer": NAME},
        "ORTHANC": {"Kind": "orthanc", "Peer": NAME, "Ceiling": 2, **soon},
        "FOLDER": {"Kind": "folder", "Folder": str(files), "Ceiling": 2, **soon},
    }
    _insert(folder / "30-zambezi.json", '"Sources": {', sources)


def _insert(file: Path, place: str, entries: Mapping[str, Mapping[str, object]]) -> None:
    text = file.read_text()
    if place not in text:
        raise RuntimeError(f"{file.name} has no {place}")
    file.write_text(text.replace(place, place + json.dumps(entries)[1:-1] + ",", 1))


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name, a_folder("migrated") as files:
        folder = Path(name)
        source = Plain(folder / "source", AET, {}, {"TCP_NODELAY": "1"})
        with a_hospital(quiet_seconds=600, before=lambda environment: _configure(environment, source, files)) as there:
            room = Room(there, folder, source, files)
            try:
                print(f"migration, Orthanc {there.orthanc().system()['Version']}", flush=True)
                for number, edge in enumerate(SIZES):
                    for heading, movers in contenders(room).items():
                        table(room, edge, heading, movers, is_first=number == 0)
                lined(room)
                shipped(room)
                migration_score.score(room)
            finally:
                for one in (room.stock, source):
                    one.stop()
