"""What lies in the folders that are migrated: every file, what it is, and what becomes of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class FolderFile(Base):
    """One file of a source, or one member of an archive in it (migration.folders)."""

    __tablename__ = "migration_file"
    __table_args__ = (
        UniqueConstraint("source", "key"),
        Index("ix_migration_file_study", "source", "kind", "study_uid", "sop_uid"),
        Index("ix_migration_file_verdict", "source", "verdict"),
        Index("ix_migration_file_medium", "source", "medium"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String(64))  # a name from Migration.Sources
    key: Mapped[str] = mapped_column(String(64))  # SHA-256 of `place`, which may be longer than an index takes
    place: Mapped[str] = mapped_column(Text)  # migration.folders.places; may tell a patient's name
    medium: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the folder with a DICOMDIR to which it belongs
    extension: Mapped[str] = mapped_column(String(8), default="")
    #: The row of the archive in which it lies, at whatever depth.
    archive_id: Mapped[int | None] = mapped_column(index=True)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    changed: Mapped[int] = mapped_column(BigInteger, default=0)  # its time of change, nanoseconds
    #: The walk by which it was last seen.
    walk: Mapped[int] = mapped_column(default=0)
    #: dicom, no-identity, dicomdir, archive (ZIP), packed (otherwise), other, link, special, unread, changing, absent
    #: (a DICOMDIR names it)
    kind: Mapped[str] = mapped_column(String(16))
    #: What becomes of it: "" not decided yet, migrate, copy (of `same_as`), conflict (with `same_as`), held, listed,
    #: gone (a later walk did not meet it)
    verdict: Mapped[str] = mapped_column(String(16), default="")
    reason: Mapped[str] = mapped_column(Text, default="")  # in words, without a patient's name
    same_as: Mapped[int | None] = mapped_column()
    named: Mapped[bool | None] = mapped_column()  # by the DICOMDIR above it; NULL where there is none
    md5: Mapped[str | None] = mapped_column(String(32))
    digest: Mapped[str | None] = mapped_column(String(64))  # canonical; only where there are several of one UID
    held_sha256: Mapped[str | None] = mapped_column(String(64))  # under which it lies in the hold
    study_uid: Mapped[str | None] = mapped_column(Uid)
    series_uid: Mapped[str | None] = mapped_column(Uid)
    sop_uid: Mapped[str | None] = mapped_column(Uid)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    sop_class: Mapped[str | None] = mapped_column(Uid)
    syntax: Mapped[str | None] = mapped_column(Uid)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # by DICOM keyword


class FolderWalk(Base):
    """How far the latest walk through a source's folder is."""

    __tablename__ = "migration_walk"
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(default=1)
    started_at: Mapped[str] = mapped_column(Moment)
    #: Of the last sign of life.
    updated_at: Mapped[str] = mapped_column(Moment)
    finished_at: Mapped[str | None] = mapped_column(Moment)
    files: Mapped[int] = mapped_column(default=0)  # seen by this walk
    read: Mapped[int] = mapped_column(default=0)  # of them new or changed, so that they were read
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes read
