"""What deliveries leave behind beside their rows: commitments that were asked for, pseudonyms that were given."""

from __future__ import annotations

from sqlalchemy import JSON, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class CommitmentAsked(Base):
    """A storage commitment that a destination is asked for (PS3.4 J), and what it answered: here before it is asked."""

    __tablename__ = "commitment_asked"
    transaction_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    delivery_id: Mapped[str] = mapped_column(String(40), index=True)
    aet: Mapped[str] = mapped_column(String(16))  # who must answer
    asked_at: Mapped[str] = mapped_column(Moment)
    until: Mapped[str] = mapped_column(Moment)  # nothing is waited for longer
    answered_at: Mapped[str | None] = mapped_column(Moment)
    committed: Mapped[list[str]] = mapped_column(JSON, default=list)  # SOP Instance UIDs
    failures: Mapped[list[list[str]]] = mapped_column(JSON, default=list)  # [SOP Instance UID, Failure Reason in words]
    closed_at: Mapped[str | None] = mapped_column(Moment)  # the delivery has taken the answer, or waits no longer


class PseudonymKey(Base):
    """What makes the pseudonyms of one destination; whoever has it can make them again from the real identifiers."""

    __tablename__ = "pseudonym_key"
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)


class Pseudonym(Base):
    """Under which name a patient or study went out to a destination; written before it goes."""

    __tablename__ = "pseudonym"
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(Uid, primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))  # patient, study
    original: Mapped[str] = mapped_column(String(64), index=True)  # Patient ID, Study Instance UID
    made_at: Mapped[str] = mapped_column(Moment)
