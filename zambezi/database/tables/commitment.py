"""Storage commitment: what modalities asked us to answer for, and how far the answer is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Leased, Moment, Uid


class CommitmentRequest(Leased, Base):
    """One N-ACTION of a modality (DICOM PS3.4 J.3.2): it is here before the modality gets its answer."""

    __tablename__ = "commitment_request"
    __table_args__ = (
        UniqueConstraint("aet", "transaction_uid"),
        Index("ix_commitment_request_due", "state", "next_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    aet: Mapped[str] = mapped_column(String(16))  # who asked
    called_aet: Mapped[str] = mapped_column(String(16))  # what it called us
    transaction_uid: Mapped[str] = mapped_column(Uid)
    instances: Mapped[list[list[str]]] = mapped_column(JSON, default=list)  # [[SOP class, SOP instance], ...] asked for
    #: due, working, retrying, reported, parked, cancelled; elsewhere: asked at Orthanc's own port, which answered it
    state: Mapped[str] = mapped_column(String(16), default="due")
    #: [[SOP class, SOP instance, Failure Reason, why in words], ...]; means something once `checked_at` is there
    failed: Mapped[list[list[Any]]] = mapped_column(JSON, default=list)
    study_uids: Mapped[list[str]] = mapped_column(JSON, default=list)  # of what was found
    outcome: Mapped[str] = mapped_column(Text, default="")
    asked_at: Mapped[str] = mapped_column(Moment)
    checked_at: Mapped[str | None] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)
