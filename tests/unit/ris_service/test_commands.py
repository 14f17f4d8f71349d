"""What is done at the console: accounts, tokens, the list of orders."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from ris_service import commands
from tests.unit.ris_service.seeding import Hospital
from zambezi import orders, patients, users
from zambezi.access.tokens import read
from zambezi.database.tables import AuditEntry, Revocation, User


@pytest.fixture
def run(hospital: Hospital, monkeypatch):
    for name, value in hospital.environment.variables().items():
        monkeypatch.setenv(name, value)

    def invoke(command, *words: str, stdin: str | None = None):
        return CliRunner().invoke(command, words, input=stdin)

    return invoke


def test_an_added_account_gets_a_one_time_password(hospital, run):
    done = run(commands.user, "add", "Nova", "--name", "Nova Pessoa", "--role", "radiologist")
    password = done.output.split()[-1]
    with hospital.sessions.begin() as session:
        user = users.find(session, "nova")
    assert user.must_change_password
    assert users.password_is_right(user, password)


def test_a_password_from_standard_input_is_the_persons_own(hospital, run):
    add = ("add", "nova", "--name", "N", "--role", "reception", "--password-stdin")
    assert run(commands.user, *add, stdin="short\n").exit_code == 1
    assert run(commands.user, *add, stdin="seis pombas no telhado\n").exit_code == 0
    with hospital.sessions.begin() as session:
        user = users.find(session, "nova")
    assert not user.must_change_password
    assert users.password_is_right(user, "seis pombas no telhado")


def test_a_taken_login_and_an_unknown_one_end_in_a_sentence(run):
    taken = run(commands.user, "add", "reception", "--name", "N", "--role", "reception")
    assert (taken.exit_code, taken.output.strip()) == (1, "Error: login: 'reception' is taken")
    assert "no account 'nobody'" in run(commands.user, "disable", "nobody").output
    assert run(commands.user, "add", "x", "--name", "N", "--role", "emergency").exit_code == 2


def test_disabling_and_resetting_at_the_console(hospital, run):
    assert run(commands.user, "disable", "second").exit_code == 0
    assert "second" in run(commands.user, "list").output
    password = run(commands.user, "reset-password", "radiologist").output.split()[-1]
    with hospital.sessions.begin() as session:
        assert users.find(session, "second").disabled_at
        assert users.password_is_right(users.find(session, "radiologist"), password)


def test_an_emergency_token_lasts_one_shift_and_is_recorded(hospital, run):
    done = run(commands.token, "issue", "--kind", "emergency", "--name", "Dr. Noite", "--hours", "12")
    hospital.clock.at = users_clock()
    token = read(done.output.strip(), hospital.keys.session_key, int(hospital.clock().timestamp()))
    assert (token.subject, token.role, token.expires - token.started) == ("emergency:Dr. Noite", "emergency", 12 * 3600)
    with hospital.sessions.begin() as session:
        last = session.scalars(select(AuditEntry).order_by(AuditEntry.seq.desc())).first()
    assert json.loads(last.payload)["session"] == token.session


def users_clock():
    from zambezi import clock

    return clock.now()


@pytest.mark.parametrize(
    "words",
    [("--kind", "emergency", "--hours", "13"), ("--kind", "share"), ("--kind", "service"),
     ("--kind", "emergency", "--role", "administrator"), ("--kind", "emergency", "--study", "1.2"),
     ("--kind", "emergency", "--hours", "0")],
)  # fmt: skip
def test_tokens_that_would_open_too_much_are_not_issued(run, words):
    assert run(commands.token, "issue", "--name", "x", *words).exit_code != 0


def test_an_emergency_token_is_issued_with_the_database_away(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ZAMBEZI_DATABASE_URL", f"sqlite:///{tmp_path}/no/such/folder/x.db")
    done = run(commands.token, "issue", "--kind", "emergency", "--name", "Dr. Noite")
    assert done.exit_code == 0
    assert done.stdout.startswith("v1.")
    assert "note by hand" in done.stderr


def test_a_token_is_revoked_by_its_text_or_its_session(hospital, run):
    text = run(commands.token, "issue", "--kind", "share", "--name", "x", "--study", "1.2").stdout.strip()
    session_id = run(commands.token, "revoke", text).output.split()[0]
    assert run(commands.token, "revoke", "0123456789abcdef").exit_code == 0
    assert run(commands.token, "revoke", "v1.e30.e30").exit_code == 1
    assert run(commands.token, "revoke", "everything").exit_code == 1
    with hospital.sessions.begin() as session:
        assert {row.session for row in session.scalars(select(Revocation))} == {session_id, "0123456789abcdef"}


def test_the_list_of_orders_names_no_patient(hospital, run):
    shown = run(commands.order, "list").output
    assert "Z260302" in shown
    with hospital.sessions.begin() as session:
        assert session.scalars(select(User)).first()
    assert "Concei" not in shown


def test_a_patient_is_shown_with_its_numbers_and_without_its_name(hospital, run):
    with hospital.sessions.begin() as session:
        issuer = hospital.settings.site.issuer
        prior, survivor = (orders.find_patient(session, number, issuer) for number in ("P1001", "P1004"))
        merged = patients.merge(
            session, prior=prior, survivor=survivor, now=hospital.clock(), writer="ris", who="his"
        ).correction  # fmt: skip
    said = run(commands.patient, "show", "P1004").output
    assert f"known before as P1001@{issuer}" in said
    assert said.count("  order ") == 2
    assert f"merged into P1004@{issuer} by correction {merged}" in run(commands.patient, "show", "P1001").output
    assert "Mutasa" not in said
    assert run(commands.patient, "show", "nobody").exit_code == 1
