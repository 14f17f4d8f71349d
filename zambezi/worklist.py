"""The modality worklist (DICOM PS3.4 K): which orders go to which station, and as what item.

One place for both doors: the snapshot that the plugin answers from and the gateway's own worklist SCP.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import character_sets, clock
from zambezi.config.settings import Worklist
from zambezi.database.tables import Order
from zambezi.orders import OPEN

#: PS3.6: Modality Worklist Information Model - FIND; stands as SOP class in the files of the snapshot.
FIND_SOP_CLASS = "1.2.840.10008.5.1.4.31"

#: State of an order -> Scheduled Procedure Step Status (0040,0020), PS3.3 C.4.10.
_STEP_STATUS = {"scheduled": "SCHEDULED", "arrived": "ARRIVED", "in-progress": "STARTED"}

#: Priority of an order -> Requested Procedure Priority (0040,1003).
_PRIORITY = {"STAT": "STAT", "HIGH": "HIGH", "ROUTINE": "ROUTINE"}


@dataclass(frozen=True)
class Entry:
    """An order as stations see it: to whom it is answered, and the item."""

    aets: tuple[str, ...]
    study_uid: str
    item: Dataset


def entries(session: Session, settings: Worklist, zone: ZoneInfo, now: datetime) -> list[Entry]:
    """Everything that is on some station's worklist now."""
    begin = clock.text(now - timedelta(hours=settings.hours_back))
    end = clock.text(now + timedelta(hours=settings.hours_ahead))
    query = select(Order).where(Order.status.in_(OPEN), Order.scheduled_at >= begin, Order.scheduled_at <= end)
    found = []
    for order in session.scalars(query.order_by(Order.scheduled_at, Order.id)):
        for aets, modality in _stations(order, settings):
            found.append(Entry(aets, order.study_uid, item(order, aets[0], modality, zone)))
    return found


def stations_for(order: Order, settings: Worklist) -> tuple[str, ...]:
    """The stations that are offered the order: the one it names, else every one of its modality.

    An order without a modality (some senders never write one) goes to every station: a radiographer who
    sees one too many can still do the exam, one who doesn't see it can't.
    """
    if order.station_aet:
        return (order.station_aet,)
    return tuple(
        aet for aet, station in settings.stations.items() if not order.modality or order.modality in station.modality
    )


def item(order: Order, station_aet: str, modality: str, zone: ZoneInfo) -> Dataset:
    """One worklist item, in ISO_IR 100 where its text fits into that (old modalities know nothing else)."""
    patient = order.patient
    when = clock.parse(order.scheduled_at).astimezone(zone)
    made = Dataset()
    made.SpecificCharacterSet = ""
    made.AccessionNumber = order.accession_number
    made.ReferringPhysicianName = _one_value(order.referring_physician)
    made.PatientName = person_name(patient.family_name, patient.given_name)
    made.PatientID = patient.patient_id
    made.IssuerOfPatientID = patient.issuer
    made.PatientBirthDate = patient.birth_date or ""
    made.PatientSex = patient.sex if patient.sex in ("M", "F", "O") else ""
    made.StudyInstanceUID = order.study_uid
    made.RequestedProcedureDescription = _one_value(order.procedure_text)[:64]
    made.RequestedProcedureID = order.procedure_id
    made.RequestedProcedurePriority = _PRIORITY.get(order.priority, "ROUTINE")
    made.PlacerOrderNumberImagingServiceRequest = _one_value(order.placer_number or "")
    made.FillerOrderNumberImagingServiceRequest = _one_value(order.filler_number or "")
    made.ReferencedStudySequence = []
    if order.procedure_code:
        made.RequestedProcedureCodeSequence = [_code(order)]
    step = Dataset()
    step.Modality = modality
    step.ScheduledStationAETitle = station_aet
    step.ScheduledProcedureStepStartDate = f"{when:%Y%m%d}"
    step.ScheduledProcedureStepStartTime = f"{when:%H%M%S}"
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription = made.RequestedProcedureDescription
    step.ScheduledProcedureStepID = order.step_id
    step.ScheduledStationName = ""
    step.ScheduledProcedureStepLocation = ""
    step.ScheduledProcedureStepStatus = _STEP_STATUS.get(order.status, "SCHEDULED")
    if order.procedure_code:
        step.ScheduledProtocolCodeSequence = [_code(order)]
    made.ScheduledProcedureStepSequence = [step]
    made.SpecificCharacterSet = character_sets.character_set(_texts(made))
    return made


def as_file(made: Dataset) -> bytes:
    """The item as a DICOM file, as Orthanc's worklist callback reads it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(FIND_SOP_CLASS)
    meta.MediaStorageSOPInstanceUID = made.StudyInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta = meta
    out = BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def person_name(family: str, given: str) -> str:
    """PN of PS3.5 6.2: delimiters of DICOM inside a name become spaces."""
    clean = [part.translate(str.maketrans("^=\\", "   ")).strip() for part in (family, given)]
    return "^".join(clean).rstrip("^")


def _stations(order: Order, settings: Worklist) -> list[tuple[tuple[str, ...], str]]:
    # One item for all of them where the order knows its modality; else each is told its own.
    aets = stations_for(order, settings)
    if order.modality or not aets:
        return [(aets, order.modality)] if aets else []
    return [((aet,), settings.stations[aet].modality[0] if aet in settings.stations else "OT") for aet in aets]


def _code(order: Order) -> Dataset:
    code = Dataset()
    code.CodeValue = _one_value(order.procedure_code)[:16]
    code.CodingSchemeDesignator = "99ORDER"
    code.CodeMeaning = (_one_value(order.procedure_text) or code.CodeValue)[:64]
    return code


def _one_value(text: str) -> str:
    return text.replace("\\", " ").replace("\n", " ").strip()


def _texts(made: Dataset) -> list[str]:
    return [str(element.value) for element in made.iterall() if element.VR in ("PN", "LO", "SH", "LT", "ST", "UT")]
