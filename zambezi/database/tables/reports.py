"""Reports."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class Report(Base):
    """One version of a report; a signed version never changes, an addendum is the next version."""

    __tablename__ = "report"
    __table_args__ = (UniqueConstraint("study_uid", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"), index=True)
    study_uid: Mapped[str] = mapped_column(Uid, index=True)
    version: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(16), default="draft")  # draft, final
    edits: Mapped[int] = mapped_column(default=0)  # optimistic lock of the draft
    technique: Mapped[str] = mapped_column(Text, default="")
    findings: Mapped[str] = mapped_column(Text, default="")
    impression: Mapped[str] = mapped_column(Text, default="")
    language: Mapped[str] = mapped_column(String(8), default="pt")
    author: Mapped[str] = mapped_column(String(80))
    signed_by: Mapped[str | None] = mapped_column(String(80))
    signed_at: Mapped[str | None] = mapped_column(Moment)
    pdf: Mapped[bytes | None] = mapped_column(LargeBinary)
    pdf_sha256: Mapped[str | None] = mapped_column(String(64))
    #: SOP Instance UID of the Encapsulated PDF, made when signed; stored_at once the archive has it
    sop_uid: Mapped[str | None] = mapped_column(Uid)
    stored_at: Mapped[str | None] = mapped_column(Moment)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)
