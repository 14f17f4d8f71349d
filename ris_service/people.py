"""Who asks: the person behind a token, and what of the site that person may see."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import current_app, session
from flask_login import UserMixin, current_user
from sqlalchemy.orm import Session

from ris_service.parts import parts
from zambezi import opening, users
from zambezi.access import may
from zambezi.access.scope import Part, Scope
from zambezi.access.tokens import Token

#: Tokens that a browser may carry. A service's token belongs into a header of a program.
BROWSER_KINDS = ("session", "emergency", "share")


@dataclass(frozen=True)
class Person(UserMixin):  # type: ignore[misc]  # Flask-Login publishes no types
    """Somebody with a valid token. `scope` is the part of the site that they see; without an account (a share link, an
    emergency reader) it is what the token names.
    """

    login: str
    name: str
    role: str
    kind: str
    language: str | None = None
    token: Token | None = None
    scope: Scope = field(default_factory=Scope)

    def get_id(self) -> str:
        return self.login

    def may(self, permission: str) -> bool:
        """Whether the role holds the permission."""
        return may(self.role, permission)

    @property
    def is_narrow(self) -> bool:
        """Whether there is anything on the site that this person does not see."""
        return self.scope.narrows or (self.token is not None and self.kind == "share")

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies that the token names."""
        return self.token.studies if self.token else ()

    @property
    def may_download(self) -> bool:
        """Whether whole files may be taken of what this person sees."""
        return self.token is not None and self.token.may_download

    def sees(self, part: Part) -> bool:
        """Whether it lies in the part of the site that this person sees."""
        return self.kind != "share" and self.scope.holds(part).yes

    def opens(self, study_uid: str) -> bool:
        """Whether the viewers open this study for the token as it is now."""
        if self.token is None or not (self.may("images.view") or self.may("images.view-own")):
            return False
        named = self.token.opens(study_uid, int(parts().clock().timestamp()))
        return named or not (self.is_narrow or self.token.is_narrow)


def find(database: Session, token: Token) -> Person | None:
    """The person behind a token as the database knows them now: role changes and a disabled account count at once."""
    if token.kind not in BROWSER_KINDS or users.is_revoked(database, token):
        return None
    if token.kind != "session":
        return Person(token.subject, token.subject, token.role, token.kind, None, token)
    user = users.find(database, token.subject)
    if user is None or user.disabled_at is not None or user.must_change_password or user.role != token.role:
        return None
    scope = opening.scope_of(user)
    if scope.narrows and may(user.role, "images.view") and not token.is_narrow:
        return None
    return Person(user.login, user.name, user.role, token.kind, user.language, token, scope)


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
