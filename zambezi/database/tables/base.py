"""What all tables have in common, and what all work has that one worker at a time carries out."""

from __future__ import annotations

from sqlalchemy import MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Moment = String(27)


Uid = String(64)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Leased:
    """Work that one worker at a time carries out (zambezi.leases): who has it, until when, and the claim's fence."""

    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[str] = mapped_column(Moment)
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[str | None] = mapped_column(Moment)
    fence: Mapped[int] = mapped_column(default=0)
