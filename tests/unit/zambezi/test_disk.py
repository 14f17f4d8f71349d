"""Room on disks: what a volume allows, that it doesn't go to and fro, and that each disk is measured once."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zambezi import disk
from zambezi.config.settings import Disk, Watermark, Zambezi
from zambezi.disk import GIGABYTE, Volume

MARKS = Disk()


def volume(free: float, total: float = 1000, **more: Any) -> Volume:
    return Volume(("images",), int(total * GIGABYTE), int(free * GIGABYTE), **more)


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [
        (20, 1000, "plenty"), (19.9, 1000, "low"), (9.9, 1000, "scarce"), (4.9, 1000, "full"), (2.4, 1000, "spent"),
        # On a small disk the percents are less, and they count.
        (10, 100, "plenty"), (9.9, 100, "low"), (4.9, 100, "scarce"), (1.9, 100, "full"), (0.9, 100, "spent"),
    ],
)  # fmt: skip
def test_the_smaller_of_gigabytes_and_percent_counts(free: float, total: float, level: str):
    assert disk.decide([volume(free, total)], {}, MARKS).level == level


@pytest.mark.parametrize(
    ("before", "free", "level"),
    [("full", 5.1, "full"), ("full", 6.2, "full"), ("full", 6.3, "scarce"), ("spent", 3.0, "spent"),
     ("spent", 3.2, "full"), ("low", 24, "low"), ("low", 25.1, "plenty"), ("plenty", 20.1, "plenty")],
)  # fmt: skip
def test_it_is_better_again_only_with_room_to_spare(before: str, free: float, level: str):
    assert disk.decide([volume(free)], {"images": before}, MARKS).level == level


def test_without_any_room_nothing_is_stored_whatever_the_marks_say():
    none = Watermark(gigabytes=0, percent=0)
    off = Disk(warn=none, stop_migration=none, refuse=none)
    assert disk.decide([volume(0.1)], {}, off).level == "plenty"
    assert disk.decide([volume(0.03)], {}, off).level == "spent"


def test_the_worst_volume_decides_and_is_named():
    small = Volume(("journal", "database"), 10 * GIGABYTE, GIGABYTE // 10)
    found = disk.decide([volume(500), small], {}, MARKS)
    assert (found.level, found.reason) == ("full", "journal, database: 0.10 GB of 10.0 GB are free")
    assert found.levels == {"images": "plenty", "journal, database": "full"}


def test_files_that_run_out_are_no_room_although_bytes_are_left():
    assert disk.decide([volume(500, files=60_000_000, files_free=9000)], {}, MARKS).level == "full"
    assert disk.decide([volume(500, files=60_000_000, files_free=60_000)], {}, MARKS).level == "plenty"


def test_a_disk_that_can_not_be_measured_is_full():
    found = disk.decide([Volume(("images",), fault="Stale file handle")], {}, MARKS)
    assert (found.level, found.reason) == ("full", "images: the disk can't be measured (Stale file handle)")


def test_what_lies_on_one_file_system_is_one_volume(tmp_path: Path):
    (tmp_path / "a").mkdir()
    places = [("images", tmp_path / "a"), ("index", tmp_path / "b/not/there/yet"), ("hold", Path("/proc"))]
    devices = {tmp_path / "a": 1, tmp_path: 1, Path("/proc"): 2}

    def statvfs(folder: Path) -> Any:
        if folder == Path("/proc"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return SimpleNamespace(f_frsize=4096, f_blocks=1000, f_bfree=300, f_bavail=250, f_files=0, f_favail=0)

    found = disk.measure(places, lambda one: SimpleNamespace(st_dev=devices[one]), statvfs)
    assert found == [
        Volume(("images", "index"), 4_096_000, 1_024_000),
        Volume(("hold",), fault="Stale file handle"),
    ]


def test_marks_out_of_order_are_a_fault():
    with pytest.raises(ValueError, match="Warn wants the most room"):
        Disk(warn=Watermark(gigabytes=1, percent=1))
    assert Zambezi().disk.refuse.gigabytes == 5
