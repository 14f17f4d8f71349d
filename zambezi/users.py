"""People who sign in: accounts, passwords, the lock-out, the second factor, the end of a sign-in.

Passwords are kept as Argon2id (RFC 9106), second factors are TOTP (RFC 6238). Decisions take `now`; whoever
changes an account does it inside the caller's transaction and leaves an audit entry on its chain.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock
from zambezi.access import ROLES
from zambezi.access.tokens import Token
from zambezi.config.settings import Session as SessionSettings
from zambezi.database import generations
from zambezi.database.tables import AuditEntry, Revocation, User

SHORTEST_PASSWORD = 10
#: A step of TOTP lasts 30 s (RFC 6238); a clock that is one step early or late is forgiven.
TOTP_STEP_S = 30

# 19 MiB and two passes (OWASP's second choice): several sign-ins at once fit into a small server.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
#: Verified where there is no such login, so that the answer takes as long as for a real one.
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))


class UserRefused(ValueError):
    """What was asked can't be done with this account; the text says why."""


@dataclass(frozen=True)
class Lockout:
    """What a sign-in attempt does to the account's counter: so many failures, locked until then."""

    failures: int
    locked_until: datetime | None


def is_locked(locked_until: str | None, now: datetime) -> bool:
    """Whether an account takes no password at this moment."""
    return locked_until is not None and now < clock.parse(locked_until)


def after_failure(failures: int, now: datetime, settings: SessionSettings) -> Lockout:
    """One more wrong password or code: the counter, and the lock once there were too many."""
    failures += 1
    if failures < settings.lockout_failures:
        return Lockout(failures, None)
    return Lockout(0, now + timedelta(minutes=settings.lockout_minutes))


def note_failure(user: User, now: datetime, settings: SessionSettings) -> bool:
    """Count a wrong password or code; whether the account is locked now."""
    decided = after_failure(user.failures, now, settings)
    user.failures = decided.failures
    user.locked_until = clock.text(decided.locked_until) if decided.locked_until else None
    return decided.locked_until is not None


def hashed(password: str) -> str:
    """The Argon2id form of a password."""
    return _hasher.hash(password)


def password_is_right(user: User | None, password: str) -> bool:
    """Whether it is the account's password; takes as long where there is no such account."""
    try:
        right = _hasher.verify(user.password_hash if user else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return right and user is not None


def is_password(password_hash: str, password: str) -> bool:
    """Whether this is what was hashed."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def password_faults(password: str, login: str) -> list[Literal["short", "login", "simple"]]:
    """Why a new password won't do; empty if it will."""
    faults: list[Literal["short", "login", "simple"]] = []
    if len(password) < SHORTEST_PASSWORD:
        faults.append("short")
    if login.lower() in password.lower():
        faults.append("login")
    if len(set(password)) < 5:
        faults.append("simple")
    return faults


def one_time_password() -> str:
    """A password to be read out or copied by hand: no letters that look alike, in groups."""
    letters = "".join(c for c in string.ascii_lowercase + string.digits if c not in "il1o0")
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))


def new_totp_secret(session_key: str, sign_in: str) -> str:
    """The secret that is offered to one sign-in: the same each time its page is shown, kept nowhere until confirmed."""
    seed = hmac.digest(bytes.fromhex(session_key), f"totp:{sign_in}".encode(), "sha256")
    return base64.b32encode(seed[:20]).decode()


