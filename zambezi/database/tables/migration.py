"""Migrations, their ledger, their certificates."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Leased, Moment, Uid


class MigrationProject(Base):
    __tablename__ = "migration_project"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    source: Mapped[str] = mapped_column(String(64))  # a name from Migration.Sources
    #: inventory, planned, running, paused, finished, certified
    state: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text, default="")  # why it stands still, what coverage was shown
    coverage: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class MigrationStudy(Leased, Base):
    __tablename__ = "migration_study"
    __table_args__ = (UniqueConstraint("project_id", "study_uid"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), index=True)
    study_uid: Mapped[str] = mapped_column(Uid)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[str] = mapped_column(String(16), default="")  # as the source wrote it, may be empty
    modalities: Mapped[str] = mapped_column(String(100), default="")
    expected: Mapped[int] = mapped_column(default=0)
    #: ready, moving, verifying, verified, retrying, divergent, parked
    state: Mapped[str] = mapped_column(String(16), default="ready")
    reason: Mapped[str] = mapped_column(Text, default="")
    verified_at: Mapped[str | None] = mapped_column(Moment)


class MigrationInstance(Base):
    __tablename__ = "migration_instance"
    study_id: Mapped[int] = mapped_column(ForeignKey("migration_study.id"), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    series_uid: Mapped[str] = mapped_column(Uid)
    orthanc_id: Mapped[str | None] = mapped_column(String(44))
    source_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of the second retrieve
    stored_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of what Orthanc holds
    stored_md5: Mapped[str | None] = mapped_column(String(32))
    #: expected, stored, equal, different, missing
    verdict: Mapped[str] = mapped_column(String(16), default="expected")


class Certificate(Base):
    __tablename__ = "certificate"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    issued_at: Mapped[str] = mapped_column(Moment)
    document: Mapped[bytes] = mapped_column(LargeBinary)  # canonical JSON, as it was signed
    signature: Mapped[str] = mapped_column(Text)  # base64, Ed25519
    public_key: Mapped[str] = mapped_column(Text)  # PEM
