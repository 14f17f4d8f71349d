"""Who reaches what: every route for every role, strangers, and tokens that must not count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Blueprint

from ris_service import app as application
from tests.unit.ris_service.seeding import CHEST, HTML, KNEE, OURS, Clock, Hospital, csrf, seeded
from zambezi import clock, users
from zambezi.access import PUBLIC, ROLES, SIGNED_IN, may
from zambezi.access.tokens import COOKIE, sign

#: Something fitting for each variable part of a path.
PARTS = {"order_id": "1", "study_uid": CHEST, "version": "1", "delivery_id": "0" * 32, "user_id": "1", "item_id": "1",
         "name": "dicom:HARARE", "rule_id": "1", "kind": "csv", "share_id": "1", "secret": "none",
         "report_id": "1"}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Hospital:
    """One hospital for all questions that change nothing."""
    return seeded(tmp_path_factory.mktemp("access") / "home")


def routes(app) -> list[tuple[str, str, str]]:
    """Every (method, path, permission) there is."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        path = rule.rule
        for name in rule.arguments:
            path = path.replace(f"<int:{name}>", PARTS[name]).replace(f"<{name}>", PARTS[name])
        found += [
            (method, path, application.permission_of(app, rule.endpoint))
            for method in rule.methods - {"HEAD", "OPTIONS"}
        ]
    return found


@pytest.mark.parametrize("role", [*ROLES, "unheard-of"])
def test_each_route_opens_to_exactly_the_roles_that_hold_its_permission(shared, role):
    kind = {"emergency": "emergency", "guest": "share"}.get(role, "session")
    client = shared.carrying(shared.token(role, CHEST, kind=kind))
    for method, path, permission in routes(shared.app):
        status = client.open(path, method=method, headers=HTML).status_code
        known = role in ROLES
        if permission == PUBLIC:
            assert status not in (401, 403), (method, path)
        elif not known:
            assert status in ((303,) if method == "GET" else (401,)), (method, path)
        elif permission != SIGNED_IN and not may(role, permission):
            assert status == 403, (method, path)
        elif method == "POST":
            assert status == 400, (method, path)  # allowed, but the form's word against forgery is missing
        elif path != "/account":  # only those who signed in with a password have an account
            assert status in (200, 204, 303, 404), (method, path)


def test_a_stranger_is_led_to_the_sign_in_page_or_refused_on_every_path(shared):
    for method, path, permission in [*routes(shared.app), ("GET", "/no-such-page", ""), ("POST", "/no-such-page", "")]:
        if permission == PUBLIC:
            continue
        answer = shared.client().open(path, method=method, headers=HTML)
        if method == "GET":
            assert (answer.status_code, answer.headers["Location"][:14]) == (303, "/session?next="), path
        else:
            assert answer.status_code == 401, path
        plain = shared.client().open(path, method=method)
        assert plain.status_code == 401, path
        assert b"Concei" not in plain.data


def test_a_view_without_a_permission_keeps_the_application_from_starting(shared):
    naked = Blueprint("naked", __name__)
    naked.get("/naked")(lambda: "for everyone")
    app = application.create_app(
        shared.environment, shared.settings, shared.sessions, shared.keys, shared.clock, OURS[:1]
    )
    app.register_blueprint(naked)
    with pytest.raises(application.Untagged, match=r"naked\.<lambda>"):
        application.refuse_untagged(app)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-2] + ("AA" if text[-2:] != "AA" else "BB"),
        lambda text: text.replace("v1.", "v2.", 1),
        lambda text: text.split(".")[0] + "." + text.split(".")[1],
        lambda text: "v1.e30.e30",
        lambda text: "nonsense",
    ],
)
def test_a_forged_cookie_is_a_stranger(shared, spoil):
    client = shared.client()
    client.set_cookie(COOKIE, spoil(sign(shared.token("administrator"), shared.keys.session_key)))
    assert client.get("/users").status_code == 401


def test_a_token_signed_with_another_key_is_a_stranger(shared):
    client = shared.client()
    client.set_cookie(COOKIE, sign(shared.token("administrator"), "00" * 32))
    assert client.get("/users").status_code == 401


def test_an_expired_token_is_a_stranger(hospital):
    client = hospital.signed_in("radiographer")
    assert client.get("/").status_code == 200
    hospital.clock.pass_by(hours=13)
    assert client.get("/").status_code == 401


def test_a_revoked_token_is_a_stranger(hospital):
    token = hospital.token("radiographer")
    with hospital.sessions.begin() as session:
        users.revoke(session, [(token.session, token.expires)])
    assert hospital.carrying(token).get("/").status_code == 401


@pytest.mark.parametrize("kind", ["stranger", "entering", "settling", "service"])
def test_a_token_of_a_kind_that_is_no_sign_in_opens_nothing(hospital, kind):
    token = replace(hospital.token("administrator"), kind=kind)
    assert hospital.carrying(token).get("/users").status_code == 401


