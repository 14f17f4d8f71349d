"""Signing in: password, lock-out, second factor, the first own password, where one lands."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyotp
import pytest
from sqlalchemy import select

from tests.unit.ris_service.seeding import PASSWORD, Hospital, csrf
from tests.unit.ris_service.seeding import hospital as empty_hospital
from zambezi import users
from zambezi.access.tokens import COOKIE, begin, sign
from zambezi.config.settings import Session as SessionSettings
from zambezi.config.settings import Zambezi
from zambezi.database import generations
from zambezi.database.tables import AuditEntry, Revocation

NEW = "quinze cavalos cinzentos"


def sign_in(client, login="radiologist", password=PASSWORD, where=""):
    word = csrf(client.get("/session").text)
    return client.post("/session", data={"login": login, "password": password, "next": where, "csrf_token": word})


def entries(hospital: Hospital, event: str) -> list[dict]:
    with hospital.sessions.begin() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == event).order_by(AuditEntry.seq))
        return [json.loads(row.payload) for row in rows]


def test_login_and_password_lead_to_the_first_page_of_the_role(hospital):
    for login, path in (("radiologist", "/"), ("migration-engineer", "/migrations"), ("referrer", "/shared")):
        client = hospital.client()
        answer = sign_in(client, login)
        assert (answer.status_code, answer.headers["Location"]) == (303, path)
    assert [entry["who"] for entry in entries(hospital, "signed-in")] == [
        "radiologist",
        "migration-engineer",
        "referrer",
    ]


def test_the_login_may_be_typed_in_any_case(hospital):
    assert sign_in(hospital.client(), " Radiologist ").status_code == 303


def test_the_token_changes_with_the_sign_in(hospital):
    client = hospital.client()
    client.get("/session")
    before = client.get_cookie(COOKIE).value
    sign_in(client)
    assert client.get_cookie(COOKIE).value != before


@pytest.mark.parametrize("login", ["radiologist", "nobody"])
def test_a_wrong_password_and_an_unknown_login_get_the_same_answer(hospital, login):
    answer = sign_in(hospital.client(), login, "wrong password")
    assert answer.status_code == 401
    assert "O utilizador ou a palavra-passe não está certo" in answer.text
    assert len(entries(hospital, "sign-in-failed")) == 1


def test_what_was_typed_as_an_unknown_login_is_not_recorded(hospital):
    sign_in(hospital.client(), PASSWORD, "x")
    assert PASSWORD not in json.dumps(entries(hospital, "sign-in-failed"))


def test_too_many_wrong_passwords_close_the_account_for_a_while(hospital):
    for _ in range(hospital.settings.session.lockout_failures):
        assert sign_in(hospital.client(), password="wrong").status_code == 401
    assert sign_in(hospital.client()).status_code == 401
    hospital.clock.pass_by(minutes=hospital.settings.session.lockout_minutes + 1)
    assert sign_in(hospital.client()).status_code == 303


def test_the_lock_out_is_decided_by_count_and_time():
    now, settings = datetime(2026, 1, 1, tzinfo=UTC), SessionSettings(lockout_failures=3, lockout_minutes=10)
    assert users.after_failure(0, now, settings) == users.Lockout(1, None)
    assert users.after_failure(2, now, settings) == users.Lockout(0, datetime(2026, 1, 1, 0, 10, tzinfo=UTC))
    assert users.is_locked("2026-01-01T00:10:00.000000Z", now)
    assert not users.is_locked("2026-01-01T00:00:00.000000Z", now)
    assert not users.is_locked(None, now)


def test_a_one_time_password_leads_to_an_own_one_and_nowhere_else(hospital):
    with hospital.sessions.begin() as session:
        users.add(session, "nova", "Nova Pessoa", "radiographer", "one-time-1234", hospital.clock(), "ris", "console")
    client = hospital.client()
    answer = sign_in(client, "nova", "one-time-1234", "/studies")
    assert answer.headers["Location"] == "/session/settle?next=/studies" or "%2Fstudies" in answer.headers["Location"]
    assert client.get("/").status_code == 401
    page = client.get(answer.headers["Location"])
    form = {"csrf_token": csrf(page.text), "next": "/studies"}
    for password, again in (
        ("short", "short"),
        ("one-time-1234", "one-time-1234"),
        (NEW, NEW + "!"),
        ("nova" * 4, "nova" * 4),
    ):
        assert client.post("/session/settle", data={**form, "password": password, "again": again}).status_code == 400
    answer = client.post("/session/settle", data={**form, "password": NEW, "again": NEW})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/studies")
    assert client.get("/studies").status_code == 200
    assert sign_in(hospital.client(), "nova", "one-time-1234").status_code == 401


def with_factor(hospital: Hospital) -> str:
    secret = pyotp.random_base32()
    with hospital.sessions.begin() as session:
        users.find(session, "radiologist").totp_secret = secret
    return secret


def enter_code(client, code: str):
    word = csrf(client.get("/session/second-factor").text)
    return client.post("/session/second-factor", data={"code": code, "csrf_token": word})


def test_a_second_factor_is_asked_for_and_its_code_counts_once(hospital):
    secret = with_factor(hospital)
    client = hospital.client()
    assert sign_in(client).headers["Location"] == "/session/second-factor"
    assert client.get("/").status_code == 401
    code = pyotp.TOTP(secret).at(hospital.clock())
    assert enter_code(client, code).headers["Location"] == "/"
    other = hospital.client()
    sign_in(other)
    assert enter_code(other, code).status_code == 401
    hospital.clock.pass_by(seconds=30)
    assert enter_code(other, pyotp.TOTP(secret).at(hospital.clock())).status_code == 303


def test_guessed_codes_close_the_account_although_the_password_is_right(hospital):
    secret = with_factor(hospital)
    for _ in range(hospital.settings.session.lockout_failures):
        client = hospital.client()
        sign_in(client)
        assert enter_code(client, "000000").status_code == 401
    client = hospital.client()
    assert sign_in(client).status_code == 401
    hospital.clock.pass_by(hours=1)
    client = hospital.client()
    sign_in(client)
    assert enter_code(client, pyotp.TOTP(secret).at(hospital.clock())).status_code == 303


def test_a_code_is_right_one_step_early_or_late_but_never_twice():
    secret, now = pyotp.random_base32(), datetime(2026, 1, 1, tzinfo=UTC)
    step = int(now.timestamp()) // 30
    totp = pyotp.TOTP(secret)
    for shift in (-1, 0, 1):
        assert users.totp_step(secret, totp.at((step + shift) * 30), None, now) == step + shift
    assert users.totp_step(secret, totp.at((step + 2) * 30), None, now) is None
    assert users.totp_step(secret, totp.at(step * 30), step, now) is None
    assert users.totp_step(secret, totp.at(step * 30), step + 1, now) is None


def test_a_role_that_needs_a_second_factor_sets_it_up_before_the_first_page(tmp_path):
    settings = Zambezi(session=SessionSettings(second_factor_roles=("administrator",)))
    strict = empty_hospital(tmp_path / "home", settings)
    with strict.sessions.begin() as session:
        users.add(session, "chefe", "Chefe", "administrator", "one-time-1234", strict.clock(), "ris", "console")
    client = strict.client()
    sign_in(client, "chefe", "one-time-1234")
    word = csrf(client.get("/session/settle").text)
    client.post("/session/settle", data={"csrf_token": word, "password": NEW, "again": NEW})
    assert client.get("/users").status_code == 401
    page = client.get("/session/settle")
    assert "<svg" in page.text
    secret = page.text.split("<code>")[1].split("</code>")[0]
    form = {"csrf_token": csrf(page.text)}
    assert client.post("/session/settle", data={**form, "code": "000000"}).status_code == 400
    answer = client.post("/session/settle", data={**form, "code": pyotp.TOTP(secret).at(strict.clock())})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert client.get("/users").status_code == 200


@pytest.mark.parametrize(
    "where",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
     "/session/end", "http:evil", "/%0d%0aX: y\r\n", "evil", "///evil.example", "/\tevil"],
)  # fmt: skip
def test_nobody_is_led_to_another_host_after_the_sign_in(hospital, where):
    answer = sign_in(hospital.client(), where=where)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_who_asked_for_a_page_gets_it_after_the_sign_in(hospital):
    answer = sign_in(hospital.client(), where="/studies?q=a&modality=CT")
    assert answer.headers["Location"] == "/studies?q=a&modality=CT"


def test_signing_out_ends_the_token_here_and_in_the_plugin(hospital):
    client = hospital.client()
    sign_in(client)
    stolen = client.get_cookie(COOKIE).value
    word = csrf(client.get("/").text)
    assert client.post("/session/end", data={"csrf_token": word}).status_code == 303
    assert client.get("/").status_code == 401
    thief = hospital.client()
    thief.set_cookie(COOKIE, stolen)
    assert thief.get("/").status_code == 401
    with hospital.sessions.begin() as session:
        revoked = session.scalars(select(Revocation)).one()
        assert generations.current(session, "revocations") == 1
    signed_out = entries(hospital, "signed-out")[0]
    assert signed_out["session"] == revoked.session == entries(hospital, "signed-in")[0]["session"]


def test_a_new_password_ends_the_other_sign_ins_and_not_this_one(hospital):
    here, elsewhere = hospital.client(), hospital.client()
    sign_in(here)
    sign_in(elsewhere)
    word = csrf(here.get("/account").text)
    form = {"csrf_token": word, "present": PASSWORD, "password": NEW, "again": NEW}
    assert here.post("/account/password", data={**form, "present": "wrong"}).status_code == 400
    assert here.post("/account/password", data=form).status_code == 303
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 401
    assert sign_in(hospital.client(), password=NEW).status_code == 303


def test_a_person_sets_up_and_removes_the_second_factor(hospital):
    client = hospital.client()
    sign_in(client)
    page = client.get("/account")
    secret = page.text.split("<code>")[1].split("</code>")[0]
    assert secret == client.get("/account").text.split("<code>")[1].split("</code>")[0]
    form = {"csrf_token": csrf(page.text), "code": pyotp.TOTP(secret).at(hospital.clock())}
    assert client.post("/account/second-factor", data=form).status_code == 303
    assert client.post("/account/second-factor", data=form).status_code == 409
    assert sign_in(hospital.client()).headers["Location"] == "/session/second-factor"
    form["present"] = PASSWORD
    assert client.post("/account/second-factor/remove", data=form).status_code == 303
    assert sign_in(hospital.client()).headers["Location"] == "/"


def test_an_emergency_token_is_carried_by_the_browser_and_recorded(hospital):
    token = hospital.token("emergency", kind="emergency", login="emergency:Dr. Noite")
    client = hospital.client()
    word = csrf(client.get("/session/token").text)
    text = sign(token, hospital.keys.session_key)
    answer = client.post("/session/token", data={"csrf_token": word, "token": f" {text}\n"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/studies")
    assert client.get("/studies").status_code == 200
    assert entries(hospital, "signed-in")[-1]["who"] == "emergency:Dr. Noite"


@pytest.mark.parametrize("kind", ["session", "service"])
def test_other_tokens_are_not_taken_from_a_form(hospital, kind):
    token = begin("administrator", kind, "administrator", int(hospital.clock().timestamp()), 600)
    client = hospital.client()
    word = csrf(client.get("/session/token").text)
    text = sign(token, hospital.keys.session_key)
    assert client.post("/session/token", data={"csrf_token": word, "token": text}).status_code == 401


def test_an_administrator_adds_resets_and_disables_accounts(hospital):
    admin = hospital.signed_in("administrator")
    word = csrf(admin.get("/users").text)
    page = admin.post("/users", data={"csrf_token": word, "login": "zé", "name": "Zé", "role": "reception"})
    assert page.status_code == 400
    page = admin.post("/users", data={"csrf_token": word, "login": "ze", "name": "Zé", "role": "emergency"})
    assert page.status_code == 400
    page = admin.post("/users", data={"csrf_token": word, "login": "Ze", "name": "Zé", "role": "reception"})
    password = page.text.split('class="secret">')[1].split("<")[0]
    assert sign_in(hospital.client(), "ze", password).headers["Location"].startswith("/session/settle")
    victim = hospital.client()
    sign_in(victim, "second")
    with hospital.sessions.begin() as session:
        second, admin_id = users.find(session, "second").id, users.find(session, "administrator").id
    assert admin.post(f"/users/{second}/disable", data={"csrf_token": word}).status_code == 303
    assert victim.get("/").status_code == 401
    assert sign_in(hospital.client(), "second").status_code == 401
    assert admin.post(f"/users/{admin_id}/disable", data={"csrf_token": word}).status_code == 409
    assert admin.post(f"/users/{second}/enable", data={"csrf_token": word}).status_code == 303
    page = admin.post(f"/users/{second}/reset", data={"csrf_token": word})
    password = page.text.split('class="secret">')[1].split("<")[0]
    assert sign_in(hospital.client(), "second").status_code == 401
    assert sign_in(hospital.client(), "second", password).headers["Location"].startswith("/session/settle")
