"""Links that share studies with somebody who has no account: made, opened with or without a PIN, revoked.

The secret in the link is random and kept as its SHA-256 alone; a PIN as Argon2id. Whoever opens a link gets a token
that names its studies (zambezi.access.tokens); revoking the link revokes every token that came from it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, users
from zambezi.access.tokens import Token, begin
from zambezi.config.settings import Session as SessionSettings
from zambezi.database.tables import ShareLink

#: Wrong PINs in a row that lock a link for a while, and wrong ones in all that end it.
WRONG_IN_A_ROW, WRONG_IN_ALL = 5, 20
LOCKED_FOR = timedelta(minutes=15)
PIN = re.compile(r"[0-9]{4,12}")
MOST_STUDIES = 20


class ShareRefused(ValueError):
    """The link can't be made like this; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """Whether a link opens now; `why` is one of: open, expired, revoked, locked, pin-wanted, pin-wrong."""

    opens: bool
    why: str


def verdict(link: ShareLink, pin_is_right: bool | None, now: datetime) -> Verdict:
    """Pure. `pin_is_right` is None where none was given."""
    if link.revoked_at is not None:
        return Verdict(False, "revoked")
    if now >= clock.parse(link.expires_at):
        return Verdict(False, "expired")
    if users.is_locked(link.locked_until, now):
        return Verdict(False, "locked")
    if link.pin_hash is not None and not pin_is_right:
        return Verdict(False, "pin-wanted" if pin_is_right is None else "pin-wrong")
    return Verdict(True, "open")


def subject(link: ShareLink) -> str:
    """Whom tokens that came from the link speak for; revoking it revokes them all."""
    return f"share:{link.id}"


def make(
    session: Session, *, studies: Sequence[str], who: str, recipient: str, expires: datetime, pin: str, download: bool,
    longest_days: int, now: datetime, writer: str,
) -> tuple[ShareLink, str]:  # fmt: skip
    """A new link and its secret, which is told this once; ShareRefused with the reason."""
    if not 0 < len(studies) <= MOST_STUDIES:
        raise ShareRefused(f"studies: found {len(studies)}, allowed are 1 to {MOST_STUDIES}")
    if not now < expires <= now + timedelta(days=longest_days):
        raise ShareRefused(f"it must end later than now, and within {longest_days} days (Access.ShareDays)")
    if pin and not PIN.fullmatch(pin):
        raise ShareRefused("the PIN must have 4 to 12 digits")
    secret = secrets.token_urlsafe(24)
    link = ShareLink(
        secret_sha256=_digest(secret), studies=list(dict.fromkeys(studies)), recipient=recipient.strip()[:200],
        pin_hash=users.hashed(pin) if pin else None, download=download, made_by=who, made_at=clock.text(now),
        expires_at=clock.text(expires),
    )  # fmt: skip
    session.add(link)
    session.flush()
    for study_uid in link.studies:
        audit.append(
            session, writer, "share-changed", now, who=who, share=link.id, study_uid=study_uid, change="made",
            expires=link.expires_at, pin=bool(pin), download=download,
        )  # fmt: skip
    return link, secret


def find(session: Session, secret: str) -> ShareLink | None:
    """The link that a secret opens."""
    return session.scalars(select(ShareLink).where(ShareLink.secret_sha256 == _digest(secret))).one_or_none()


def enter(
    session: Session, link: ShareLink, pin_is_right: bool | None, settings: SessionSettings, now: datetime, writer: str,
    ip: str,
) -> tuple[Token | None, Verdict]:  # fmt: skip
    """Open the link: the token, or why not. Each opening and each wrong PIN is audited; too many end the link.

    Whether the PIN is right was found out beforehand: that is slow on purpose, and not for a transaction.
    """
    decided = verdict(link, pin_is_right, now)
    if decided.why == "pin-wrong":
        link.failures, link.wrong = link.failures + 1, link.wrong + 1
        if link.wrong >= WRONG_IN_ALL:
            revoke(session, link, "too many wrong PINs", now, writer)
        elif link.failures >= WRONG_IN_A_ROW:
            link.failures, link.locked_until = 0, clock.text(now + LOCKED_FOR)
    if not decided.opens:
        if decided.why != "pin-wanted":
            audit.append(
                session, writer, "sign-in-failed", now, share=link.id, reason=f"share link: {decided.why}", ip=ip
            )
        return None, decided
    link.failures, link.opened, link.opened_at = 0, link.opened + 1, clock.text(now)
    longest = int(settings.absolute_hours * 3600)
    lasts = min(longest, int((clock.parse(link.expires_at) - now).total_seconds()))
    token = begin(
        subject(link), "share", "guest", int(now.timestamp()), lasts, tuple(link.studies), download=link.download
    )
    for study_uid in link.studies:
        audit.append(
            session, writer, "share-opened", now, who=token.subject, share=link.id, study_uid=study_uid,
            session=token.session, ip=ip,
        )  # fmt: skip
    return token, decided


def revoke(session: Session, link: ShareLink, who: str, now: datetime, writer: str) -> None:
    """The link opens nothing from now on, nor do the tokens that came from it."""
    if link.revoked_at is not None:
        return
    link.revoked_at, link.revoked_by = clock.text(now), who
    users.revoke(session, [(subject(link), int(clock.parse(link.expires_at).timestamp()))])
    for study_uid in link.studies:
        audit.append(
            session, writer, "share-changed", now, who=who, share=link.id, study_uid=study_uid, change="revoked"
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
