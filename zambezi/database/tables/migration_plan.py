"""Plans of migrations, version by version, and whose the studies of a source are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class PlanVersion(Base):
    """One version of a plan as it was taken; the newest is in force. Never changed."""

    __tablename__ = "migration_plan"
    __table_args__ = (UniqueConstraint("project_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    version: Mapped[int]
    document: Mapped[dict[str, Any]] = mapped_column(JSON)  # as the file says it (config.settings.migration_plan)
    sha256: Mapped[str] = mapped_column(String(64))  # of the document's canonical JSON
    made_by: Mapped[str] = mapped_column(String(80))
    because: Mapped[str] = mapped_column(Text)
    made_at: Mapped[str] = mapped_column(Moment)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # what it did when it was taken


class MigrationMatch(Base):
    """A patient as a source names one, and who that is here. One row for each way in which the source says it."""

    __tablename__ = "migration_match"
    __table_args__ = (
        UniqueConstraint("project_id", "identity"), Index("ix_migration_match_state", "project_id", "state"),
    )  # fmt: skip
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    #: Digest of all that the source says of the patient: one number that two names have is two rows.
    identity: Mapped[str] = mapped_column(String(64))
    patient_id: Mapped[str] = mapped_column(String(64), default="")  # the source's
    said: Mapped[dict[str, str]] = mapped_column(JSON)  # the source's, by DICOM keyword
    #: matched (by score), new (nobody here resembles), held (a person must say), decided (a person, or a person's rule)
    state: Mapped[str] = mapped_column(String(16))
    patient_key: Mapped[int | None] = mapped_column(ForeignKey("patient.id"))  # who it is here; NULL: one of its own
    given_id: Mapped[str] = mapped_column(String(64), default="")  # decided: of its own, under this identifier
    score: Mapped[int] = mapped_column(default=0)  # of the likeliest, in hundredths
    reason: Mapped[str] = mapped_column(Text, default="")  # why it is held; no patient's data
    #: [{"patient": id, "score", "reasons": [[code, weight], ...]}], the likeliest first
    candidates: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    decided_by: Mapped[str] = mapped_column(String(80), default="")
    decided_at: Mapped[str | None] = mapped_column(Moment)
    because: Mapped[str] = mapped_column(Text, default="")
