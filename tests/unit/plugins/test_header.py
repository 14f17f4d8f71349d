"""The header reader against pydicom: on every sample that pydicom brings, as it is and in each encoding."""

from __future__ import annotations

import hashlib
import random
import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_files
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from plugins import header
from plugins.header import HeaderFault

SAMPLES = sorted(Path(name) for name in get_testdata_files() if Path(name).is_file() and name.endswith(".dcm"))
ENCODINGS = (
    (ImplicitVRLittleEndian, True, True),
    (ExplicitVRLittleEndian, False, True),
    (ExplicitVRBigEndian, False, False),
    (DeflatedExplicitVRLittleEndian, False, True),
)


def by_pydicom(content: bytes) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dcmread(BytesIO(content), force=True)
        keywords = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
        return tuple(str(found.get(keyword) or "").strip() for keyword in keywords)


def by_us(content: bytes) -> tuple[str, ...]:
    found = header.read(content)
    return found.sop_uid, found.study_uid, found.series_uid, found.patient_id.strip()


def identified(**tags: object) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.5"
    made.PatientID, made.StudyInstanceUID, made.SeriesInstanceUID = "P1", "1.2.3", "1.2.4"
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def written(made: Dataset, syntax: str, implicit: bool, little: bool, preamble: bool = True) -> bytes:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", "1.2")
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2")
    out = BytesIO()
    if preamble:
        made.save_as(out, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    else:
        del made.file_meta
        made.save_as(out, implicit_vr=implicit, little_endian=little)
    return out.getvalue()


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_every_sample_is_who_pydicom_says_it_is(file: Path) -> None:
    content = file.read_bytes()
    assert by_us(content) == by_pydicom(content)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_every_sample_written_anew_in_each_encoding_is_the_same(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(file, force=True)
        expected = by_pydicom(file.read_bytes())
        for keyword in ("PixelData", "FloatPixelData"):
            if keyword in dataset:
                delattr(dataset, keyword)
        tried = 0
        for syntax, implicit, little in ENCODINGS:
            try:
                content = written(dataset, syntax, implicit, little)
            except (ValueError, TypeError, KeyError, AttributeError, OSError, struct.error):
                continue  # pydicom itself can't write this one so
            tried += 1
            assert by_us(content) == expected, syntax
    assert tried


@pytest.mark.parametrize(("syntax", "implicit", "little"), ENCODINGS[:3])
def test_a_data_set_without_preamble_is_read(syntax: str, implicit: bool, little: bool) -> None:
    content = written(identified(), syntax, implicit, little, preamble=False)
    assert by_us(content) == ("1.2.5", "1.2.3", "1.2.4", "P1")


def test_reading_ends_where_the_identity_is_known() -> None:
    content = written(identified(), *ENCODINGS[1])
    assert header.read(content + b"\x28\x00" + b"nonsense" * 100) == header.read(content)


def test_what_stands_in_the_wrong_order_is_found() -> None:
    content = written(identified(), *ENCODINGS[1])
    series = struct.pack("<HH2sH", 0x20, 0x0E, b"UI", 6) + b"1.2.4\0"
    late = struct.pack("<HH2sH", 0x28, 0x10, b"US", 2) + b"\1\0"
    moved = content.replace(series, b"") + late + series
    assert moved.count(series) == 1
    assert by_us(moved) == by_us(content)


def test_the_id_is_orthancs_sha_1_of_the_identity() -> None:
    digest = hashlib.sha1(b"P1|1.2.3|1.2.4|1.2.5", usedforsecurity=False).hexdigest()
    expected = "-".join(digest[n : n + 8] for n in range(0, 40, 8))
    assert header.read(written(identified(), *ENCODINGS[1])).orthanc_id == expected


@pytest.mark.parametrize(
    ("patient_id", "character_set", "is_certain"),
    [("P1", "", True), ("", "", True), ("P 1", "ISO_IR 192", True), ("João", "ISO_IR 100", False),
     ("João", "ISO_IR 192", False), (" P1", "", False)],
)  # fmt: skip
def test_only_plain_text_is_certain_to_be_read_alike(patient_id: str, character_set: str, is_certain: bool) -> None:
    made = identified(PatientID=patient_id, SpecificCharacterSet=character_set)
    found = header.read(written(made, *ENCODINGS[1]))
    assert (found.patient_id, found.is_certain) == (patient_id.strip(), is_certain)


def test_bytes_of_any_kind_are_read_or_refused_and_nothing_else_happens() -> None:
    """Whatever a sender makes up, no other error comes, and it doesn't take long."""
    chance = random.Random(20260301)
    good = [file.read_bytes()[:20000] for file in SAMPLES if file.stat().st_size < 200_000]
    for _ in range(4000):
        content = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(content))
            content[at : at + chance.choice((1, 1, 2, 4))] = chance.randbytes(chance.choice((0, 1, 2, 4)))
        with suppress(HeaderFault):
            header.read(bytes(content[: chance.randrange(1, len(content) + 1)]))


def test_sequences_in_sequences_without_end_are_refused() -> None:
    start = struct.pack("<HH2sHI", 0x08, 0x1115, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(HeaderFault, match="deeper"):
        header.read(bytes(128) + b"DICM" + (start + item) * 100_000)


def test_a_deflated_bomb_is_unpacked_to_a_limit() -> None:
    meta = written(identified(), *ENCODINGS[3])
    begin = meta.index(b"1.2.840.10008.1.2.1.99") + len(b"1.2.840.10008.1.2.1.99")
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = pack.compress(struct.pack("<HH2sHI", 0x08, 0x01, b"OB", 0, 2_000_000_000) + bytes(50_000_000)) + pack.flush()
    with pytest.raises(HeaderFault, match="longer than the file"):
        header.read(meta[: begin + begin % 2] + bomb)
