"""Signs of life."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class ProcessState(Base):
    """What each process last said of itself: `zambezi status` and the health page read it."""

    __tablename__ = "process_state"
    process: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[str] = mapped_column(Moment)
    version: Mapped[str] = mapped_column(String(40), default="")
    configuration: Mapped[str] = mapped_column(String(64), default="")
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    last_error: Mapped[str] = mapped_column(Text, default="")
    last_error_at: Mapped[str | None] = mapped_column(Moment)
