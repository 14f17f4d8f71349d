"""Which files the start-up recovery may remove: those of which Orthanc gives the bytes back from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from operations.recovery import RecoveryFault, ingest
from zambezi import digests
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancRefused

IMAGE = b"\0" * 128 + b"DICM and more"


class Orthanc:
    """It has the image from before, in this file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def store(self, dicom: bytes) -> dict[str, Any]:
        return {"ID": "i1", "Status": "AlreadyStored"}

    def md5(self, orthanc_id: str) -> str:
        return digests.orthanc_md5(IMAGE)

    def file(self, orthanc_id: str) -> bytes:
        if not self._file.exists():
            raise OrthancRefused("GET", f"/instances/{orthanc_id}/file", 404, "")
        return self._file.read_bytes()


def test_the_only_file_of_what_an_index_knows_is_never_removed(tmp_path: Path) -> None:
    """The index lay elsewhere when files and index were compared, and Orthanc has found it."""
    file = tmp_path / "stored"
    file.write_bytes(IMAGE)
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    with pytest.raises(RecoveryFault, match="IndexDirectory"):
        ingest(cast("OrthancClient", Orthanc(file)), environment, file)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [IMAGE]


def test_a_second_file_of_the_same_image_goes(tmp_path: Path) -> None:
    file, other = tmp_path / "again", tmp_path / "stored"
    for one in (file, other):
        one.write_bytes(IMAGE)
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    assert ingest(cast("OrthancClient", Orthanc(other)), environment, file)
    assert list(tmp_path.iterdir()) == [other]
