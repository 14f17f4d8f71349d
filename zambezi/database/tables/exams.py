"""Patients, orders and exams; what is in the archive, and what was announced to it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from zambezi.database.tables.base import Base, Moment, Uid


class Patient(Base):
    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("issuer", "patient_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(64), index=True)
    issuer: Mapped[str] = mapped_column(String(64))
    family_name: Mapped[str] = mapped_column(String(64), index=True)
    given_name: Mapped[str] = mapped_column(String(64), default="")
    birth_date: Mapped[str | None] = mapped_column(String(8), index=True)  # YYYYMMDD
    sex: Mapped[str | None] = mapped_column(String(1))  # M F O U
    merged_into: Mapped[int | None]  # id of the patient whose identifier this one has become (HL7 A40)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class Order(Base):
    """An imaging service request with its one requested procedure and scheduled step."""

    __tablename__ = "imaging_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_key: Mapped[int] = mapped_column(ForeignKey("patient.id"))
    patient: Mapped[Patient] = relationship(lazy="joined")
    placer_number: Mapped[str | None] = mapped_column(String(64), index=True)
    filler_number: Mapped[str | None] = mapped_column(String(64))
    accession_number: Mapped[str] = mapped_column(String(16), unique=True)
    study_uid: Mapped[str] = mapped_column(Uid, unique=True)
    procedure_id: Mapped[str] = mapped_column(String(16))
    step_id: Mapped[str] = mapped_column(String(16))
    procedure_code: Mapped[str] = mapped_column(String(64), default="")
    procedure_text: Mapped[str] = mapped_column(String(200), default="")
    modality: Mapped[str] = mapped_column(String(16), default="")
    station_aet: Mapped[str | None] = mapped_column(String(16))
    scheduled_at: Mapped[str] = mapped_column(Moment, index=True)
    priority: Mapped[str] = mapped_column(String(16), default="ROUTINE")  # STAT HIGH ROUTINE
    #: scheduled, arrived, in-progress, completed, discontinued, cancelled
    status: Mapped[str] = mapped_column(String(16), default="scheduled", index=True)
    #: none, draft, final
    report_status: Mapped[str] = mapped_column(String(16), default="none")
    clinical_information: Mapped[str] = mapped_column(Text, default="")
    referring_physician: Mapped[str] = mapped_column(String(200), default="")
    source: Mapped[str] = mapped_column(String(64), default="ris")  # the HL7 peer's name, or ris
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class PerformedStep(Base):
    """An MPPS object (PS3.4 F.7): what a modality says it did."""

    __tablename__ = "performed_step"
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    status: Mapped[str] = mapped_column(String(16))  # IN PROGRESS, COMPLETED, DISCONTINUED
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"))
    station_aet: Mapped[str] = mapped_column(String(16))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class Study(Base):
    """A study in the archive, as the journal told of it."""

    __tablename__ = "study"
    study_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"), index=True)
    cause: Mapped[str] = mapped_column(String(16))  # zambezi.causes
    reference: Mapped[str] = mapped_column(String(200), default="")  # of the cause: order, project, correction ...
    patient_id: Mapped[str] = mapped_column(String(64), default="", index=True)
    patient_name: Mapped[str] = mapped_column(String(200), default="")
    birth_date: Mapped[str] = mapped_column(String(8), default="")
    sex: Mapped[str] = mapped_column(String(16), default="")
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_date: Mapped[str] = mapped_column(String(8), default="")
    study_time: Mapped[str] = mapped_column(String(16), default="")
    description: Mapped[str] = mapped_column(String(200), default="")
    modalities: Mapped[str] = mapped_column(String(100), default="")  # joined by a backslash
    instances: Mapped[int] = mapped_column(default=0)
    first_at: Mapped[str] = mapped_column(Moment)
    last_at: Mapped[str] = mapped_column(Moment, index=True)
    completed_at: Mapped[str | None] = mapped_column(Moment)
    sender: Mapped[str] = mapped_column(String(16), default="")  # AE title that the first image came from


class Series(Base):
    __tablename__ = "series"
    series_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    study_uid: Mapped[str] = mapped_column(Uid, index=True)
    modality: Mapped[str] = mapped_column(String(16), default="")
    instances: Mapped[int] = mapped_column(default=0)


class AnnouncedStudy(Base):
    """A Study UID whose images will come by a cause that the sender alone doesn't tell (DESIGN rule 2)."""

    __tablename__ = "announced_study"
    study_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    cause: Mapped[str] = mapped_column(String(16))
    reference: Mapped[str] = mapped_column(String(200), default="")
    #: What its images get as they come, by DICOM keyword (zambezi.coercion.declared); "" for nothing.
    changes: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[str] = mapped_column(Moment)


class AnnouncedInstance(Base):
    """A SOP Instance UID that we are about to store ourselves, with its cause: it holds whoever brings the file in."""

    __tablename__ = "announced_instance"
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    cause: Mapped[str] = mapped_column(String(16))
    reference: Mapped[str] = mapped_column(String(200), default="")
    sha256: Mapped[str] = mapped_column(String(64), default="")  # of the bytes that are to come, where they are known
    created_at: Mapped[str] = mapped_column(Moment)


class Generation(Base):
    """Counts the changes of what is pushed to the plugin whole: `worklist`, `announced`, `revocations`.

    Raised in the same transaction as the change; the plugin ignores an older generation.
    """

    __tablename__ = "generation"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(default=0)
