"""What proves a migration, besides the ledger: the drawn sample, the certificate's lines, what is taken back."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class MigrationSample(Base):
    """Which studies are compared with the source: those whose rank (migration.sampling) is not above the threshold."""

    __tablename__ = "migration_sample"
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), primary_key=True)
    asked: Mapped[int]  # studies, as the plan says
    seed: Mapped[str] = mapped_column(String(64))
    threshold: Mapped[str] = mapped_column(
        String(64)
    )  # hex; of those that are found later it draws as many of a hundred
    population: Mapped[int]  # studies that it was drawn from
    drawn_at: Mapped[str] = mapped_column(Moment)
    drawn_by: Mapped[str] = mapped_column(String(80))


class CertificatePart(Base):
    """Some of a certificate's lines, in their order, compressed (zlib)."""

    __tablename__ = "certificate_part"
    certificate_id: Mapped[int] = mapped_column(ForeignKey("certificate.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class MigrationRollback(Base):
    """A study that is to be taken back: by this deletion, which another person must confirm."""

    __tablename__ = "migration_rollback"
    study_id: Mapped[int] = mapped_column(ForeignKey("migration_study.id"), primary_key=True)
    deletion_id: Mapped[int] = mapped_column(ForeignKey("deletion.id"), primary_key=True)
    asked_by: Mapped[str] = mapped_column(String(80))
    asked_at: Mapped[str] = mapped_column(Moment)
    because: Mapped[str] = mapped_column(Text)
    settled_at: Mapped[str | None] = mapped_column(Moment)  # the study's state says so since
