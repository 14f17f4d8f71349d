"""Instances for measuring: one template, copied with other UIDs of the same length, so that making them is cheap."""

from __future__ import annotations

import io
import itertools
import uuid
from pathlib import Path

from demo import images

_STUDY, _SERIES, _INSTANCE = (f"2.25.{digit * 34}" for digit in "345")


def template(edge: int, **tags: str) -> bytes:
    """A CT slice of `edge` x `edge` pixels of 16 bit, with placeholders for its UIDs; `tags` by keyword."""
    dataset = images.sample("CT_small.dcm")
    dataset.Rows = dataset.Columns = edge
    dataset.PixelData = bytes(range(256)) * (edge * edge * 2 // 256)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = _STUDY, _SERIES, _INSTANCE
    dataset.file_meta.MediaStorageSOPInstanceUID = _INSTANCE
    dataset.PatientID = "BENCH"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def write(made: bytes, count: int, folder: Path, a_study: int = 100) -> list[str]:
    """`count` files of studies with `a_study` instances each, never seen before; their SOP Instance UIDs."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count(uuid.uuid4().int % 10**33)
    uids, study, series = [], "", ""
    for number in range(count):
        if number % a_study == 0:
            study, series = _uid(next(numbers)), _uid(next(numbers))
        instance = _uid(next(numbers))
        content = made.replace(_STUDY.encode(), study.encode()).replace(_SERIES.encode(), series.encode())
        (folder / f"{number:05}.dcm").write_bytes(content.replace(_INSTANCE.encode(), instance.encode()))
        uids.append(instance)
    return uids


def _uid(number: int) -> str:
    return f"2.25.{number % 10**33 + 10**33:034}"[: len(_STUDY)]
