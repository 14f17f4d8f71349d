"""From what Orthanc knows of an instance to the facts of a journal entry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Services whose stores have a cause of their own; a store by `recovery` keeps the cause of the study.
_CAUSES = {"ris": "ourselves", "migration": "migration"}


@dataclass(frozen=True)
class Change:
    """A row of /changes: the number, the resource, the date, and in which index."""

    index_id: str
    seq: int
    orthanc_id: str
    date: str

    @property
    def told(self) -> dict[str, Any]:
        return {"index": self.index_id, "seq": self.seq, "date": self.date}


@dataclass(frozen=True)
class Instance:
    """An instance with its place in series and study, and how it came."""

    orthanc_id: str
    series_orthanc_id: str
    study_orthanc_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    modality: str
    patient_id: str
    sop_class: str
    transfer_syntax: str
    remote_aet: str
    remote_ip: str
    called_aet: str
    origin: str
    http_user: str
    received_at: str
    size: int
    cause: str

    @property
    def told(self) -> dict[str, Any]:
        """The facts of a `stored` entry (but the change); the Orthanc id is given beside them."""
        return {
            "study_uid": self.study_uid, "series_uid": self.series_uid, "sop_uid": self.sop_uid,
            "study_orthanc_id": self.study_orthanc_id, "series_orthanc_id": self.series_orthanc_id,
            "modality": self.modality, "sop_class": self.sop_class, "transfer_syntax": self.transfer_syntax,
            "patient_id": self.patient_id, "remote_aet": self.remote_aet, "remote_ip": self.remote_ip,
            "called_aet": self.called_aet, "origin": self.origin, "http_user": self.http_user,
            "received_at": self.received_at, "size": self.size, "cause": self.cause,
            "recovered": self.http_user == "recovery",
        }  # fmt: skip


def cause(http_user: str, announced: str | None) -> str:
    """Why an instance was stored (DESIGN rule 2): by whose token, else as announced, else a modality."""
    return _CAUSES.get(http_user) or announced or "modality"


def instance(
    found: Mapping[str, Any], series: Mapping[str, Any], study: Mapping[str, Any], announced: Mapping[str, str]
) -> Instance:
    """Put together what /tools/bulk-content says of an instance, its series and its study."""
    metadata = found["Metadata"]
    http_user = metadata.get("HttpUsername", "")
    study_uid = study["MainDicomTags"]["StudyInstanceUID"]
    return Instance(
        orthanc_id=found["ID"],
        series_orthanc_id=series["ID"],
        study_orthanc_id=study["ID"],
        study_uid=study_uid,
        series_uid=series["MainDicomTags"]["SeriesInstanceUID"],
        sop_uid=found["MainDicomTags"]["SOPInstanceUID"],
        modality=series["MainDicomTags"].get("Modality", ""),
        patient_id=study["PatientMainDicomTags"].get("PatientID", ""),
        sop_class=metadata.get("SopClassUid", ""),
        transfer_syntax=metadata.get("TransferSyntax", ""),
        remote_aet=metadata.get("RemoteAET", ""),
        remote_ip=metadata.get("RemoteIP", ""),
        called_aet=metadata.get("CalledAET", ""),
        origin=metadata.get("Origin", ""),
        http_user=http_user,
        received_at=moment(metadata.get("ReceptionDate", "")),
        size=int(found.get("FileSize", 0)),
        cause=cause(http_user, announced.get(study_uid)),
    )


def study_facts(study: Mapping[str, Any], issuer: str) -> dict[str, Any]:
    """The facts of a `study-began` entry (but the cause)."""
    tags, patient = study["MainDicomTags"], study["PatientMainDicomTags"]
    return {
        "study_uid": tags["StudyInstanceUID"], "study_orthanc_id": study["ID"],
        "patient_id": patient.get("PatientID", ""), "issuer": issuer,
        "patient_name": patient.get("PatientName", ""), "birth_date": patient.get("PatientBirthDate", ""),
        "sex": patient.get("PatientSex", ""), "accession_number": tags.get("AccessionNumber", ""),
        "study_date": tags.get("StudyDate", ""), "study_time": tags.get("StudyTime", ""),
        "description": tags.get("StudyDescription", ""),
    }  # fmt: skip


def moment(written: str) -> str:
    """Orthanc's `20260301T083000` (UTC) as our clock writes it; anything else unchanged."""
    if len(written) != 15 or written[8] != "T":
        return written
    return f"{written[:4]}-{written[4:6]}-{written[6:8]}T{written[9:11]}:{written[11:13]}:{written[13:15]}.000000Z"