def test_a_disabled_account_and_a_changed_role_count_at_once(hospital):
    client = hospital.signed_in("radiographer")
    with hospital.sessions.begin() as session:
        users.find(session, "radiographer").role = "reception"
    assert client.get("/").status_code == 401
    with hospital.sessions.begin() as session:
        user = users.find(session, "radiographer")
        user.role, user.disabled_at = "radiographer", clock.text(hospital.clock())
    assert client.get("/").status_code == 401


def test_a_token_that_names_studies_opens_these_and_no_other(hospital):
    guest = hospital.carrying(hospital.token("guest", CHEST, kind="share"))
    page = guest.get("/shared")
    assert CHEST in page.text and KNEE not in page.text
    referrer = hospital.carrying(hospital.token("referrer", KNEE))
    assert referrer.get(f"/studies/{KNEE}/report").status_code == 200
    assert referrer.get(f"/studies/{KNEE}/report/1.pdf").status_code == 200
    assert referrer.get(f"/studies/{CHEST}/report").status_code == 404
    for path in ("/", "/studies", f"/studies/{KNEE}", f"/studies/{CHEST}"):
        assert referrer.get(path).status_code == 403


def test_without_ohif_images_open_in_the_orthanc_web_viewer_for_those_who_may_see_them(hospital):
    guest = hospital.carrying(hospital.token("guest", CHEST, kind="share"))
    sent_on = guest.get(f"/images?StudyInstanceUIDs={CHEST}")
    assert sent_on.headers["Location"] == f"/web-viewer/app/viewer.html?series=series-{CHEST}-1"
    assert guest.get(f"/images?StudyInstanceUIDs={KNEE}").status_code == 404
    assert hospital.signed_in("reception").get(f"/images?StudyInstanceUIDs={CHEST}").status_code == 404
    radiologist = hospital.signed_in("radiologist").get(f"/images?StudyInstanceUIDs={CHEST}")
    assert radiologist.headers["Location"] == f"/studies/{CHEST}"  # two series: its page has a link to each


def test_a_referrer_without_named_studies_sees_none(hospital):
    referrer = hospital.signed_in("referrer")
    assert referrer.get(f"/studies/{KNEE}/report").status_code == 404
    assert KNEE not in referrer.get("/shared").text


def test_an_emergency_token_named_like_a_user_has_no_account(hospital):
    client = hospital.carrying(hospital.token("emergency", kind="emergency", login="radiologist"))
    page = client.get("/studies")
    assert page.status_code == 200
    word = csrf(page.text)
    for path in ("/account/password", "/account/second-factor", "/account/second-factor/remove", "/account/language"):
        assert client.post(path, data={"csrf_token": word, "language": "en", "code": "1"}).status_code == 403


def test_a_form_of_another_sign_in_is_refused(hospital):
    word = csrf(hospital.signed_in("administrator").get("/users").text)
    answer = hospital.signed_in("administrator").post("/users/2/disable", data={"csrf_token": word})
    assert answer.status_code == 400


def test_the_headers_keep_pages_out_of_frames_caches_and_foreign_scripts(shared):
    for answer in (
        shared.client().get("/session"),
        shared.signed_in("radiologist").get("/"),
        shared.client().get("/x"),
    ):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<script>" not in answer.text and " style=" not in answer.text and " onclick" not in answer.text


def test_the_cookie_is_the_only_one_and_secure_behind_tls(hospital):
    answer = hospital.client().get("/session", headers={"X-Forwarded-Proto": "https"})
    cookies = answer.headers.getlist("Set-Cookie")
    assert len(cookies) == 1
    assert cookies[0].startswith(f"{COOKIE}=v1.")
    assert all(word in cookies[0] for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"))
    assert "Secure" not in hospital.client().get("/session").headers["Set-Cookie"]


def test_reading_renews_the_sign_in_but_never_beyond_its_end(hospital: Hospital):
    client = hospital.signed_in("radiologist")
    for _ in range(28):
        hospital.clock.pass_by(minutes=25)
        answer = client.get("/session/renew")
        assert answer.status_code == 204
    hospital.clock.pass_by(minutes=21)  # twelve hours after it began
    assert client.get("/session/renew").status_code == 401


def test_a_body_that_is_too_large_is_refused_with_a_page(hospital):
    client = hospital.signed_in("radiologist")
    word = csrf(client.get(f"/studies/{CHEST}/report").text)
    data = {"csrf_token": word, "version": 1, "edits": 0, "findings": "x" * 600_000}
    answer = client.post(f"/studies/{CHEST}/report/draft", data=data)
    assert answer.status_code == 413
    assert "<h1>" in answer.text


def test_a_fault_is_a_page_in_plain_words(tmp_path):
    broken = seeded(tmp_path / "home", moving=Clock())
    broken.app.view_functions["worklist.index"] = replace_view(broken.app.view_functions["worklist.index"])
    answer = broken.signed_in("radiologist").get("/", headers=HTML)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text


def replace_view(view):
    def fails():
        raise RuntimeError("secret detail")

    fails.zambezi_requires = view.zambezi_requires
    return fails
