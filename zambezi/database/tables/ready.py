"""Signs that a study is complete, which rules may go by."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class ReadySign(Base):
    """What a modality told of a study, by performed procedure step or storage commitment (gateway.ready)."""

    __tablename__ = "ready_sign"
    study_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    by: Mapped[str] = mapped_column(String(16), primary_key=True)  # mpps, commitment
    at: Mapped[str] = mapped_column(Moment, index=True)
    instances: Mapped[int | None]  # as many as it counts; NULL where it doesn't say
