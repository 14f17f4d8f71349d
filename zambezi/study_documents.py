"""Documents that we put into a study of the archive: PDFs as Encapsulated PDF instances (DICOM PS3.3 A.45.1).

What the RIS signs and what an old system wrote come in by the same door: announced, so that the archive knows the cause
even of what a power cut brings back, then stored as any instance. Everything of a file derives from its SOP Instance
UID and its study: storing twice is storing the same thing once.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from zambezi import __version__, announcing
from zambezi.database.engine import Sessions
from zambezi.database.tables import Study
from zambezi.orthanc_client import OrthancClient, OrthancError

#: Patient and General Study module attributes (PS3.3 C.7.1.1, C.7.2.1) that are the study's own.
COPIED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription",
)  # fmt: skip
#: Of these the standard wants at least an empty value (type 2).
_NEEDED = COPIED[:2] + COPIED[3:11]
#: The gateway tells the archive what was announced within so many seconds, else storing is tried again later.
ANNOUNCE_S = 20


class NotAnnounced(Exception):
    """The archive doesn't know yet that the document is coming; later it will."""


class NotThere(Exception):
    """The archive has no instance of the study (yet) whose patient the document could take."""


@dataclass(frozen=True)
class Sheet:
    """A PDF and what is said of it; `at` is when it was written, in the site's zone (None: nobody knows).

    `number` is the Instance Number and the title's, `series_number` the series' own. `is_verified`: signed by a person.
    """

    pdf: bytes
    sop_uid: str
    series_description: str
    title: str
    number: int
    series_number: int
    at: datetime | None
    is_verified: bool


def encapsulated(sheet: Sheet, study: dict[str, str]) -> bytes:
    """The DICOM file; `study` holds the attributes of COPIED, by keyword, as the study's images carry them."""
    with disable_value_validation():  # what a modality wrote is copied, even where the standard has it otherwise
        out = io.BytesIO()
        _file(sheet, study).save_as(out, enforce_file_format=True)
        return out.getvalue()


def _file(sheet: Sheet, study: dict[str, str]) -> Dataset:
    file = Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _NEEDED:
        setattr(file, keyword, "")
    for keyword in COPIED:
        if study.get(keyword):
            setattr(file, keyword, study[keyword])
    file.SOPClassUID = EncapsulatedPDFStorage
    file.SOPInstanceUID = UID(sheet.sop_uid)
    day, hour = (f"{sheet.at:%Y%m%d}", f"{sheet.at:%H%M%S}") if sheet.at else ("", "")
    # Encapsulated Document Series, General Equipment, SC Equipment (PS3.3 C.24.1, C.7.5.1, C.8.6.1)
    file.Modality = "DOC"
    file.SeriesInstanceUID = derived_uid(sheet.sop_uid, "series")
    file.SeriesNumber = sheet.series_number
    file.SeriesDescription = sheet.series_description
    if sheet.at:
        file.SeriesDate, file.SeriesTime = day, hour
    file.Manufacturer = "Zambezi"
    file.SoftwareVersions = __version__
    file.ConversionType = "SYN"
    # Encapsulated Document (PS3.3 C.24.2)
    file.InstanceNumber = sheet.number
    file.ContentDate, file.ContentTime = day, hour
    file.AcquisitionDateTime = ""
    if sheet.at:
        file.TimezoneOffsetFromUTC = f"{sheet.at:%z}"
    file.BurnedInAnnotation = "YES"
    file.DocumentTitle = sheet.title
    file.ConceptNameCodeSequence = Sequence([_code("18748-4", "LN", "Diagnostic imaging report")])
    if sheet.is_verified:
        file.VerificationFlag = "VERIFIED"
    file.MIMETypeOfEncapsulatedDocument = "application/pdf"
    file.EncapsulatedDocumentLength = len(sheet.pdf)
    file.EncapsulatedDocument = sheet.pdf + b"\0" * (len(sheet.pdf) % 2)
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    file.file_meta.MediaStorageSOPInstanceUID = UID(sheet.sop_uid)
    return file


def derived_uid(uid: str, what: str) -> str:
    """A UID (PS3.5 B.2) that is always the same for the same origin."""
    return f"2.25.{int.from_bytes(hashlib.sha256(f'{uid}/{what}'.encode()).digest()[:16])}"


def attributes_of(orthanc: OrthancClient, study: Study) -> dict[str, str]:
    """COPIED as the first instance of the study carries it; NotThere if the archive has none."""
    try:
        first = orthanc.get(f"/studies/{study.orthanc_id}")["Series"][0]
        instance = orthanc.get(f"/series/{first}")["Instances"][0]
        tags: dict[str, Any] = orthanc.get(f"/instances/{instance}/simplified-tags")
    except (OrthancError, LookupError) as error:
        if isinstance(error, LookupError) or getattr(error, "status", 0) == 404:
            raise NotThere(f"study {study.study_uid} has no image in the archive") from error
        raise
    found = {keyword: tags[keyword] for keyword in COPIED if isinstance(tags.get(keyword), str)}
    if found.get("StudyInstanceUID") != study.study_uid:
        raise NotThere(f"study {study.study_uid}: the archive's image is of another study")
    return found


def hand_in(
    sessions: Sessions, orthanc: OrthancClient, sop_uid: str, file: bytes, cause: str, reference: str, now: datetime
) -> None:
    """Announce the instance with its cause, wait until the archive knows, store it; NotAnnounced, OrthancError."""
    with sessions.begin() as session:
        generation = announcing.announce_instances(session, {sop_uid: ""}, cause, reference, now)
    # Brought back after a power cut, the file no longer says who stored it: the archive must know beforehand.
    if not announcing.wait_until_known(orthanc, generation, ANNOUNCE_S):
        raise NotAnnounced("the archive was not told of the report; is the gateway running?")
    orthanc.store(file)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
