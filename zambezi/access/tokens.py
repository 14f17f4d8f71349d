"""Short signed tokens: the RIS issues them, the plugin's filter knows them without asking anybody.

Form: `v1.<claims>.<mac>`, both parts base64url without padding; claims are JSON, mac is HMAC-SHA256 under
the installation's session key. Times are whole seconds since 1970 (UTC).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

#: The one cookie of the host: HttpOnly, SameSite=Strict, Secure wherever the front door speaks TLS.
COOKIE = "zambezi_session"
#: A token in a header (service tokens, share links opened by programs).
HEADER = "x-zambezi-token"

#: A person who signed in; a machine; the console's one-shift reader; a share link.
KINDS = ("session", "service", "emergency", "share")


class TokenRefused(Exception):
    """The token can't be used; the text says why, for the audit trail, never to the stranger."""


@dataclass(frozen=True)
class Token:
    """Who (`subject`, a login or a name), as what (`kind`, `role`), for which studies, until when.

    `studies` is empty for the whole site, else the Study Instance UIDs that may be opened. `narrow` says that only
    what is named may be opened, even where nothing is: who sees a part of the site opens study by study, and the RIS
    names each here. `until` names studies that open until a moment (break-glass). `download`: of a share link, whether
    it hands files over. `session` identifies the sign-in, so that it can be revoked; `started` is when it began.
    """

    subject: str
    kind: str
    role: str
    session: str
    started: int
    expires: int
    studies: tuple[str, ...] = ()
    narrow: bool = False
    until: tuple[tuple[str, int], ...] = ()
    download: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether it opens nothing but what it names."""
        return self.narrow or bool(self.studies) or bool(self.until)

    @property
    def may_download(self) -> bool:
        """Whether whole files may be taken of what it opens: people may, a share link only where it says so."""
        return self.kind != "share" or self.download

    def opens(self, study_uid: str, now_s: int) -> bool:
        """Whether it names this study, now."""
        return study_uid in self.studies or any(uid == study_uid and now_s < end for uid, end in self.until)


def begin(
    subject: str, kind: str, role: str, now_s: int, lasts_s: int, studies: tuple[str, ...] = (), *,
    narrow: bool = False, download: bool = False,
) -> Token:  # fmt: skip
    """A new token that begins now."""
    if kind not in KINDS:
        raise ValueError(f"kind: found {kind!r}, allowed: {', '.join(KINDS)}")
    return Token(subject, kind, role, secrets.token_hex(8), now_s, now_s + lasts_s, studies, narrow, download=download)


def renewed(token: Token, now_s: int, idle_s: int, absolute_s: int) -> Token:
    """The same sign-in, valid for `idle_s` more, but never beyond `absolute_s` after it began."""
    return replace(token, expires=min(now_s + idle_s, token.started + absolute_s))


def sign(token: Token, key: str) -> str:
    """The token as text; `key` is the session key in hex."""
    claims = _encode(json.dumps(asdict(token), sort_keys=True, separators=(",", ":")).encode())
    return f"v1.{claims}.{_encode(_mac(claims, key))}"


def read(text: str, key: str, now_s: int) -> Token:
    """Check signature and time; raises TokenRefused with the reason."""
    version, _, rest = text.partition(".")
    claims, _, mac = rest.partition(".")
    if version != "v1" or len(text) > 16384:
        raise TokenRefused("not a token of ours")
    try:
        given = _decode(mac)
    except ValueError:
        raise TokenRefused("the signature can't be read") from None
    if not hmac.compare_digest(given, _mac(claims, key)):
        raise TokenRefused("the signature is not ours")
    found: dict[str, Any] = json.loads(_decode(claims))
    until = tuple((str(uid), int(end)) for uid, end in found.get("until", ()))
    token = Token(**{**found, "studies": tuple(found["studies"]), "until": until})
    if now_s >= token.expires:
        raise TokenRefused(f"it expired {now_s - token.expires} s ago")
    return token


def _mac(claims: str, key: str) -> bytes:
    return hmac.new(bytes.fromhex(key), claims.encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
