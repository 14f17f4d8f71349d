"""An archive whose disk gets full: refused in time, going on by itself, and true to what it said when it is full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.integration.archive_fixture import Archive, image, until, written
from tests.small_disk import as_root, fill, small_disk
from zambezi.disk import GIGABYTE
from zambezi.orthanc_client import OrthancRefused

MEGABYTE = 2**20
A700 = 0xA700


def marks(refuse: float, percent: float = 100) -> dict[str, object]:
    """One watermark for all, in gigabytes and percent."""
    return {"Disk": {name: {"Gigabytes": refuse, "Percent": percent} for name in ("Warn", "StopMigration", "Refuse")}}


def take(archive: Archive, rules: dict[str, object]) -> None:
    """A reload of the configuration, as `zambezi config reload` does it."""
    archive.configure(rules)
    assert archive.post("/zambezi/reload", {}, "operations").status_code == 200


def level(archive: Archive) -> str:
    return str(archive.get("/zambezi/status").json()["disk"]["level"])


def recorded(archive: Archive, one: Dataset) -> str:
    """Its Orthanc id, once the journal has it."""
    found = until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID))
    return str(found[0]["orthanc_id"])


def stored_by(archive: Archive, service: str, one: Dataset) -> int:
    """The status of a service's answer: 200, or that of its refusal."""
    try:
        archive.as_service(service).store(written(one))
    except OrthancRefused as refused:
        return refused.status
    return 200


def test_modalities_are_refused_while_there_is_no_room_and_all_else_goes_on_and_so_do_they_without_a_restart(
    tmp_path: Path,
):
    """By marks that this machine's disk doesn't reach, brought by a reload: the figures are real."""
    archive = Archive(tmp_path, marks(0)).start()
    first, late, second = image(), image(), image()
    assert archive.send(first) == [0]
    until(lambda: "CT1" in archive.get("/zambezi/status").json()["seen"])
    free = shutil.disk_usage(tmp_path).free / GIGABYTE
    total = shutil.disk_usage(tmp_path).total / GIGABYTE
    take(archive, marks(min(free * 1.3, total)))
    until(lambda: level(archive) == "full")
    assert archive.send(late) == [A700], "out of resources: the modality keeps it"
    assert stored_by(archive, "migration", late) == 507
    assert stored_by(archive, "custody", second) == 200, "what a person decides has room"
    # Journal and deletions go on, and what was refused is on record.
    assert archive.as_service("custody").request("DELETE", f"/instances/{recorded(archive, first)}").ok
    until(lambda: archive.events("deleted", noticed="seen"))
    (told,) = until(lambda: archive.events("refused", who="DICOM"))
    assert (told["reason"], told["method"]) == ("no room: the disk is full", "C-STORE")
    take(archive, marks(total * 3))
    until(lambda: level(archive) == "spent")
    assert stored_by(archive, "custody", image()) == 507
    assert archive.events("stored", sop_uid=late.SOPInstanceUID) == []
    take(archive, marks(0))
    until(lambda: level(archive) == "plenty")
    assert archive.send(late) == [0]
    recorded(archive, late)
    assert [one["level"] for one in archive.events("disk-changed")] == ["full", "spent", "plenty"]
    archive.leave()


def slices(count: int) -> list[Dataset]:
    """Images of a megabyte, of one study."""
    study = generate_uid()
    return [image(study, Rows=1024, Columns=1024, PixelData=os.urandom(1024 * 1024)) for _ in range(count)]


@as_root
def test_a_real_small_disk_keeps_its_reserve_and_one_that_is_full_loses_and_lies_about_nothing(tmp_path: Path):
    home = tmp_path / "home"
    with small_disk(home, 96):
        archive = Archive(home, marks(1, percent=30)).start()
        try:
            _keeps_its_reserve(archive)
            _is_full_in_spite_of_it(archive)
            archive.stop()
        finally:
            if archive.process and archive.process.poll() is None:
                archive.kill()


def _keeps_its_reserve(archive: Archive) -> None:
    sent = slices(75)
    statuses = archive.send(*sent)
    assert set(statuses) == {0, A700}
    least = shutil.disk_usage(archive.home).total * 0.3
    assert shutil.disk_usage(archive.home).free > least - 2 * MEGABYTE, "a fast sender doesn't outrun the measuring"
    taken = {one.SOPInstanceUID: one for one, status in zip(sent, statuses, strict=True) if status == 0}
    known = until(lambda: (e := archive.events("stored")) and len(e) == len(taken) and e)
    rest = archive.as_service("custody")
    assert all(taken[one["sop_uid"]].PixelData in rest.file(one["orthanc_id"]) for one in known)
    for one in known[: len(known) // 2]:
        rest.request("DELETE", f"/instances/{one['orthanc_id']}")
    until(lambda: level(archive) == "plenty")
    again = image()
    assert archive.send(again) == [0], "by itself"
    recorded(archive, again)


def _is_full_in_spite_of_it(archive: Archive) -> None:
    """Without marks, and somebody else fills the disk to the last byte, with the journal and the index on it."""
    take(archive, marks(0))
    until(lambda: level(archive) == "plenty")
    (doomed,) = archive.events("stored")[-1:]
    filler = fill(archive.home / "filler")
    late = image()
    assert archive.send(late) == [A700]
    assert stored_by(archive, "custody", late) == 507
    assert archive.get("/studies").status_code == 200, "it answers, and shows what it has"
    filler.unlink()
    # It goes on by itself, and what could not be written is on record now.
    until(lambda: level(archive) == "plenty")
    assert archive.send(late) == [0]
    assert late.PixelData in archive.as_service().file(recorded(archive, late))
    until(lambda: archive.events("refused", reason="no room: the disk is spent"))
    assert archive.as_service("custody").request("DELETE", f"/instances/{doomed['orthanc_id']}").ok
    until(lambda: archive.events("deleted", noticed="seen"))
    assert archive.events("incident") == []
