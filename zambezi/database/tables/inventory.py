"""What an inventory has asked a source so far: killed at any question, it goes on with the next."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class MigrationSurvey(Base):
    """An inventory that is taken, or was: the first, or one of those that look again."""

    __tablename__ = "migration_survey"
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # from 1
    #: asking, counting, done
    state: Mapped[str] = mapped_column(String(16))
    began_at: Mapped[str] = mapped_column(Moment)  # its day is the "today" of every resumption
    ended_at: Mapped[str | None] = mapped_column(Moment)
    named: Mapped[int] = mapped_column(default=0)  # studies
    counted: Mapped[int] = mapped_column(default=0)
    new: Mapped[int] = mapped_column(default=0)
    grown: Mapped[int] = mapped_column(default=0)
    gone: Mapped[int] = mapped_column(default=0)  # named by an earlier pass, not by this one


class MigrationProbe(Base):
    """What a source could do when that was last tried."""

    __tablename__ = "migration_probe"
    source: Mapped[str] = mapped_column(String(64), primary_key=True)  # a name from Migration.Sources
    at: Mapped[str] = mapped_column(Moment)
    #: By ability: [whether it has it, in words what was seen]; empty with a reason where it did not answer at all.
    abilities: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    reason: Mapped[str] = mapped_column(Text, default="")


class MigrationSlice(Base):
    """One question of an inventory, and what was answered."""

    __tablename__ = "migration_slice"
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), primary_key=True)
    survey_number: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # from 0, in the order of asking
    matching: Mapped[dict[str, Any]] = mapped_column(JSON)
    #: answered; cut off (the source said so)
    outcome: Mapped[str] = mapped_column(String(16))
    found: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(Text, default="")
    asked_at: Mapped[str] = mapped_column(Moment)
    #: JSON, deflated; taken away when the inventory is done: what was found is in the ledger then.
    answers: Mapped[bytes | None] = mapped_column(LargeBinary)
