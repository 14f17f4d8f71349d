"""The one cookie: a signed token, read into Flask's session and written back when it was changed.

There is no second cookie and nothing is kept between requests. What Flask-WTF wants to find in the session
derives from the token. A stranger who is shown a form gets a token, too: one without a role, which opens
nothing here and nothing in the plugin, and to which the form is bound.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask import Flask, Request, Response, g
from flask.sessions import SessionInterface, SessionMixin

from zambezi.access.tokens import COOKIE, Token, TokenRefused, begin, read, sign

#: Kinds of our own, between the stranger and the sign-in. They carry no role: no other process opens anything.
STRANGER = "stranger"
#: The password was right; the second factor is due.
ENTERING = "entering"
#: Both were right; a new password or a second factor must be set up first.
SETTLING = "settling"

_STEP_S = 15 * 60
_STRANGER_S = 12 * 3600


class TokenSession(dict[str, Any], SessionMixin):
    """Flask's session: its `token`, and the CSRF word that derives from it."""

    def __init__(self, token: Token, key: str, is_new: bool) -> None:
        super().__init__()
        self._key = key
        self.is_written = is_new
        self._take(token)

    def _take(self, token: Token) -> None:
        self.token = token
        word = hmac.digest(bytes.fromhex(self._key), f"csrf:{token.session}".encode(), "sha256")
        self["csrf_token"] = hashlib.sha256(word).hexdigest()

    def put(self, token: Token) -> None:
        """From now on the browser carries this token."""
        self.is_written = True
        g.pop("csrf_token", None)
        self._take(token)


def step(subject: str, kind: str, now_s: int) -> Token:
    """A token of one of our own kinds: no role, and little time."""
    lasts_s = _STRANGER_S if kind == STRANGER else _STEP_S
    return replace(begin(subject, "session", "", now_s, lasts_s), kind=kind)


class TokenSessions(SessionInterface):
    """Reads the cookie, and writes it where the token is new."""

    def __init__(self, key: str, clock: Callable[[], datetime]) -> None:
        self._key = key
        self._clock = clock

    def open_session(self, app: Flask, request: Request) -> TokenSession:
        now_s = int(self._clock().timestamp())
        try:
            return TokenSession(read(request.cookies.get(COOKIE, ""), self._key, now_s), self._key, is_new=False)
        except (TokenRefused, ValueError, TypeError, KeyError):
            return TokenSession(step("", STRANGER, now_s), self._key, is_new=True)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if not isinstance(session, TokenSession) or not session.is_written:
            return
        if session.token.kind == STRANGER and "csrf_token" not in g:
            return  # nobody was shown a form
        response.set_cookie(
            COOKIE, sign(session.token, self._key), path="/", httponly=True, samesite="Strict",
            secure=g.get("is_secure", False), max_age=None,
        )  # fmt: skip
