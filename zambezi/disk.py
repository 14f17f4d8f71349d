"""How much room the disks have, and what that allows: measured volume by volume, decided purely. Standard library only.

    plenty   nothing is the matter
    low      a person is warned
    scarce   migration stops; modalities store
    full     modalities and migrations are refused; what persons decide (corrections, releases, reports) is stored
    spent    nothing is stored at all: what is left is for database, index and journal

A volume that got worse is well again only with some room to spare, so that it doesn't go to and fro.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zambezi.environment import Environment

LEVELS = ("plenty", "low", "scarce", "full", "spent")
#: To be better again, a volume needs so many times the room below which it got worse.
AGAIN = 1.25
#: `spent` begins at this share of the room at which modalities are refused.
SPENT = 0.5
#: With less, nothing is stored, whatever the configuration says. On a disk without any room Orthanc 1.10.1 left files
#: of 0 bytes for small images, and in one of two runs answered Success to one: it must never come to that.
LEAST = 32 * 2**20
#: An image is a file: where files (inodes) run out first, so many are as much as a gigabyte.
FILES_PER_GIGABYTE = 2000
GIGABYTE = 2**30
#: A look that is not older is believed.
LOOK_S = 2.0


class Mark(Protocol):
    """Below so much free room: of gigabytes and percent of the volume the smaller one."""

    @property
    def gigabytes(self) -> float: ...
    @property
    def percent(self) -> float: ...


class Marks(Protocol):
    """zambezi.config.settings.Disk."""

    @property
    def warn(self) -> Mark: ...
    @property
    def stop_migration(self) -> Mark: ...
    @property
    def refuse(self) -> Mark: ...


@dataclass(frozen=True)
class Volume:
    """A file system and what lies on it: bytes in all and free for us; files likewise (0 in all: not counted).

    `fault` says why it could not be measured ("" where it was).
    """

    roles: tuple[str, ...]
    total: int = 0
    free: int = 0
    files: int = 0
    files_free: int = 0
    fault: str = ""

    @property
    def name(self) -> str:
        return ", ".join(self.roles)


@dataclass(frozen=True)
class Judged:
    """A volume, its level, and why in a sentence."""

    volume: Volume
    level: str
    reason: str


@dataclass(frozen=True)
class Room:
    """What all volumes together allow: the worst level, its reason, and each of them."""

    level: str = "plenty"
    reason: str = ""
    volumes: tuple[Judged, ...] = ()

    @property
    def levels(self) -> dict[str, str]:
        """The level of each volume, by its name: what the next decision is told as `before`."""
        return {one.volume.name: one.level for one in self.volumes}

    def is_at_least(self, level: str) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(level)


def decide(volumes: Sequence[Volume], before: Mapping[str, str], marks: Marks) -> Room:
    """What the volumes allow now; `before` has each one's last level by its name."""
    judged = tuple(_judge(one, before.get(one.name, "plenty"), marks) for one in volumes)
    worst = max(judged, key=lambda one: LEVELS.index(one.level), default=None)
    if worst is None or worst.level == "plenty":
        return Room(volumes=judged)
    return Room(worst.level, worst.reason, judged)


def _judge(volume: Volume, before: str, marks: Marks) -> Judged:
    if volume.fault:
        return Judged(volume, "full", f"{volume.name}: the disk can't be measured ({volume.fault})")
    room = {"low": marks.warn, "scarce": marks.stop_migration, "full": marks.refuse}
    share = {level: _share(volume, mark) for level, mark in room.items()}
    share["spent"] = share["full"] / SPENT
    level = "plenty"
    for one in LEVELS[1:]:
        was_worse = LEVELS.index(before) >= LEVELS.index(one)
        if share[one] < (AGAIN if was_worse else 1):
            level = one
    if volume.free < LEAST * (AGAIN if before == "spent" else 1):
        level = "spent"
    return Judged(volume, level, "" if level == "plenty" else f"{volume.name}: {_figures(volume)}")


def _share(volume: Volume, mark: Mark) -> float:
    """How many times the mark's room is free (below 1: less than it wants); of bytes and files the worse."""
    shares = [float("inf")]
    wanted = threshold(volume, mark)
    if wanted:
        shares.append(volume.free / wanted)
    files = min(mark.gigabytes * FILES_PER_GIGABYTE, volume.files * mark.percent / 100)
    if files:
        shares.append(volume.files_free / files)
    return min(shares)


def threshold(volume: Volume, mark: Mark) -> int:
    """The bytes that a mark wants to be free on this volume."""
    return int(min(mark.gigabytes * GIGABYTE, volume.total * mark.percent / 100))


def _figures(volume: Volume) -> str:
    said = f"{gigabytes(volume.free)} GB of {gigabytes(volume.total)} GB are free"
    return f"{said}, {volume.files_free} of {volume.files} files" if volume.files else said


def gigabytes(size: int) -> str:
    """Bytes as gigabytes for a person: 1234, 12.3, 0.05."""
    found = size / GIGABYTE
    return f"{found:.0f}" if found >= 100 else f"{found:.1f}" if found >= 1 else f"{found:.2f}"


def folders(environment: Environment) -> list[tuple[str, Path]]:
    """What must have room, and where it lies. A PostgreSQL database watches its own disk."""
    found = [
        ("images", environment.storage_dir), ("index", environment.index_dir), ("journal", environment.plugin_dir),
        ("hold", environment.hold_dir), ("home", environment.home),
    ]  # fmt: skip
    scheme, _, file = environment.database_url.partition(":///")
    return [*found, ("database", Path(file).parent)] if scheme == "sqlite" else found


Stat = Callable[[Path], Any]


def measure(
    places: Iterable[tuple[str, Path]], stat: Stat = os.stat, statvfs: Stat = os.statvfs
) -> list[Volume]:  # fmt: skip
    """Each file system once, with all that lies on it, in the order of the places."""
    devices: dict[int, Path] = {}
    roles: dict[int, list[str]] = {}
    failed: list[Volume] = []
    for role, folder in places:
        there = next(one for one in (folder, *folder.parents) if one.exists() or one == one.parent)
        try:
            device = int(stat(there).st_dev)
        except OSError as error:
            failed.append(Volume((role,), fault=error.strerror or type(error).__name__))
            continue
        devices.setdefault(device, there)
        roles.setdefault(device, []).append(role)
    return [_measured(tuple(roles[device]), there, statvfs) for device, there in devices.items()] + failed


def _measured(roles: tuple[str, ...], folder: Path, statvfs: Stat) -> Volume:
    try:
        found = statvfs(folder)
    except OSError as error:
        return Volume(roles, fault=error.strerror or type(error).__name__)
    size = found.f_frsize
    return Volume(roles, found.f_blocks * size, found.f_bavail * size, found.f_files, found.f_favail)


class Gauge:
    """The room on an installation's volumes, measured anew when the last look is old; for the threads of a process."""

    def __init__(
        self, marks: Marks, measured: Callable[[], Sequence[Volume]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._marks = marks
        self._measured = measured
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._room = Room()

    @classmethod
    def of(cls, environment: Environment, marks: Marks) -> Gauge:
        """The gauge of this installation."""
        places = folders(environment)
        return cls(marks, lambda: measure(places))

    def look(self) -> Room:
        """What there is room for now."""
        with self._lock:
            if self._monotonic() - self._at >= LOOK_S:
                self._room = decide(self._measured(), self._room.levels, self._marks)
                self._at = self._monotonic()
            return self._room
