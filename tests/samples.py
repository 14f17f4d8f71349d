"""pydicom's own test files: what a digest is tried on; those that don't fit a rule are named with their reason."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import pydicom.data
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

ROOT = Path(pydicom.data.__file__).parent
FOLDERS = ("test_files", "charset_files", "palettes")
FILES = {
    str(file.relative_to(ROOT)): file
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*"))
    if file.is_file()
}
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

_NOT_DICOM, _CUT = "not DICOM at all", "cut off, as its name says"
_NO_UID = "no SOP Instance UID: it can't be archived; it is tried with one put in"
#: What no fingerprint can be taken of.
UNREADABLE = {
    **dict.fromkeys((
        "charset_files/FileInfo.txt", "palettes/README.md", "test_files/README.txt", "test_files/crayons.icc",
        "test_files/dicomdirtests/README.txt", "test_files/dicomdirtests/TINY_ALPHA/README", "test_files/rtplan.dump",
        "test_files/rtstruct.dump", "test_files/test1.json", "test_files/test_PN.json", "test_files/zipMR.gz",
    ), _NOT_DICOM),
    "test_files/MR_truncated.dcm": _CUT,
    "test_files/rtplan_truncated.dcm": _CUT,
    "test_files/no_meta.dcm": "it begins amid a tag: its first byte is missing",
    "test_files/dicomdirtests/DICOMDIR-nooffset": "an item says that it is longer than its sequence",
}  # fmt: skip
#: Readable but for the UID that the archive knows an object by.
WITHOUT_UID = dict.fromkeys((
    "charset_files/chrSQEncoding.dcm", "charset_files/chrSQEncoding1.dcm", "test_files/UN_sequence.dcm",
    "test_files/dicomdirtests/DICOMDIR", "test_files/dicomdirtests/DICOMDIR-bigEnd",
    "test_files/dicomdirtests/DICOMDIR-empty.dcm", "test_files/dicomdirtests/DICOMDIR-implicit",
    "test_files/dicomdirtests/DICOMDIR-nopatient", "test_files/dicomdirtests/DICOMDIR-reordered",
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR", "test_files/empty_charset_LEI.dcm",
    "test_files/meta_missing_tsyntax.dcm", "test_files/nested_priv_SQ.dcm", "test_files/no_meta_group_length.dcm",
    "test_files/priv_SQ.dcm",
), _NO_UID)  # fmt: skip
OBJECTS = tuple(name for name in FILES if name not in UNREADABLE)


def content(name: str) -> bytes:
    """The sample, with what pydicom needs for writing it put in where it has no SOP Instance UID."""
    if name not in WITHOUT_UID:
        return FILES[name].read_bytes()
    dataset = read(FILES[name].read_bytes())
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.7"
    if 0x7FE00010 in dataset:  # without it pydicom can't write pixel data
        dataset.setdefault("BitsAllocated", 16)
    implicit, little = dataset.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return save(dataset, syntax)


def read(found: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(found), force=True)


def save(dataset: Dataset, syntax: UID, undefined: bool | None = None) -> bytes:
    """Written by pydicom in a transfer syntax; `undefined` sets the lengths of all sequences, None leaves them."""
    copy = Dataset(dataset)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = syntax
    copy.file_meta.MediaStorageSOPClassUID = "1.2.3"
    copy.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if undefined is not None:
            for element in copy.iterall():
                if element.VR == "SQ":
                    element.is_undefined_length = undefined
                    for item in element.value:
                        item.is_undefined_length_sequence_item = undefined
        copy.save_as(out, enforce_file_format=True)
    return out.getvalue()
