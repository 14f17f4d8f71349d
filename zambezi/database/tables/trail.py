"""What stands beside the audit chains: signed checkpoints, sealed segments, and how far a collector has them."""

from __future__ import annotations

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class AuditCheckpoint(Base):
    """A signed statement of where every chain stood (zambezi.checkpoints), as the bytes that were signed."""

    __tablename__ = "audit_checkpoint"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(Moment)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[str] = mapped_column(String(100))
    key_id: Mapped[str] = mapped_column(String(32))


class AuditSegment(Base):
    """Entries `first` to `last` of a chain, sealed into a file (zambezi.segments); `document` is what was signed.

    Once `pruned_at` is set, the table has them no longer.
    """

    __tablename__ = "audit_segment"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))  # of the last entry
    file: Mapped[str] = mapped_column(String(200))
    document: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[str] = mapped_column(String(100))
    key_id: Mapped[str] = mapped_column(String(32))
    sealed_at: Mapped[str] = mapped_column(Moment)
    pruned_at: Mapped[str | None] = mapped_column(Moment)


class AuditCollector(Base):
    """A collector (HOST:PORT) as it answers: since when it fails with what; "" and none where it doesn't."""

    __tablename__ = "audit_collector"
    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    sent_at: Mapped[str | None] = mapped_column(Moment)
    failures: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[str | None] = mapped_column(Moment)
    error: Mapped[str] = mapped_column(Text, default="")
    error_since: Mapped[str | None] = mapped_column(Moment)


class AuditShipment(Base):
    """How far a collector has a chain; under the name `checkpoints`, how far it has those."""

    __tablename__ = "audit_shipment"
    collector: Mapped[str] = mapped_column(String(300), primary_key=True)
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(default=0)
