"""Who may see what beyond a role: studies that a narrow sign-in opened, and links that share studies."""

from __future__ import annotations

from sqlalchemy import JSON, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment, Uid


class StudyOpening(Base):
    """A study that a person who sees a part of the site opened in one sign-in: what their token names."""

    __tablename__ = "study_opening"
    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[str] = mapped_column(String(32), index=True)
    login: Mapped[str] = mapped_column(String(80))
    study_uid: Mapped[str] = mapped_column(Uid)
    #: Seconds since 1970 from which it is closed again (break-glass); None: as long as the sign-in.
    ends: Mapped[int | None]
    opened_at: Mapped[str] = mapped_column(Moment, index=True)


class ShareLink(Base):
    """A link that opens named studies to whoever has it (and its PIN). The secret itself is kept nowhere."""

    __tablename__ = "share_link"
    id: Mapped[int] = mapped_column(primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    studies: Mapped[list[str]] = mapped_column(JSON)
    recipient: Mapped[str] = mapped_column(String(200), default="")
    pin_hash: Mapped[str | None] = mapped_column(Text)
    download: Mapped[bool] = mapped_column(default=False)
    made_by: Mapped[str] = mapped_column(String(80), index=True)
    made_at: Mapped[str] = mapped_column(Moment)
    expires_at: Mapped[str] = mapped_column(Moment)
    revoked_at: Mapped[str | None] = mapped_column(Moment)
    revoked_by: Mapped[str | None] = mapped_column(String(80))
    failures: Mapped[int] = mapped_column(default=0)  # wrong PINs, in a row
    wrong: Mapped[int] = mapped_column(default=0)  # wrong PINs, in all
    locked_until: Mapped[str | None] = mapped_column(Moment)
    opened: Mapped[int] = mapped_column(default=0)
    opened_at: Mapped[str | None] = mapped_column(Moment)
