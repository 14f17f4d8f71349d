"""Accounts: the administrator's list, and everyone's own page."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, session
from flask_babel import lazy_gettext as _
from sqlalchemy import select
from sqlalchemy.orm import Session

from ris_service.commands import SIGN_IN_ROLES
from ris_service.languages import NAMES, gettext
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from ris_service.session_pages import new_password_fault, offered_secret, qr_code, take_second_factor
from zambezi import audit, clock, users
from zambezi.access import SIGNED_IN, requires
from zambezi.database.tables import User

pages = Blueprint("users", __name__)
pages.navigation = (("users.index", _("Users")),)  # type: ignore[attr-defined]  # read by ris_service.app


@pages.get("/users")
@requires("user.manage")
def index() -> Any:
    """All accounts, and the form for a new one."""
    return _list()


@pages.post("/users")
@requires("user.manage")
def add() -> Any:
    """A new account; its one-time password is shown once, here."""
    found = parts()
    password = users.one_time_password()
    fault = ""
    role = request.form.get("role", "")
    with found.sessions.begin() as database:
        try:
            if role not in SIGN_IN_ROLES:
                raise users.UserRefused(f"role: found {role!r}")
            user = users.add(
                database, request.form.get("login", ""), request.form.get("name", ""), role, password,
                found.clock(), CHAIN, me().login,
            )  # fmt: skip
        except users.UserRefused:
            fault = gettext(
                "The account can't be made. The login must be free, made of letters, digits and . - _ @, "
                "and the name must not be empty."
            )
    if fault:
        return _list(fault=fault), 400
    return _list(login=user.login, password=password)


@pages.post("/users/<int:user_id>/reset")
@requires("user.manage")
def reset(user_id: int) -> Any:
    """A new one-time password, without a second factor; every sign-in of the account ends."""
    password = users.one_time_password()
    with parts().sessions.begin() as database:
        user = database.get(User, user_id) or abort(404)
        users.reset_password(database, user, password, parts().clock(), CHAIN, me().login)
    return _list(login=user.login, password=password)


@pages.post("/users/<int:user_id>/disable")
@requires("user.manage")
def disable(user_id: int) -> Any:
    """Nobody signs in with it any more; oneself can't be disabled."""
    with parts().sessions.begin() as database:
        user = database.get(User, user_id) or abort(404)
        if user.login == me().login:
            abort(409)
        users.disable(database, user, parts().clock(), CHAIN, me().login)
    return redirect("/users?said=disabled", 303)


@pages.post("/users/<int:user_id>/enable")
@requires("user.manage")
def enable(user_id: int) -> Any:
    """The account may be used again."""
    with parts().sessions.begin() as database:
        user = database.get(User, user_id) or abort(404)
        users.enable(database, user, parts().clock(), CHAIN, me().login)
    return redirect("/users?said=enabled", 303)


@pages.get("/account")
@requires(SIGNED_IN)
def account() -> Any:
    """One's own account: password, second factor, language."""
    return _account()


@pages.post("/account/password")
@requires(SIGNED_IN)
def change_password() -> Any:
    """A new password of one's own; the present one is asked for."""
    found = parts()
    now = found.clock()
    with found.sessions.begin() as database:
        user = _own(database)
        if not _present_password_is_right(user):
            fault = gettext("Your present password is not right.")
        else:
            fault = new_password_fault(user, request.form.get("password", ""), request.form.get("again", ""))
        if not fault:
            users.set_password(database, user, request.form["password"], now, CHAIN)
            users.end_sign_ins(database, user.login, now, but=session.token.session)  # type: ignore[attr-defined]
    return (_account(password_fault=fault), 400) if fault else redirect("/account?said=password", 303)


@pages.post("/account/second-factor")
@requires(SIGNED_IN)
def set_second_factor() -> Any:
    """Keep the offered second factor, once its first code is right."""
    with parts().sessions.begin() as database:
        user = _own(database)
        if user.totp_secret:
            abort(409)
        fault = take_second_factor(database, user, request.form.get("code", ""))
    return (_account(factor_fault=fault), 400) if fault else redirect("/account?said=second-factor", 303)


@pages.post("/account/second-factor/remove")
@requires(SIGNED_IN)
def remove_second_factor() -> Any:
    """Do without it again, where the role may; the password is asked for."""
    found = parts()
    with found.sessions.begin() as database:
        user = _own(database)
        if user.role in found.settings.session.second_factor_roles:
            abort(403)
        fault = "" if _present_password_is_right(user) else gettext("Your present password is not right.")
        if not fault:
            user.totp_secret, user.totp_last_step = None, None
            audit.append(
                database, CHAIN, "user-changed", found.clock(), who=user.login, user=user.login,
                change="second factor removed",
            )  # fmt: skip
    return (_account(factor_fault=fault), 400) if fault else redirect("/account?said=second-factor-removed", 303)


@pages.post("/account/language")
@requires(SIGNED_IN)
def set_language() -> Any:
    """The language of pages for this person."""
    chosen = request.form.get("language", "")
    if chosen not in NAMES:
        abort(400)
    with parts().sessions.begin() as database:
        user = _own(database)
        user.language = chosen
    return redirect("/account?said=language", 303)


def _own(database: Session) -> User:
    """The account of who asks; a token's holder has none, whatever its subject is called."""
    user = users.find(database, me().login) if me().kind == "session" else None
    return user or abort(403)


def _present_password_is_right(user: User) -> bool:
    """Wrong ones count towards the lock-out: an unattended screen is no place to guess."""
    now = parts().clock()
    if users.is_locked(user.locked_until, now):
        return False
    right = users.password_is_right(user, request.form.get("present", ""))
    if not right:
        users.note_failure(user, now, parts().settings.session)
    return right


def _list(fault: str = "", login: str = "", password: str = "") -> str:
    with parts().sessions.begin() as database:
        everyone = database.scalars(select(User).order_by(User.disabled_at.is_not(None), User.login)).all()
    now = clock.text(parts().clock())
    return render_template(
        "users.html", users=everyone, roles=SIGN_IN_ROLES, fault=fault, login=login, password=password, now=now, me=me()
    )


def _account(password_fault: str = "", factor_fault: str = "") -> str:
    with parts().sessions.begin() as database:
        user = _own(database)
    offered = {} if user.totp_secret else {"qr": qr_code(user.login), "secret": offered_secret(user.login)}
    required = user.role in parts().settings.session.second_factor_roles
    return render_template(
        "account.html",
        user=user,
        password_fault=password_fault,
        factor_fault=factor_fault,
        required=required,
        **offered,
    )
