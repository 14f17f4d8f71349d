"""What proves a migration, besides the ledger: the drawn sample, the certificate's lines, what is taken back."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


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


class MigrationExtra(Base):
    """What an Orthanc holds of a study besides images, and what became of it."""

    __tablename__ = "migration_extra"
    study_id: Mapped[int] = mapped_column(ForeignKey("migration_study.id"), primary_key=True, autoincrement=False)
    level: Mapped[str] = mapped_column(String(8), primary_key=True)  # patient, study, series, instance
    uid: Mapped[str] = mapped_column(Uid, primary_key=True)  # of the study, series or instance; "" of the patient
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # label, metadata, attachment; any: nobody knows
    name: Mapped[str] = mapped_column(String(100), primary_key=True)  # the label itself; else its number, or name
    #: due (written down before it is put), carried (put, read back, equal), there (the archive had the same before),
    #: other (the archive has another one, which stays), left (it can't be had or held), rolled-back
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None] = mapped_column(String(64))  # of its bytes at the source
