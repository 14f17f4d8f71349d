"""Real images for the play: the pydicom package's own samples, given the identifiers of the demo's patients."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

#: Samples of the legacy PACS: a CT, an MR (RLE), an ultrasound and a secondary capture (JPEG), each with the study
#: it belongs to. The transfer syntaxes are those of demo/legacy-profiles.cfg.
LEGACY = (
    ("CT_small.dcm", "thorax"),
    ("MR_small_RLE.dcm", "head"),
    ("examples_rgb_color.dcm", "echo"),
    ("SC_rgb_dcmtk_+eb+cr.dcm", "capture"),
)
#: The legacy study whose StudyDate was never filled in.
UNDATED = "capture"


@dataclass(frozen=True)
class Exam:
    """The identifiers that images of an exam must carry; texts as in DICOM."""

    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    accession_number: str
    study_uid: str
    study_date: str


def uid(*parts: str) -> str:
    """A UID (2.25...) that is the same for the same parts (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(hashlib.sha256('/'.join(parts).encode()).digest()[:15])}"


def sample(name: str) -> Dataset:
    """One of pydicom's sample files, by its name."""
    return pydicom.dcmread(str(files("pydicom") / "data" / "test_files" / name))


def ct_slices(exam: Exam, count: int, folder: Path) -> list[Path]:
    """A CT series of `count` slices for the exam, written into the folder."""
    made = []
    for number in range(1, count + 1):
        dataset = sample("CT_small.dcm")
        _identify(dataset, exam, uid(exam.study_uid, "series"), uid(exam.study_uid, "slice", str(number)))
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [-158.1, -179.0, -75.7 + 5.0 * number]
        dataset.SliceLocation = -75.7 + 5.0 * number
        dataset.StudyDescription = "TC Tórax"
        made.append(_write(dataset, folder / f"ct-{number:03}.dcm"))
    return made


def legacy_studies(run: str, folder: Path) -> list[Path]:
    """What the legacy PACS holds: old studies of one run of the play, compressed ones and an undated one among them."""
    made = []
    for name, study in LEGACY:
        dataset = sample(name)
        date = "" if study == UNDATED else str(dataset.get("StudyDate", "")).replace(".", "")
        exam = Exam(f"OLD{run}", "Macamo^Antónia", "19610203", "F", f"L{run}{study[:2].upper()}",
                    uid("legacy", run, study), date)  # fmt: skip
        _identify(
            dataset, exam, uid("legacy", run, study, str(dataset.get("Modality", "OT"))), uid("legacy", run, name)
        )
        made.append(_write(dataset, folder / f"legacy-{name}"))
    return made


def _identify(dataset: Dataset, exam: Exam, series_uid: str, sop_uid: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientID = exam.patient_id
    dataset.PatientName = exam.patient_name
    dataset.PatientBirthDate = exam.birth_date
    dataset.PatientSex = exam.sex
    dataset.AccessionNumber = exam.accession_number
    dataset.StudyInstanceUID = exam.study_uid
    dataset.StudyDate = exam.study_date
    if not exam.study_date:
        del dataset.StudyDate
    dataset.SeriesInstanceUID = series_uid
    dataset.SOPInstanceUID = sop_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    if "FrameOfReferenceUID" in dataset:
        dataset.FrameOfReferenceUID = uid(exam.study_uid, "frame")


def _write(dataset: Dataset, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file
