"""Signed reports in the archive: each PDF as an Encapsulated PDF instance of its study (DICOM PS3.3 A.45.1).

The SOP Instance UID was chosen when the report was signed, and everything else derives from it: storing twice,
after a crash between the archive's answer and our note of it, is storing the same thing once.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian
from sqlalchemy import select

from zambezi import __version__, announcing, causes, clock, reports
from zambezi.database.engine import Sessions
from zambezi.database.tables import Report, Study
from zambezi.orthanc_client import OrthancClient, OrthancError

log = logging.getLogger(__name__)

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
    """The archive doesn't know yet that the report is coming; later it will."""


class NotThere(Exception):
    """The archive has no instance of the study (yet) whose patient the report could take."""


def encapsulated(report: Report, study: dict[str, str], zone: ZoneInfo) -> bytes:
    """The DICOM file; `study` holds the attributes of COPIED, by keyword, as the study's images carry them."""
    if report.pdf is None or report.sop_uid is None or report.signed_at is None:
        raise ValueError(f"version {report.version} of the report is not signed")
    signed = clock.parse(report.signed_at).astimezone(zone)
    with disable_value_validation():  # what a modality wrote is copied, even where the standard has it otherwise
        return _written(_file(report, report.pdf, report.sop_uid, study, signed))


def _file(report: Report, pdf: bytes, sop_uid: str, study: dict[str, str], signed: datetime) -> Dataset:
    file = Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _NEEDED:
        setattr(file, keyword, "")
    for keyword in COPIED:
        if study.get(keyword):
            setattr(file, keyword, study[keyword])
    file.SOPClassUID = EncapsulatedPDFStorage
    file.SOPInstanceUID = UID(sop_uid)
    # Encapsulated Document Series, General Equipment, SC Equipment (PS3.3 C.24.1, C.7.5.1, C.8.6.1)
    file.Modality = "DOC"
    file.SeriesInstanceUID = derived_uid(sop_uid, "series")
    file.SeriesNumber = 9000 + report.version
    file.SeriesDescription = {"pt": "Relatório", "en": "Report"}.get(report.language, "Report")
    file.SeriesDate, file.SeriesTime = f"{signed:%Y%m%d}", f"{signed:%H%M%S}"
    file.Manufacturer = "Zambezi"
    file.SoftwareVersions = __version__
    file.ConversionType = "SYN"
    # Encapsulated Document (PS3.3 C.24.2)
    file.InstanceNumber = report.version
    file.ContentDate, file.ContentTime = f"{signed:%Y%m%d}", f"{signed:%H%M%S}"
    file.AcquisitionDateTime = ""
    file.TimezoneOffsetFromUTC = f"{signed:%z}"
    file.BurnedInAnnotation = "YES"
    file.DocumentTitle = f"{file.SeriesDescription} {report.version}"
    file.ConceptNameCodeSequence = Sequence([_code("18748-4", "LN", "Diagnostic imaging report")])
    file.VerificationFlag = "VERIFIED"
    file.MIMETypeOfEncapsulatedDocument = "application/pdf"
    file.EncapsulatedDocumentLength = len(pdf)
    file.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    file.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    return file


def _written(file: Dataset) -> bytes:
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


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


def store_one(sessions: Sessions, orthanc: OrthancClient, report_id: int, zone: ZoneInfo, now: datetime) -> None:
    """Store one signed version and note it; raises OrthancError, NotThere or NotAnnounced, and then it stays due."""
    with sessions.begin() as session:
        report = session.get_one(Report, report_id)
        found = session.scalars(select(Study).where(Study.study_uid == report.study_uid).order_by(Study.first_at)).all()
    if not found:
        raise NotThere(f"study {report.study_uid} is not known")
    # Where two patients' images carry this UID by now, the report belongs to those of its order.
    study = next((one for one in found if one.order_id == report.order_id), found[0])
    file = encapsulated(report, attributes_of(orthanc, study), zone)
    with sessions.begin() as session:
        told = f"report {report.study_uid} version {report.version}"
        generation = announcing.announce_instances(session, {str(report.sop_uid): ""}, causes.REPORT, told, now)
    # Brought back after a power cut, the file no longer says who stored it: the archive must know beforehand.
    if not announcing.wait_until_known(orthanc, generation, ANNOUNCE_S):
        raise NotAnnounced("the archive was not told of the report; is the gateway running?")
    orthanc.store(file)
    with sessions.begin() as session:
        session.get_one(Report, report_id).stored_at = clock.text(now)


class Storing(threading.Thread):
    """Stores what was signed, again and again until it is there; a restart goes on where it was."""

    def __init__(
        self, sessions: Sessions, connect: Callable[[], OrthancClient], zone: ZoneInfo, stop: threading.Event,
        every_s: float = 2,
    ) -> None:  # fmt: skip
        super().__init__(name="storing", daemon=True)
        self._sessions = sessions
        self._connect = connect
        self._zone = zone
        self._stop_asked = stop
        self._every_s = every_s
        self.last_error = ""
        self.waiting = 0
        #: Of reports that couldn't be stored: (seconds to wait next time, not before).
        self._patience: dict[int, tuple[float, float]] = {}

    def run(self) -> None:
        orthanc = self._connect()
        while not self._stop_asked.wait(self._every_s):
            try:
                self._round(orthanc)
            except Exception as error:  # the edge of the thread: it must never end by itself
                self.last_error = f"signed reports can't be stored: {type(error).__name__}"
                log.exception("signed reports can't be stored")

    def _round(self, orthanc: OrthancClient) -> None:
        with self._sessions.begin() as session:
            due = reports.unstored(session)
        self._patience = {report_id: wait for report_id, wait in self._patience.items() if report_id in due}
        for report_id in due:
            wait_s, not_before = self._patience.get(report_id, (self._every_s, 0.0))
            if self._stop_asked.is_set() or time.monotonic() < not_before:
                continue
            try:
                store_one(self._sessions, orthanc, report_id, self._zone, clock.now())
                log.info("report %s is in the archive", report_id)
                self._patience.pop(report_id, None)
            except (OrthancError, NotThere, NotAnnounced, ValueError) as error:
                # Each report waits for itself: one whose study is not there keeps no other waiting.
                self._patience[report_id] = (min(60, wait_s * 2), time.monotonic() + wait_s)
                self.last_error = f"report {report_id} can't be stored yet: {error}"
                log.warning("%s", self.last_error)
        self.waiting = len(self._patience)
        self.last_error = self.last_error if self._patience else ""


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
