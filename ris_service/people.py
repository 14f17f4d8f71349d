"""Who asks: the person behind a token, and what of the site that person may see."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app, session
from flask_login import UserMixin, current_user
from sqlalchemy.orm import Session

from ris_service.parts import parts
from zambezi import users
from zambezi.access import may
from zambezi.access.tokens import Token

#: Tokens that a browser may carry. A service's token belongs into a header of a program.
BROWSER_KINDS = ("session", "emergency", "share")


@dataclass(frozen=True)
class Person(UserMixin):  # type: ignore[misc]  # Flask-Login publishes no types
    """Somebody with a valid token. `studies` limits what may be seen where the role sees its own only."""

    login: str
    name: str
    role: str
    kind: str
    language: str | None = None
    studies: tuple[str, ...] = ()

    def get_id(self) -> str:
        return self.login

    def may(self, permission: str) -> bool:
        """Whether the role holds the permission."""
        return may(self.role, permission)

    def sees(self, study_uid: str) -> bool:
        """Whether this study may be shown: the whole site's, or those that the token names."""
        return self.may("images.view") or (self.may("images.view-own") and study_uid in self.studies)


def find(database: Session, token: Token) -> Person | None:
    """The person behind a token as the database knows them now: role changes and a disabled account count at once."""
    if token.kind not in BROWSER_KINDS or users.is_revoked(database, token):
        return None
    if token.kind != "session":
        return Person(token.subject, token.subject, token.role, token.kind, None, token.studies)
    user = users.find(database, token.subject)
    if user is None or user.disabled_at is not None or user.must_change_password or user.role != token.role:
        return None
    return Person(user.login, user.name, user.role, token.kind, user.language, token.studies)


def load() -> Person | None:
    """Flask-Login's request loader: the person of this request."""
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    if token.kind not in BROWSER_KINDS:
        return None
    with parts().sessions.begin() as database:
        return find(database, token)


def me() -> Person:
    """The person of this request, in views that only people who are signed in reach."""
    person = current_user._get_current_object()
    if not isinstance(person, Person):
        raise RuntimeError(f"{current_app.name}: a view without a permission was reached")
    return person
