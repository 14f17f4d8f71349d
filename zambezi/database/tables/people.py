"""Users, and what they may no longer."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Moment


class User(Base):
    __tablename__ = "app_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(80), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(40))
    language: Mapped[str | None] = mapped_column(String(8))
    password_hash: Mapped[str] = mapped_column(Text)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    totp_secret: Mapped[str | None] = mapped_column(String(64))
    totp_last_step: Mapped[int | None]
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[str | None] = mapped_column(Moment)
    disabled_at: Mapped[str | None] = mapped_column(Moment)
    created_at: Mapped[str] = mapped_column(Moment)
    #: What narrows the person's view (zambezi.access.scope), joined by backslashes; empty doesn't narrow.
    scope_sites: Mapped[str] = mapped_column(String(400), default="")
    scope_modalities: Mapped[str] = mapped_column(String(200), default="")
    scope_referrer: Mapped[str] = mapped_column(String(200), default="")


class Revocation(Base):
    """A sign-in (session id of the token), or all of a share link's (its subject), that ended before its token did.

    Pushed to the plugin.
    """

    __tablename__ = "revocation"
    session: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires: Mapped[int]
