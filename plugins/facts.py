"""From what Orthanc knows of an instance to the facts of a journal entry. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plugins.pushed import Announced
from zambezi import causes
from zambezi.causes import Because

#: Users who store what was stored before.
AGAIN = ("recovery", "move")
#: Who stores for somebody else: the gateway's coercing port. The file says for whom.
ON_BEHALF = "gateway"


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
class Came:
    """What an instance was before it was coerced: the SHA-256 of the bytes that came, and by which rules.

    `changed`: the tags, as (gggg,eeee), in which it differs now; None where that was not looked at (plugins.declared).
    """

    sha256: str
    rules: tuple[str, ...]
    changed: tuple[str, ...] | None = None


def joined(changed: Iterable[str] | None) -> str | None:
    """As the journal's table has them."""
    return None if changed is None else " ".join(changed)


@dataclass(frozen=True)
class Sender:
    """Who sent what came by the gateway's coercing port; Orthanc knows of an HTTP request alone."""

    aet: str
    ip: str
    called_aet: str


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
    reference: str
    sha256: str | None
    priority: str = ""  # of the order that announced the study
    came: Came | None = None

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
            "reference": self.reference or None, "sha256": self.sha256,
            "recovered": self.http_user == "recovery",
            "came_sha256": self.came.sha256 if self.came else None,
            "coerced": list(self.came.rules) if self.came else None,
            "changed": list(self.came.changed) if self.came and self.came.changed is not None else None,
        }  # fmt: skip


def cause(
    http_user: str, sop_uid: str, study_uid: str, announced: Announced, recorded: Because | None = None
) -> Because:
    """Why an instance was stored (DESIGN rule 2), and what that refers to. In this order:

    A service that stores has its cause: `ris` a report, `migration` a migration, `custody` what it announced
    (else a correction). `recovery` brings files back: as announced for the instance, else as `recorded` in the
    journal before, else like a sender; so does `move`, but what nobody knows is a restore. A DICOM sender: a migration
    or a prefetch where the study is announced as one, else a modality, with the order that announced the study. A study
    under correction changes nothing for a modality.
    """
    instance, study = announced.instances.get(sop_uid), announced.studies.get(study_uid)
    if http_user == "ris":
        return Because(causes.REPORT, instance.reference if instance else "")
    if http_user == "custody":
        return instance or Because(causes.CORRECTION)
    if http_user == "migration" and instance and instance.cause == causes.MIGRATION:
        return instance  # an old report's document, in a study that another migration may be bringing
    if http_user in AGAIN and (instance or recorded):
        return instance or recorded or Because(causes.MODALITY)
    if http_user == "move":
        return Because(causes.RESTORE)
    if study and study.cause in (causes.MIGRATION, causes.PREFETCH):
        return study
    if http_user == "migration":
        return Because(causes.MIGRATION)
    return study if study and study.cause == causes.MODALITY else Because(causes.MODALITY)


def instance(
    found: Mapping[str, Any],
    series: Mapping[str, Any],
    study: Mapping[str, Any],
    announced: Announced,
    recorded: Because | None = None,
    digest: Callable[[str, str, int], str | None] = lambda *_: None,
    came: Callable[[str, str, int], Came | None] = lambda *_: None,
    sender: Sender | None = None,
) -> Instance:
    """Put together what /tools/bulk-content says of an instance, its series and its study.

    `digest` knows the SHA-256 of what is stored, by SOP Instance UID, Orthanc id and size; `came` what it was before
    rules coerced it. `sender` is given where the gateway stored for somebody.
    """
    metadata = found["Metadata"]
    http_user = metadata.get("HttpUsername", "")
    study_uid = study["MainDicomTags"]["StudyInstanceUID"]
    sop_uid = found["MainDicomTags"]["SOPInstanceUID"]
    size = int(found.get("FileSize", 0))
    because = cause(http_user, sop_uid, study_uid, announced, recorded)
    return Instance(
        orthanc_id=found["ID"],
        series_orthanc_id=series["ID"],
        study_orthanc_id=study["ID"],
        study_uid=study_uid,
        series_uid=series["MainDicomTags"]["SeriesInstanceUID"],
        sop_uid=sop_uid,
        modality=series["MainDicomTags"].get("Modality", ""),
        patient_id=study["PatientMainDicomTags"].get("PatientID", ""),
        sop_class=metadata.get("SopClassUid", ""),
        transfer_syntax=metadata.get("TransferSyntax", ""),
        remote_aet=sender.aet if sender else metadata.get("RemoteAET", ""),
        remote_ip=sender.ip if sender else metadata.get("RemoteIP", ""),
        called_aet=sender.called_aet if sender else metadata.get("CalledAET", ""),
        origin=metadata.get("Origin", ""),
        http_user=http_user,
        received_at=moment(metadata.get("ReceptionDate", "")),
        size=size,
        cause=because.cause,
        reference=because.reference,
        sha256=digest(sop_uid, found["ID"], size),
        priority=because.priority,
        came=came(sop_uid, found["ID"], size),
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
