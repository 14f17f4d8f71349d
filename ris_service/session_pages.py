"""Signing in and out: password, second factor, the first own password, links with a token.

Between the password and the end of the sign-in the browser carries a token of a kind that opens nothing
(ris_service.session): whoever stops half-way is still a stranger everywhere else.
"""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode, urlsplit

import segno
from flask import Blueprint, abort, redirect, render_template, request, session
from flask_login import current_user
from markupsafe import Markup
from sqlalchemy.orm import Session

from ris_service.languages import gettext
from ris_service.parts import CHAIN, Parts, parts
from ris_service.people import BROWSER_KINDS
from ris_service.people import find as find_person
from ris_service.session import ENTERING, SETTLING, STRANGER, step
from zambezi import audit, opening, users
from zambezi.access import PUBLIC, SIGNED_IN, may, requires
from zambezi.access.tokens import Token, TokenRefused, begin, read
from zambezi.database.tables import User

pages = Blueprint("session", __name__)

#: Where somebody lands who asked for nothing in particular: the first page that the role may see.
_LANDINGS = (
    ("worklist.read", "/"),
    ("migration.read", "/migrations"),
    ("images.view", "/studies"),
    ("images.view-own", "/shared"),
)


@pages.get("/session")
@requires(PUBLIC)
def sign_in_page() -> Any:
    """The form for login and password."""
    if current_user.is_authenticated:
        return redirect(_safe(request.args.get("next", "")) or landing(current_user.role), 303)
    return render_template("sign_in.html", next=_safe(request.args.get("next", "")), fault="")


@pages.post("/session")
@requires(PUBLIC)
def sign_in() -> Any:
    """Check login and password; the account's failures count, whatever was wrong."""
    found = parts()
    now = found.clock()
    login, where = request.form.get("login", ""), _safe(request.form.get("next", ""))
    entered: tuple[Token, str] | None = None
    with found.sessions.begin() as database:
        user = users.find(database, login)
    # Outside a transaction: Argon2 is slow on purpose.
    right = users.password_is_right(user, request.form.get("password", ""))
    with found.sessions.begin() as database:
        user = users.find(database, login)
        usable = user is not None and user.disabled_at is None and not users.is_locked(user.locked_until, now)
        if user is None or not right or not usable:
            why = _refusal(user, right, usable)
            if user is not None and usable:
                users.note_failure(user, now, found.settings.session)
            who = {"who": user.login} if user else {}  # a password is typed into the wrong field sometimes
            audit.append(database, CHAIN, "sign-in-failed", now, reason=why, ip=request.remote_addr, **who)
        elif user.totp_secret:
            entered = step(user.login, ENTERING, int(now.timestamp())), _onward("/session/second-factor", where)
        else:
            entered = _enter(database, found, user, where)
    if entered:
        return _carry(*entered)
    fault = gettext(
        "Login or password is not right. After %(many)s wrong attempts in a row an account stays closed for "
        "%(minutes)s minutes, even to the right password.",
        many=found.settings.session.lockout_failures,
        minutes=round(found.settings.session.lockout_minutes),
    )
    return render_template("sign_in.html", next=where, fault=fault, login=login), 401


@pages.get("/session/second-factor")
@requires(PUBLIC)
def second_factor_page() -> Any:
    """The form for the code of the authenticator app."""
    if _half_way(ENTERING) is None:
        return redirect("/session", 303)
    return render_template("second_factor.html", next=_safe(request.args.get("next", "")), fault="")


@pages.post("/session/second-factor")
@requires(PUBLIC)
def second_factor() -> Any:
    """Check the code; one that was used already is as wrong as any other."""
    found = parts()
    now = found.clock()
    where = _safe(request.form.get("next", ""))
    login = _half_way(ENTERING)
    if login is None:
        return redirect("/session", 303)
    entered: tuple[Token, str] | None = None
    with found.sessions.begin() as database:
        user = users.find(database, login)
        if user is None or user.disabled_at is not None or not user.totp_secret:
            return redirect("/session", 303)
        usable = not users.is_locked(user.locked_until, now)
        given = users.totp_step(user.totp_secret, request.form.get("code", ""), user.totp_last_step, now)
        if usable and given is not None:
            user.totp_last_step = given
            entered = _enter(database, found, user, where)
        else:
            if usable:
                users.note_failure(user, now, found.settings.session)
            audit.append(
                database, CHAIN, "sign-in-failed", now, who=user.login, reason="second factor", ip=request.remote_addr
            )
    if entered:
        return _carry(*entered)
    fault = gettext("That code is not right, or it was used already. Wait for the next one and type it.")
    return render_template("second_factor.html", next=where, fault=fault), 401


