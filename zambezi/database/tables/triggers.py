"""How far HL7 triggers have looked."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base


class TriggerCursor(Base):
    """Up to which entry of a chain gateway.triggers has looked; the row "" says that it has begun to look."""

    __tablename__ = "trigger_cursor"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(default=0)
