"""What came from an old information system: the ledger of its rows, and its reports as they were."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class LegacyImport(Base):
    """One old system, by the name in its mapping; each run over its rows is a pass."""

    __tablename__ = "legacy_import"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    mapping: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    folder: Mapped[str] = mapped_column(Text, default="")  # where the mapping lies
    mapping_sha256: Mapped[str] = mapped_column(String(64), default="")
    #: previewed, running, done
    state: Mapped[str] = mapped_column(String(16), default="previewed")
    pass_no: Mapped[int] = mapped_column(default=0)
    #: Raised by whoever begins to run; who finds another number than its own stops.
    fence: Mapped[int] = mapped_column(default=0)
    #: Of the pass under way: rows that are behind it, by kind, and what its files were.
    position: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    fingerprint: Mapped[str] = mapped_column(String(64), default="")
    #: What was seen of the sources: encodings, delimiters, counts, doubts.
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    #: Sample rows, each field's raw value and result.
    preview: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    who: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)
    finished_at: Mapped[str | None] = mapped_column(Moment)


class LegacyRow(Base):
    """One row of an old system, whole, and what became of it."""

    __tablename__ = "legacy_row"
    __table_args__ = (
        UniqueConstraint("import_id", "kind", "key"),
        Index("ix_legacy_row_state", "import_id", "kind", "state"),
        Index("ix_legacy_row_subject", "import_id", "subject"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(ForeignKey("legacy_import.id"))
    kind: Mapped[str] = mapped_column(String(8))  # patient, exam, report
    key: Mapped[str] = mapped_column(String(200))
    place: Mapped[str] = mapped_column(String(200))  # where it stands: file and line, message, row of a query
    pass_no: Mapped[int] = mapped_column(default=0)  # the last pass that met it
    #: taken; held (whose patient it is, a person says), waiting (for its patient), refused (can't be taken as it is),
    #: changed (taken before, now otherwise in the source), left-out (by a person's decision)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str] = mapped_column(String(64), default="")  # SHA-256 of what it means by the mapping
    #: Where the newest word counts: the digests of all that was said under this key, and how many this pass has met.
    history: Mapped[list[str]] = mapped_column(JSON, default=list)
    met: Mapped[int] = mapped_column(default=0)
    raw: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    subject: Mapped[str] = mapped_column(String(140), default="")  # identifier and issuer of its patient
    #: Of a held patient: [{"patient": id, "score": 0.97, "reasons": [...]}], the likeliest first.
    candidates: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    patient_key: Mapped[int | None] = mapped_column(ForeignKey("patient.id"))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"))
    report_id: Mapped[int | None] = mapped_column(ForeignKey("legacy_report.id"))
    #: Whether what it became was made by it; what was here before is nobody's to change from an old system.
    is_ours: Mapped[bool] = mapped_column(default=False)
    decided_by: Mapped[str | None] = mapped_column(String(80))
    decided_at: Mapped[str | None] = mapped_column(Moment)
    decision: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class LegacyReport(Base):
    """One version of a report that another system wrote: it is shown as that, and nobody changes or signs it here."""

    __tablename__ = "legacy_report"
    __table_args__ = (UniqueConstraint("source", "source_key", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String(64))  # the import's name
    source_key: Mapped[str] = mapped_column(String(200))
    version: Mapped[int] = mapped_column(default=1)
    is_latest: Mapped[bool] = mapped_column(default=True)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"), index=True)
    patient_key: Mapped[int | None] = mapped_column(ForeignKey("patient.id"), index=True)
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    title: Mapped[str] = mapped_column(String(200), default="")
    author: Mapped[str] = mapped_column(String(200), default="")  # as the old system wrote it
    written_at: Mapped[str | None] = mapped_column(Moment)
    status: Mapped[str] = mapped_column(String(64), default="")  # as the old system wrote it
    text: Mapped[str] = mapped_column(Text, default="")
    text_sha256: Mapped[str] = mapped_column(String(64), default="")  # of the text in UTF-8
    media: Mapped[str] = mapped_column(String(64), default="text/plain")
    document: Mapped[bytes | None] = mapped_column(LargeBinary)  # the very file
    document_sha256: Mapped[str | None] = mapped_column(String(64))
    sop_uid: Mapped[str | None] = mapped_column(Uid)  # of the DICOM object that the file is, or that holds it here
    #: "" (nobody asked for it in the archive), due, stored (put there and read back), there (it came with the study,
    #: in other bytes), refused
    archive_state: Mapped[str] = mapped_column(String(16), default="", server_default="", index=True)
    archive_reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    archived_at: Mapped[str | None] = mapped_column(Moment)
    imported_at: Mapped[str] = mapped_column(Moment)
