"""An image that was replaced is shown as the archive has it now, by the web viewer, too, which keeps pictures."""

from __future__ import annotations

from io import BytesIO

from pydicom import Dataset
from sqlalchemy import select

from demo.hospital import Hospital
from tests import invariants
from tests.senders import Sender, small_study
from zambezi import keys, viewer_cache
from zambezi.database.tables import AuditEntry
from zambezi.orthanc_client import OrthancClient


def test_the_web_viewer_shows_the_pixels_that_the_archive_has_now(hospital: Hospital) -> None:
    (one,) = small_study("PICTURES", 1)
    Sender(hospital.environment.ports.dicom).send([one])
    environment = hospital.environment
    custody = OrthancClient(environment, keys.load(environment.keys_file), "custody")
    (there,) = custody.find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})
    reader = hospital.person("radiologista")
    names = [f"/web-viewer/instances/{form}-{there}_0" for form in ("jpeg95", "deflate")]
    before = [reader.get(name).json()["Orthanc"]["PixelData"] for name in names]

    invariants.eventually("its arrival is on record", lambda: _unrecorded(hospital, "stored", one))
    custody.request("DELETE", f"/instances/{there}")
    invariants.eventually("its deletion is on record", lambda: _unrecorded(hospital, "deleted", one))
    one.PixelData = bytes(255 - byte for byte in one.PixelData)
    content = BytesIO()
    one.save_as(content, enforce_file_format=True)
    assert custody.store(content.getvalue())["ID"] == there

    def old_ones() -> list[str]:
        now = [reader.get(name).json()["Orthanc"]["PixelData"] for name in names]
        return [name for name, was, is_now in zip(names, before, now, strict=True) if was == is_now]

    invariants.eventually("the viewer shows the new pixels", old_ones, 10)

    # Deleted, gone from the viewer's cache, and restored: the viewer's list still names what is gone.
    custody.request("DELETE", f"/instances/{there}")
    folder = environment.orthanc_dir / "viewer-cache"

    def kept() -> list[str]:
        files = {file.name for file in folder.glob("??/??/*")}
        return [file for file, what in viewer_cache.listed(folder).items() if file in files and what == there]

    invariants.eventually("its pictures are gone", kept, 30)
    custody.store(content.getvalue())
    assert reader.get(names[0]).json()["Orthanc"]["PixelData"]
    series = custody.get(f"/instances/{there}")["ParentSeries"]
    assert reader.get(f"/web-viewer/series/{series}").json()["Slices"] == [f"{there}_0"]


def _unrecorded(hospital: Hospital, event: str, one: Dataset) -> str:
    with hospital.database().begin() as session:
        found = session.scalars(
            select(AuditEntry.seq).where(AuditEntry.event == event, AuditEntry.study_uid == one.StudyInstanceUID)
        ).first()
    return "" if found else f"no {event} entry"
