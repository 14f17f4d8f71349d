"""The audit chains, and the journals of the archive's nodes."""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, SmallInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Leased, Moment, Uid


class ChainHead(Base):
    """The locked head of each chain: who appends reads and writes this row in the same transaction.

    For a plugin's journal it is the gateway's cursor, too: everything up to `seq` is committed here.
    """

    __tablename__ = "chain_head"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(default=0)
    hash: Mapped[str] = mapped_column(String(64), default="")


class FollowerLease(Leased, Base):
    """Which node of several records what is stored (one row, id 1): `fence` is the epoch, `lease_owner` the node."""

    __tablename__ = "follower_lease"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))  # free, following


class NodeJournal(Base):
    """A journal of one of several nodes: how far the node said it goes, and when it last said so."""

    __tablename__ = "node_journal"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    node: Mapped[str] = mapped_column(String(40))
    seq: Mapped[int] = mapped_column(default=0)
    seen_at: Mapped[str] = mapped_column(Moment)


class FencedEntries(Base):
    """Entries of a node that another one had relieved: what they say of stores is told by the other one's."""

    __tablename__ = "fenced_entries"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int | None]  # none yet: until the node records again


class AuditEntry(Base):
    """A sealed entry (zambezi.chain); the other columns are copies of its payload's facts, to search by."""

    __tablename__ = "audit_entry"
    #: Failures are few, and looked for among millions.
    __table_args__ = (
        Index(
            "ix_audit_entry_failed", "at", sqlite_where=text("outcome > 0"), postgresql_where=text("outcome > 0")
        ),
    )  # fmt: skip
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    event: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[str] = mapped_column(Moment, index=True)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    sop_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    who: Mapped[str | None] = mapped_column(String(200), index=True)
    patient_id: Mapped[str | None] = mapped_column(String(64), index=True)
    outcome: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")  # zambezi.events.outcome
