"""Each volume for status and health page: how full it is, at which marks something happens, and what happens now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zambezi import disk
from zambezi.config.settings import Disk
from zambezi.disk import Volume, gigabytes

#: What a level means for those who use the archive, for a terminal.
MEANS = {
    "plenty": "", "low": "it is getting full", "scarce": "migration has stopped",
    "full": "modalities and migrations are refused", "spent": "nothing is stored",
}  # fmt: skip


@dataclass(frozen=True)
class VolumeState:
    """One volume: what lies on it, bytes, level; `marks` are the free bytes at which a person is warned, migration
    stops, and modalities are refused."""

    roles: tuple[str, ...]
    total: int
    free: int
    level: str
    marks: tuple[int, int, int]
    fault: str = ""

    @property
    def is_well(self) -> bool:
        return self.level in ("plenty", "low")

    @property
    def free_gigabytes(self) -> str:
        return gigabytes(self.free)

    @property
    def total_gigabytes(self) -> str:
        return gigabytes(self.total)

    def place(self, size: int) -> float:
        """Where so many free bytes stand on a bar of width 100 that fills from the left."""
        return round(100 - 100 * size / self.total, 2) if self.total else 100.0

    @property
    def line(self) -> str:
        """For a terminal."""
        means = MEANS[self.level]
        found = f"{self.free_gigabytes} of {self.total_gigabytes} GB free ({', '.join(self.roles)})"
        return f"disk: {self.fault or found}{': ' + means if means else ''}"


def states(volumes: Sequence[Volume], archive: Mapping[str, Any], marks: Disk) -> list[VolumeState]:
    """The volumes as they are, with the levels that the archive acts on, where it says them."""
    acts: dict[str, str] = {
        ", ".join(one["roles"]): str(one["level"]) for one in archive.get("disk", {}).get("volumes", [])
    }
    room = disk.decide(volumes, acts, marks)
    return [
        VolumeState(
            one.volume.roles, one.volume.total, one.volume.free, one.level,
            _marks(one.volume, marks),
            one.reason if one.volume.fault else "",
        )
        for one in room.volumes
    ]  # fmt: skip


def _marks(volume: Volume, marks: Disk) -> tuple[int, int, int]:
    warn, stop, refuse = (disk.threshold(volume, one) for one in (marks.warn, marks.stop_migration, marks.refuse))
    return warn, stop, refuse