@pages.get("/session/settle")
@requires(PUBLIC)
def settle_page() -> Any:
    """What must be set up before the first page: an own password, a second factor."""
    return _settle_page()


@pages.post("/session/settle")
@requires(PUBLIC)
def settle() -> Any:
    """Take the new password, or the second factor's first code."""
    found = parts()
    now = found.clock()
    login = _half_way(SETTLING)
    if login is None:
        return redirect("/session", 303)
    where = _safe(request.form.get("next", ""))
    entered: tuple[Token, str] | None = None
    with found.sessions.begin() as database:
        user = users.find(database, login)
        if user is None or user.disabled_at is not None:
            return redirect("/session", 303)
        if user.must_change_password:
            fault = new_password_fault(user, request.form.get("password", ""), request.form.get("again", ""))
            if not fault and users.password_is_right(user, request.form.get("password", "")):
                fault = gettext("This is the one-time password. Choose another one.")
            if not fault:
                users.set_password(database, user, request.form["password"], now, CHAIN)
        else:
            fault = take_second_factor(database, user, request.form.get("code", ""))
        if not fault:
            entered = _enter(database, found, user, where)
    return _carry(*entered) if entered else (_settle_page(fault), 400)


@pages.get("/session/renew")
@requires(SIGNED_IN)
def renew() -> Any:
    """For viewers: somebody is still reading (the answer carries the renewed token)."""
    return "", 204


@pages.post("/session/end")
@requires(SIGNED_IN)
def sign_out() -> Any:
    """End this sign-in, here and in the plugin, before its token does."""
    found = parts()
    now = found.clock()
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    with found.sessions.begin() as database:
        users.revoke(database, [(token.session, _longest(found, token))])
        audit.append(database, CHAIN, "signed-out", now, who=token.subject, session=token.session)
    return _carry(step("", STRANGER, int(now.timestamp())), "/session?said=signed-out")


@pages.get("/session/token")
@requires(PUBLIC)
def token_page() -> Any:
    """The form for a token that was issued at the console (an emergency reader's, a share link's)."""
    return render_template("token.html", fault="")


@pages.post("/session/token")
@requires(PUBLIC)
def take_token() -> Any:
    """Carry an emergency or share token in this browser from now on."""
    found = parts()
    now = found.clock()
    try:
        token = read("".join(request.form.get("token", "").split()), found.keys.session_key, int(now.timestamp()))
    except (TokenRefused, ValueError, TypeError, KeyError):
        token = None
    with found.sessions.begin() as database:
        taken = token and token.kind in BROWSER_KINDS and token.kind != "session" and find_person(database, token)
        if token and taken:
            audit.append(
                database, CHAIN, "signed-in", now, who=token.subject, session=token.session, kind=token.kind,
                role=token.role, ip=request.remote_addr,
            )  # fmt: skip
        else:
            audit.append(database, CHAIN, "sign-in-failed", now, reason="token", ip=request.remote_addr)
    if token and taken:
        return _carry(token, landing(token.role))
    return render_template("token.html", fault=gettext("This token can't be used, or its time is over.")), 401


def landing(role: str) -> str:
    """The first page for a role."""
    return next((path for permission, path in _LANDINGS if may(role, permission)), "/account")


def new_password_fault(user: User, password: str, again: str) -> str:
    """Why this can't be the person's new password, in words; empty if it can."""
    if password != again:
        return gettext("The two passwords are not the same.")
    faults = users.password_faults(password, user.login)
    if "short" in faults:
        return gettext("Take at least %(many)s characters; four words do well.", many=users.SHORTEST_PASSWORD)
    if "login" in faults:
        return gettext("The login must not be part of it.")
    if "simple" in faults:
        return gettext("Take more different characters.")
    return ""