def totp_address(secret: str, login: str, site: str) -> str:
    """The otpauth address that an authenticator app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=login, issuer_name=site)


def totp_step(secret: str, code: str, last_step: int | None, now: datetime) -> int | None:
    """The step whose code was given; None if it is wrong, or was used already (replay)."""
    totp = pyotp.TOTP(secret)
    current = int(now.timestamp()) // TOTP_STEP_S
    digits = "".join(code.split())
    for step in (current, current - 1, current + 1):
        fits = hmac.compare_digest(totp.at(step * TOTP_STEP_S).encode(), digits.encode())
        if fits and (last_step is None or step > last_step):
            return step
    return None


def find(session: Session, login: str) -> User | None:
    """The account of a login, in whatever case it was typed."""
    return session.scalars(select(User).where(User.login == login.strip().lower())).one_or_none()


def add(session: Session, login: str, name: str, role: str, password: str, now: datetime, writer: str, by: str) -> User:
    """A new account with a one-time password; UserRefused if the login is taken or the role unknown."""
    login = login.strip().lower()
    if not login or not all(c.isascii() and (c.isalnum() or c in ".-_@") for c in login) or len(login) > 80:
        raise UserRefused(f"login: found {login!r}, allowed are letters, digits and . - _ @ (up to 80)")
    if role not in ROLES:
        raise UserRefused(f"role: found {role!r}, allowed: {', '.join(ROLES)}")
    if not name.strip():
        raise UserRefused("name: is missing; it stands on reports and in the audit trail")
    if find(session, login):
        raise UserRefused(f"login: {login!r} is taken")
    user = User(
        login=login, name=name.strip()[:200], role=role, password_hash=hashed(password),
        must_change_password=True, created_at=clock.text(now),
    )  # fmt: skip
    session.add(user)
    session.flush()
    audit.append(session, writer, "user-changed", now, who=by, user=login, role=role, change="added")
    return user


def set_password(session: Session, user: User, password: str, now: datetime, writer: str) -> None:
    """The person chose a new password: it is theirs from now on."""
    user.password_hash = hashed(password)
    user.must_change_password = False
    user.failures, user.locked_until = 0, None
    audit.append(session, writer, "user-changed", now, who=user.login, user=user.login, change="password")


def reset_password(session: Session, user: User, password: str, now: datetime, writer: str, by: str) -> None:
    """A new one-time password; the second factor is set up anew, and every sign-in ends."""
    user.password_hash = hashed(password)
    user.must_change_password = True
    user.totp_secret, user.totp_last_step = None, None
    user.failures, user.locked_until = 0, None
    audit.append(session, writer, "user-changed", now, who=by, user=user.login, change="password reset")
    end_sign_ins(session, user.login, now)


def disable(session: Session, user: User, now: datetime, writer: str, by: str) -> None:
    """Nobody signs in with this account any more, and every sign-in ends."""
    user.disabled_at = clock.text(now)
    audit.append(session, writer, "user-changed", now, who=by, user=user.login, change="disabled")
    end_sign_ins(session, user.login, now)


def enable(session: Session, user: User, now: datetime, writer: str, by: str) -> None:
    """The account may be used again, with the password it had."""
    user.disabled_at = None
    audit.append(session, writer, "user-changed", now, who=by, user=user.login, change="enabled")


def set_scope(
    session: Session, user: User, *, sites: Iterable[str], modalities: Iterable[str], referrer: str, now: datetime,
    writer: str, by: str,
) -> None:  # fmt: skip
    """The part of the site that the account sees from now on; every sign-in ends, for its token says otherwise."""
    user.scope_sites = "\\".join(sorted(set(sites)))
    user.scope_modalities = "\\".join(sorted(set(modalities)))
    user.scope_referrer = referrer.strip()
    if len(user.scope_sites) > 400 or len(user.scope_modalities) > 200 or len(user.scope_referrer) > 200:
        raise UserRefused("too much: at most 400 characters of sites, 200 of modalities, 200 of a name")
    audit.append(
        session, writer, "user-changed", now, who=by, user=user.login, change="scope", sites=user.scope_sites,
        modalities=user.scope_modalities, referrer=user.scope_referrer,
    )  # fmt: skip
    end_sign_ins(session, user.login, now)


def revoke(session: Session, sign_ins: Iterable[tuple[str, int]]) -> None:
    """End sign-ins, given as (session id, when its last token expires), here and in the plugin."""
    raised = False
    for session_id, expires in sign_ins:
        if session.get(Revocation, session_id) is None:
            session.add(Revocation(session=session_id, expires=expires))
            raised = True
    if raised:
        generations.raise_(session, "revocations")


def is_revoked(session: Session, token: Token) -> bool:
    """Whether this sign-in, or all of its subject (a share link), was ended before its token expires."""
    query = select(Revocation.session).where(Revocation.session.in_((token.session, token.subject[:32])))
    return session.scalars(query).first() is not None


def end_sign_ins(session: Session, login: str, now: datetime, but: str = "") -> None:
    """End every sign-in of a person that may still be alive (found by its audit entry), all `but` one."""
    longest = timedelta(hours=24)
    entries = session.scalars(
        select(AuditEntry).where(
            AuditEntry.event == "signed-in", AuditEntry.who == login, AuditEntry.at >= clock.text(now - longest)
        )
    )
    expires = int((now + longest).timestamp())
    ids = {str(json.loads(entry.payload).get("session", "")) for entry in entries}
    revoke(session, ((found, expires) for found in sorted(ids - {but, ""})))
