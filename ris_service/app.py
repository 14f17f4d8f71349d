"""The RIS as a Flask application: one factory, deny by default, the same headers on every answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from flask import Blueprint, Flask, Response, abort, current_app, g, redirect, render_template, request, session
from flask_babel import Babel
from flask_login import LoginManager, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as AnyResponse

from ris_service import languages, people, words
from ris_service.exams import person_name
from ris_service.languages import gettext
from ris_service.parts import CHAIN, Parts
from ris_service.session import TokenSessions
from zambezi import composition, opening
from zambezi.access import PUBLIC, SIGNED_IN, requires
from zambezi.access.tokens import renewed
from zambezi.config.settings import Zambezi
from zambezi.database import engine
from zambezi.database.engine import Sessions
from zambezi.environment import Environment
from zambezi.keys import Keys

log = logging.getLogger(__name__)

#: A report with its three texts fits many times over; nothing is uploaded here.
LARGEST_BODY = 512 * 1024

#: No script, style or frame from anywhere but our own files, none inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
#: The browser's own PDF viewer styles its page inline; there is nothing of ours to run in a PDF.
PDF_POLICY = "default-src 'self'; object-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Untagged(Exception):
    """A view says nothing of who may use it; the text names it."""


def create_app(
    environment: Environment,
    settings: Zambezi,
    sessions: Sessions,
    keys: Keys,
    clock: Callable[[], datetime],
    page_sets: Iterable[str] = composition.PAGE_SETS,
) -> Flask:
    """The application with its page sets (dotted names); Untagged if a view has no permission tag."""
    app = Flask("ris_service")
    app.config.update(
        SECRET_KEY=hashlib.sha256(f"forms:{keys.session_key}".encode()).hexdigest(),
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        MAX_FORM_MEMORY_SIZE=LARGEST_BODY,
        MAX_FORM_PARTS=200,
        WTF_CSRF_TIME_LIMIT=None,  # it is bound to the sign-in and ends with it; reports take longer than an hour
        SEND_FILE_MAX_AGE_DEFAULT=None,
        TRAP_HTTP_EXCEPTIONS=False,
    )
    # Only the front door reaches our port, and it sets these two headers itself.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    reading = engine.sessions(engine.connect(environment.database_url, CHAIN, reading=True), CHAIN)
    app.extensions["zambezi"] = Parts(environment, settings, sessions, reading, keys, clock)
    app.session_interface = TokenSessions(keys.session_key, clock)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    requires(PUBLIC)(app.view_functions["static"])

    blueprints: list[Blueprint] = [composition.load(name) for name in page_sets]
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    refuse_untagged(app)

    login = LoginManager()
    login.session_protection = None  # the token is all there is
    login.request_loader(lambda _request: people.load())
    login.init_app(app)
    babel = Babel(app, default_locale="en_ZW", locale_selector=languages.locale_of_request)
    folders = {Path(app.root_path), *(Path(blueprint.root_path) for blueprint in blueprints)}
    babel.domain_instance = languages.Catalogues(sorted(folders))

    app.before_request(_gate)  # before the form's own check: who may not is told so first
    CSRFProtect(app)
    app.after_request(_finish)
    _explain_errors(app)
    _furnish_templates(app, blueprints)
    return app


def refuse_untagged(app: Flask) -> None:
    """Untagged with the names of all views that carry no permission."""
    untagged = sorted(name for name, view in app.view_functions.items() if not hasattr(view, "zambezi_requires"))
    if untagged:
        raise Untagged(f"views without a permission (zambezi.access.requires): {', '.join(untagged)}")


def permission_of(app: Flask, endpoint: str) -> str:
    """The permission tag of a view (refuse_untagged saw that it has one)."""
    return str(getattr(app.view_functions[endpoint], "zambezi_requires"))  # noqa: B009  # a function's own tag


def is_narrowed(app: Flask, endpoint: str | None) -> bool:
    """Whether a view shows each person no more than their part of the site (zambezi.access.narrowed)."""
    return endpoint is not None and bool(getattr(app.view_functions[endpoint], "zambezi_narrowed", False))


def _gate() -> AnyResponse | None:
    g.is_secure = request.is_secure
    if request.endpoint is not None:
        needed = permission_of(current_app, request.endpoint)
        if needed == PUBLIC:
            return None
    else:
        needed = SIGNED_IN  # a path nobody owns: a stranger doesn't learn even that
    if not current_user.is_authenticated:
        if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", ""):
            where = request.full_path if request.query_string else request.path
            return redirect("/session?" + urlencode({"next": where}), 303)
        abort(401)
    if needed != SIGNED_IN and not current_user.may(needed):
        abort(403)
    if needed != SIGNED_IN and current_user.is_narrow and not is_narrowed(current_app, request.endpoint):
        abort(403)
    return None


def _finish(response: Response) -> Response:
    parts: Parts = current_app.extensions["zambezi"]
    if current_user.is_authenticated and current_user.kind == "session" and request.endpoint != "static":
        _renew(parts)
    response.headers["Content-Security-Policy"] = PDF_POLICY if response.mimetype == "application/pdf" else POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=()"
    if request.endpoint == "static" and response.status_code == 200:
        # Its address holds its digest, so a slow line carries it once.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.headers["Cache-Control"] = "no-store"
    return response


def _renew(parts: Parts) -> None:
    token = session.token  # type: ignore[attr-defined]  # TokenSession
    now_s = int(parts.clock().timestamp())
    idle_s = int(parts.settings.session.idle_minutes * 60)
    fresh = renewed(token, now_s, idle_s, int(parts.settings.session.absolute_hours * 3600))
    if token.kind == "session" and fresh.expires - token.expires >= min(60, idle_s // 10):
        if fresh.narrow:
            # What another tab opened meanwhile is in the database, and maybe not in the cookie that came with this.
            with parts.reading() as database:
                fresh = opening.named(database, fresh, now_s)
        session.token = fresh  # type: ignore[attr-defined]  # the same sign-in: forms stay valid
        session.is_written = True  # type: ignore[attr-defined]


def _explain_errors(app: Flask) -> None:
    def page(status: int, title: str, text: str) -> tuple[str, int]:
        return render_template("problem.html", title=title, text=text), status

    @app.errorhandler(CSRFError)
    def form_too_old(_error: CSRFError) -> Any:
        return page(
            400,
            gettext("This form is no longer valid"),
            gettext("It belongs to an earlier sign-in. Go back, load the page again and repeat what you did."),
        )

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Any:
        if error.code is None or error.code < 400:
            return error
        title, text = words.problem(error.code)
        return page(error.code, title, text)

    @app.errorhandler(OperationalError)
    def database_away(error: OperationalError) -> Any:
        log.error("the database does not answer: %s", type(error.orig).__name__)
        return page(503, *words.problem(503))

    @app.errorhandler(IntegrityError)
    def somebody_was_faster(_error: IntegrityError) -> Any:
        return page(409, *words.problem(409))

    @app.errorhandler(Exception)  # the edge of the request: whatever went wrong, the person gets a page
    def fault(error: Exception) -> Any:
        log.error("%s %s failed", request.method, request.endpoint, exc_info=error)
        return page(500, *words.problem(500))


def _furnish_templates(app: Flask, blueprints: list[Blueprint]) -> None:
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:10]
        for file in Path(str(app.static_folder)).iterdir()
        if file.is_file()
    }
    badges: dict[str, Callable[[], int]] = {}
    for blueprint in blueprints:
        badges |= getattr(blueprint, "badges", {})
    navigation = [
        (*entry, getattr(blueprint, "navigation_of_narrow", False))
        for blueprint in blueprints
        for entry in getattr(blueprint, "navigation", ())
    ]

    def places() -> list[tuple[str, str, bool, int]]:
        """The navigation of this person: (endpoint, label, whether the page belongs to it, how much waits there)."""
        if not current_user.is_authenticated:
            return []
        mine = [
            (where, gettext(label))
            for where, label, of_narrow in navigation
            if current_user.may(permission_of(app, where))
            and (is_narrowed(app, where) if current_user.is_narrow else not of_narrow)
        ]
        here = _place(request.endpoint or "", [where for where, _label in mine])
        return [(where, label, where == here, _waiting(badges.get(where))) for where, label in mine]

    app.jinja_env.filters.update(
        moment=languages.moment,
        day=languages.day,
        lasting=languages.lasting,
        reason=languages.reason,
        person_name=person_name,
    )
    app.jinja_env.globals.update(
        words=words,
        places=places,
        language=languages.language,
        language_names=languages.NAMES,
        digest=lambda name: digests[name],
        site=app.extensions["zambezi"].settings.site,
        said=lambda: words.said(request.args.get("said", "")),
        viewer=viewer,
        age=lambda born: languages.age(born, app.extensions["zambezi"].clock().date()),
    )


def viewer(study_uid: str, series: str = "") -> str:
    """Where this person's browser opens a study's images: who sees a part of the site asks the RIS first."""
    if not current_user.opens(study_uid):
        return f"/studies/{quote(study_uid)}/images" + (f"?series={quote(series)}" if series else "")
    return (
        f"/web-viewer/app/viewer.html?series={quote(series)}"
        if series
        else f"/viewer?StudyInstanceUIDs={quote(study_uid)}"
    )


def _waiting(badge: Callable[[], int] | None) -> int:
    try:
        return badge() if badge else 0
    except SQLAlchemyError:  # the page that says that the database doesn't answer has a navigation, too
        return 0


def _place(endpoint: str, places: list[str]) -> str:
    """Which place of the navigation a page belongs to: itself, or the first of its page set."""
    if endpoint in places or endpoint == "users.account":
        return endpoint
    page_set = endpoint.split(".")[0].replace("reports", "studies").replace("exception_rules", "exceptions")
    return next((where for where in places if where.split(".")[0] == page_set), "")
