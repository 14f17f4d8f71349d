"""Migrations, their ledger, their certificates."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, SmallInteger, String, Text, UniqueConstraint
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
    #: What was planned, its versions elsewhere (migration.plan): order, rules, level of proof.
    plan: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class MigrationStudy(Leased, Base):
    __tablename__ = "migration_study"
    #: Each index answers one question in the same time however much is done: whose turn it is, what is due again,
    #: what is being worked on, a patient's studies, the latest that were verified. Pictures and sums are read
    #: from the first two alone, which is why modalities and expected stand at their ends.
    __table_args__ = (
        UniqueConstraint("project_id", "study_uid"),
        # What a new version of the plan has still to decide.
        Index("ix_migration_study_planned", "project_id", "state", "plan_version"),
        Index("ix_migration_study_turn", "project_id", "state", "priority", "study_date", "id", "modalities"),
        Index("ix_migration_study_due", "project_id", "state", "next_at", "expected"),
        Index("ix_migration_study_leased", "project_id", "lease_until"),
        Index("ix_migration_study_patient", "project_id", "patient_id"),
        Index("ix_migration_study_verified", "project_id", "verified_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), index=True)
    study_uid: Mapped[str] = mapped_column(Uid)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[str] = mapped_column(String(16), default="")  # as the source wrote it, may be empty
    modalities: Mapped[str] = mapped_column(String(100), default="")
    #: What the source said of it when it was found, by DICOM keyword.
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    batch: Mapped[int] = mapped_column(default=0)
    #: Higher first; why, in words for a person.
    priority: Mapped[int] = mapped_column(default=0)
    urgent_because: Mapped[str] = mapped_column(Text, default="")
    #: What is changed on the way, as declared by the plan: DICOM keyword and new value.
    changes: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    #: The version of the plan that has decided this; nothing is claimed that the plan in force hasn't seen.
    plan_version: Mapped[int] = mapped_column(default=0)
    expected: Mapped[int] = mapped_column(default=0)
    stored: Mapped[int] = mapped_column(default=0)  # instances, at the last look
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes stored
    #: The lowest level of proof of any of its instances: 0 none, 1 set, 2 arrival, 3 source.
    level: Mapped[int] = mapped_column(default=0)
    found_at: Mapped[str] = mapped_column(Moment, default="")
    #: The last inventory that named it (migration_survey).
    seen_in: Mapped[int] = mapped_column(default=0)
    #: When it was written down what of it the archive had before the first move (migration_instance.was_there).
    looked_at: Mapped[str | None] = mapped_column(Moment)
    #: ready, moving, verifying, verified, retrying, parked; held (a person decides whose it is),
    #: divergent (not as the source has it), conflict (the archive had something else under the same UID before),
    #: vanished (the source names less than before), incomplete (verified but for objects that can't be had),
    #: skipped (the plan leaves it out), waived (a person decided to leave it as it is), rolled-back
    state: Mapped[str] = mapped_column(String(16), default="ready")
    reason: Mapped[str] = mapped_column(Text, default="")
    verified_at: Mapped[str | None] = mapped_column(Moment)


class MigrationInstance(Base):
    __tablename__ = "migration_instance"
    study_id: Mapped[int] = mapped_column(ForeignKey("migration_study.id"), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    series_uid: Mapped[str] = mapped_column(Uid)
    sop_class: Mapped[str | None] = mapped_column(Uid)
    source_syntax: Mapped[str | None] = mapped_column(Uid)
    stored_syntax: Mapped[str | None] = mapped_column(Uid)
    size: Mapped[int | None] = mapped_column(BigInteger)
    #: Of the source's own file, as the source or the file itself says.
    source_md5: Mapped[str | None] = mapped_column(String(32))
    #: Of the bytes that passed through us on their way.
    given_md5: Mapped[str | None] = mapped_column(String(32))
    #: SHA-256 of what Orthanc received, from the archive's journal.
    arrived_sha256: Mapped[str | None] = mapped_column(String(64))
    #: How far it is proven: 0 none, 1 set, 2 arrival, 3 source.
    level: Mapped[int] = mapped_column(SmallInteger, default=0)
    #: 1: the archive had this SOP Instance UID before anything of the study was moved.
    was_there: Mapped[int] = mapped_column(SmallInteger, default=0)
    orthanc_id: Mapped[str | None] = mapped_column(String(44))
    source_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of what the source gave
    stored_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of what Orthanc holds
    stored_md5: Mapped[str | None] = mapped_column(String(32))
    #: Tags that differ from the source because the plan says so, as (gggg,eeee), joined by blanks.
    coerced: Mapped[str | None] = mapped_column(Text)
    #: expected, stored, equal, different, missing, rolled-back
    verdict: Mapped[str] = mapped_column(String(16), default="expected")
    reason: Mapped[str | None] = mapped_column(Text)  # why it is missing, or in which tags it differs


class Certificate(Base):
    __tablename__ = "certificate"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    issued_at: Mapped[str] = mapped_column(Moment)
    #: Its first line, canonical JSON, as it was signed; the lines of studies and instances lie in CertificatePart.
    #: Empty while they are being written.
    document: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[str] = mapped_column(Text)  # base64, Ed25519
    public_key: Mapped[str] = mapped_column(Text)  # PEM
    #: The number in migration.verifier.FORMAT; 2 was one JSON object, and is read by nobody any more.
    format: Mapped[int] = mapped_column(SmallInteger, server_default="2")
