"""How migrations run: how much a source bears, and the passes that look for what is new there."""

from __future__ import annotations

from sqlalchemy import Float, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class MigrationPace(Base):
    """How many studies at once a source is asked for now; every worker of every process shares the row."""

    __tablename__ = "migration_pace"
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    slots: Mapped[int] = mapped_column(default=1)
    #: Doubled up to here, then one more at a time; 0: no trouble was met yet.
    doubles_until: Mapped[int] = mapped_column(default=0)
    #: Since the last step: studies that went well while all slots were used, their images, and the seconds they took.
    studies: Mapped[int] = mapped_column(default=0)
    images: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(Float, default=0.0)
    #: The quickest step so far: seconds an image, and with how many slots; 0: none yet.
    quickest: Mapped[float] = mapped_column(Float, default=0.0)
    quickest_slots: Mapped[int] = mapped_column(default=0)
    because: Mapped[str] = mapped_column(Text, default="")  # why it is what it is, for a person
    cut_at: Mapped[str | None] = mapped_column(Moment)
    changed_at: Mapped[str] = mapped_column(Moment, default="")


class MigrationPass(Base):
    """One more look at the whole source after the inventory: what was new there."""

    __tablename__ = "migration_pass"
    __table_args__ = (UniqueConstraint("project_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    number: Mapped[int]
    began_at: Mapped[str] = mapped_column(Moment)
    ended_at: Mapped[str | None] = mapped_column(Moment)  # none: it was cut off, and proves nothing
    studies: Mapped[int] = mapped_column(default=0)  # named by the source
    counted: Mapped[int] = mapped_column(default=0)  # of these, counted image by image
    new_studies: Mapped[int] = mapped_column(default=0)
    new_instances: Mapped[int] = mapped_column(default=0)  # in studies that were known
    doubts: Mapped[int] = mapped_column(default=0)
    who: Mapped[str] = mapped_column(String(80), default="")