def offered_secret(login: str) -> str:
    """The second factor's secret that this sign-in is offered."""
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    return users.new_totp_secret(parts().keys.session_key, f"{login}:{token.session}")


def take_second_factor(database: Session, user: User, code: str) -> str:
    """Keep the offered secret if the code proves that the app has it; else the fault in words."""
    now = parts().clock()
    secret = offered_secret(user.login)
    given = users.totp_step(secret, code, None, now)
    if given is None:
        return gettext("That code is not right. Check the telephone's clock and type the code it shows now.")
    user.totp_secret, user.totp_last_step = secret, given
    audit.append(database, CHAIN, "user-changed", now, who=user.login, user=user.login, change="second factor set up")
    return ""


def qr_code(login: str) -> Markup:
    """The offered secret as a QR code (SVG, drawn here: no other host sees it)."""
    out = io.BytesIO()
    address = users.totp_address(offered_secret(login), login, f"Zambezi {parts().settings.site.name}")
    segno.make(address, micro=False).save(
        out, kind="svg", xmldecl=False, svgclass=None, lineclass=None, border=1, omitsize=True
    )
    return Markup(out.getvalue().decode())  # noqa: S704  # segno wrote it, from an address that it escaped


def _refusal(user: User | None, right: bool, usable: bool) -> str:
    if user is None:
        return "no such login"
    if user.disabled_at is not None:
        return "disabled"
    if not usable:
        return "locked"
    return "password" if not right else "unusable"


def _enter(database: Session, found: Parts, user: User, where: str) -> tuple[Token, str]:
    """Password and second factor were right: the token to carry and where to go, once this is committed."""
    now = found.clock()
    now_s = int(now.timestamp())
    if must_settle(found, user):
        return step(user.login, SETTLING, now_s), _onward("/session/settle", where)
    user.failures, user.locked_until = 0, None
    token = begin(
        user.login, "session", user.role, now_s, int(found.settings.session.idle_minutes * 60),
        narrow=opening.scope_of(user).narrows,
    )  # fmt: skip
    audit.append(
        database, CHAIN, "signed-in", now, who=user.login, role=user.role, session=token.session, ip=request.remote_addr
    )
    return token, where or landing(user.role)


def must_settle(found: Parts, user: User) -> bool:
    """Whether a password or a second factor must be set up before the first page."""
    lacks_factor = user.role in found.settings.session.second_factor_roles and not user.totp_secret
    return user.must_change_password or lacks_factor


def _settle_page(fault: str = "") -> Any:
    login = _half_way(SETTLING)
    if login is None:
        return redirect("/session", 303)
    with parts().sessions.begin() as database:
        user = users.find(database, login)
    if user is None:
        abort(401)
    where = _safe(request.values.get("next", ""))
    if user.must_change_password:
        return render_template("settle_password.html", next=where, fault=fault, login=login)
    secret = offered_secret(login)
    return render_template("settle_factor.html", next=where, fault=fault, qr=qr_code(login), secret=secret)


def _half_way(kind: str) -> str | None:
    token: Token = session.token  # type: ignore[attr-defined]  # TokenSession
    return token.subject if token.kind == kind else None


def _carry(token: Token, path: str) -> Any:
    """Hand the browser its token, after what leads to it was committed; a sign-in nobody recorded is none."""
    session.put(token)  # type: ignore[attr-defined]  # TokenSession
    return redirect(path, 303)


def _onward(path: str, where: str) -> str:
    return path + ("?" + urlencode({"next": where}) if where else "")


def _longest(found: Parts, token: Token) -> int:
    return token.started + int(found.settings.session.absolute_hours * 3600)


def _safe(where: str) -> str:
    """A path of our own to go on to; empty for anything that could lead elsewhere."""
    split = urlsplit(where)
    fits = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable() and "\\" not in where
    return where if fits and not split.scheme and not split.netloc and not split.path.startswith("/session") else ""
