"""Telling, over real sockets and a real database: signed, verified, durable, never twice, never for ever."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from sqlalchemy import func, select

from operations import alert_channels, alerting, status
from operations.alert_channels import ChannelFailed, Mail, Webhook
from operations.alert_commands import alerts_group
from operations.alerts import Message
from tests.unit.operations.receivers import Heard, certificate, http_receiver, smtp_receiver
from zambezi import clock, exceptions
from zambezi.chain import Sealed
from zambezi.config.settings import AlertMail, Alerts, AlertWebhook, Site
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AlertChannel, AlertTold, AuditEntry, ExceptionItem

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SITE = Site(name="HCM", language="pt")
#: A name that must never leave the house.
PATIENT = "CONCEICAO^JOSE"


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, **how: float) -> None:
        self.at += timedelta(**how)


@pytest.fixture
def opened(tables_url: str) -> Sessions:
    engine = connect(tables_url, "test")
    return sessions(engine, "test")


def waits(opened: Sessions, *references: str, kind: str = "conflict", at: datetime = NOW) -> int:
    with opened.begin() as session:
        for reference in references:
            exceptions.wait(
                session, "hold", reference, what=f"about {PATIENT}", suggestion=f"ask {PATIENT}", now=at, kind=kind,
                study_uid="1.2.3", facts={"reason": PATIENT},
            )  # fmt: skip
        return session.scalars(select(ExceptionItem.id).where(ExceptionItem.reference == reference)).one()


def webhook(heard: Heard, home: Path, **how) -> Webhook:
    return Webhook(AlertWebhook(url=f"http://127.0.0.1:{heard.port}/hook?room=1", **how), home, whole_s=5)


def teller(opened: Sessions, way: alert_channels.Way, now: Clock, **how) -> alerting.Teller:
    settings = Alerts(**{"digest_hour": None, "page_address": "https://pacs.example", **how})
    return alerting.Teller(opened, way, settings, SITE, now)


def channel(opened: Sessions, name: str = "webhook") -> AlertChannel:
    with opened() as session:
        return session.get_one(AlertChannel, name)


def trail(opened: Sessions) -> list[dict]:
    with opened() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == "alerted").order_by(AuditEntry.seq)).all()
    return [Sealed(row.journal, row.seq, row.hash, row.payload).facts for row in rows]


# --- what goes out ------------------------------------------------------------------------------------


def test_a_webhook_gets_signed_json_without_a_patient(opened: Sessions, tmp_path: Path):
    number = waits(opened, "held 1")
    (tmp_path / "secret").write_text("well kept\n")
    with http_receiver(Heard()) as heard:
        teller(opened, webhook(heard, tmp_path, secret_file="secret"), Clock()).round()
    ((path, headers, body),) = heard.requests
    assert path == "/hook?room=1"
    told = json.loads(body)
    assert (told["about"], told["new"], told["serious"], told["site"]) == ("alert", 1, 1, "HCM")
    assert told["groups"][0]["ids"] == [number]
    assert told["groups"][0]["href"] == "https://pacs.example/exceptions?room=hold&kind=conflict"
    signed = headers["X-Zambezi-Timestamp"].encode() + b"." + body
    assert headers["X-Zambezi-Signature"] == f"sha256={hmac.new(b'well kept', signed, hashlib.sha256).hexdigest()}"
    assert PATIENT.encode() not in body and b"1.2.3" not in body
    with opened() as session:
        assert session.get_one(ExceptionItem, number).alerted_at == clock.text(NOW)
    assert [(e["channel"], e["about"], e["exceptions"]) for e in trail(opened)] == [("webhook", "alert", [number])]
    assert PATIENT not in json.dumps(trail(opened))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_over_tls_that_is_verified_and_signs_in_only_there(opened: Sessions, tmp_path: Path, security: str):
    crt, context = certificate(tmp_path)
    (tmp_path / "password").write_text("gergelim\n")
    heard = Heard(password="gergelim", **{"starttls" if security == "starttls" else "tls_at_once": context})
    number = waits(opened, "held 1")
    with smtp_receiver(heard):
        given = AlertMail(
            host="localhost", port=heard.port, security=security, user="zambezi", password_file="password",
            from_="zambezi@hcm.example", to=("ti@hcm.example", "chefe@hcm.example"),
        )  # fmt: skip
        stranger = teller(opened, Mail(given, tmp_path), Clock())
        stranger.round()
        assert "its certificate is not trusted" in channel(opened, "mail").error
        assert (heard.logins, heard.mails) == ([], [])
        now = Clock()
        now.pass_by(minutes=1)
        teller(opened, Mail(given.model_copy(update={"ca_file": str(crt)}), tmp_path), now).round()
    assert channel(opened, "mail").error == ""
    assert heard.logins == [("zambezi", "gergelim", True)]
    ((sender, to, raw),) = heard.mails
    assert "zambezi@hcm.example" in sender and len(to) == 2
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["Subject"] == "Zambezi, HCM: à espera de uma pessoa: 1 (graves: 1)"
    assert mail["Auto-Submitted"] == "auto-generated" and mail["Message-ID"] and mail["Date"]
    text = mail.get_content()
    assert "Imagens em conflito" in text and str(number) in text and PATIENT not in text
    assert "https://pacs.example/exceptions" in text


def test_where_tls_is_asked_for_nothing_goes_out_without_it(tmp_path: Path):
    (tmp_path / "password").write_text("x")
    with smtp_receiver(Heard(password="x")) as heard:
        given = AlertMail(
            host="127.0.0.1", port=heard.port, user="u", password_file="password", from_="a@b.c", to=("d@e.f",)
        )
        with pytest.raises(ChannelFailed, match="STARTTLS"):
            Mail(given, tmp_path, whole_s=5).send({"about": "test", "site": "x", "href": "/"}, "en", NOW)
    assert (heard.logins, heard.mails) == ([], [])


def test_a_password_that_smtp_cannot_carry_is_said_instead_of_breaking_anything(tmp_path: Path):
    crt, context = certificate(tmp_path)
    (tmp_path / "password").write_text("açaí")
    with smtp_receiver(Heard(password="x", starttls=context)) as heard:
        given = AlertMail(
            host="localhost", port=heard.port, user="u", password_file="password", from_="a@b.c", to=("d@e.f",),
            ca_file=str(crt),
        )  # fmt: skip
        with pytest.raises(ChannelFailed, match="isn't ASCII"):
            Mail(given, tmp_path, whole_s=5).send({"about": "test", "site": "x", "href": "/"}, "en", NOW)


def test_one_address_that_is_refused_keeps_no_other_from_being_told(tmp_path: Path):
    with smtp_receiver(Heard(refuses=("gone@e.f",))) as heard:
        given = AlertMail(host="127.0.0.1", port=heard.port, security="none", from_="a@b.c", to=("d@e.f", "gone@e.f"))
        told = {"about": "test", "site": "x", "href": "/"}
        Mail(given, tmp_path, whole_s=5).send(told, "en", NOW)
        assert len(heard.mails) == 1
        with pytest.raises(ChannelFailed, match="it refused every address"):
            Mail(given.model_copy(update={"to": ("gone@e.f",)}), tmp_path, whole_s=5).send(told, "en", NOW)


# --- when the other side doesn't ----------------------------------------------------------------------


def test_a_receiver_that_is_away_is_tried_again_with_longer_waits_then_told_all_at_once(
    opened: Sessions, tmp_path: Path
):
    now, heard = Clock(), Heard()
    with http_receiver(heard):
        pass  # it was there, and is gone: the port is closed
    way = webhook(heard, tmp_path)
    waits(opened, "held 1")
    tries = []
    for minute in range(8):
        before = channel(opened).failures if minute else 0
        teller(opened, way, now).round()
        tries += [minute] if channel(opened).failures > before else []
        now.pass_by(minutes=1)
    assert tries == [0, 1, 3, 7]
    row = channel(opened)
    assert (row.error_since, row.sent_at) == (clock.text(NOW), None)
    with opened() as session:
        (state,) = status.alert_states(session)
    assert "ConnectionRefusedError" in state.error
    waits(opened, "held 2", at=now.at)
    now.pass_by(minutes=10)
    with http_receiver(heard):
        teller(opened, way, now).round()
        teller(opened, way, now).round()
    ((_, _, body),) = heard.requests
    assert json.loads(body)["new"] == 2
    assert (channel(opened).error, channel(opened).failures) == ("", 0)


def test_what_is_told_survives_a_restart_and_a_flood_is_one_message(opened: Sessions, tmp_path: Path):
    now = Clock()
    waits(opened, *(f"held {n}" for n in range(1200)))
    with http_receiver(Heard()) as heard:
        teller(opened, webhook(heard, tmp_path), now).round()
        again = teller(opened, webhook(heard, tmp_path), now)  # another process
        for n in range(30):
            waits(opened, f"later {n}", at=now.at)
            again.round()
            now.pass_by(seconds=20)
        assert len(heard.requests) == 1
        now.pass_by(minutes=10)
        again.round()
        again.round()
    assert [json.loads(body)["new"] for _, _, body in heard.requests] == [1200, 30]
    with opened() as session:
        untold = select(func.count()).select_from(ExceptionItem).where(ExceptionItem.alerted_at.is_(None))
        assert session.scalars(untold).one() == 0


def test_what_is_decided_is_forgotten_and_what_comes_again_is_told_again(opened: Sessions, tmp_path: Path):
    now, number = Clock(), waits(opened, "held 1")
    with http_receiver(Heard()) as heard:
        one = teller(opened, webhook(heard, tmp_path), now)
        one.round()
        with opened.begin() as session:
            exceptions.decide_items(session, [number], who="a", decision="b", now=now.at, writer="ris")
        now.pass_by(hours=1)
        one.round()
        with opened() as session:
            assert session.scalars(select(AlertTold)).all() == []
        waits(opened, "held 1", at=now.at)
        one.round()
    assert len(heard.requests) == 2


def test_a_redirect_is_not_followed_and_an_error_is_one(opened: Sessions, tmp_path: Path):
    with http_receiver(Heard()) as target, http_receiver(Heard(status=302)) as heard:
        heard.location = f"http://127.0.0.1:{target.port}/"
        way = webhook(heard, tmp_path)
        with pytest.raises(ChannelFailed, match="redirects are not followed"):
            way.send({}, "en", NOW)
        heard.status = 500
        with pytest.raises(ChannelFailed, match="answered 500"):
            way.send({}, "en", NOW)
    assert target.requests == []


def test_a_receiver_that_drips_byte_by_byte_is_given_up(tmp_path: Path):
    with http_receiver(Heard(drips=True)) as heard:
        way = Webhook(AlertWebhook(url=f"http://127.0.0.1:{heard.port}/"), tmp_path, whole_s=0.5)
        began = time.monotonic()
        with pytest.raises(ChannelFailed, match=r"longer than 0\.5 seconds"):
            way.send({}, "en", NOW)
        assert time.monotonic() - began < 3


def test_https_is_verified(tmp_path: Path):
    crt, context = certificate(tmp_path)
    with http_receiver(Heard(tls_at_once=context)) as heard:
        url = f"https://localhost:{heard.port}/"
        with pytest.raises(ChannelFailed, match="certificate is not trusted"):
            Webhook(AlertWebhook(url=url), tmp_path).send({}, "en", NOW)
        Webhook(AlertWebhook(url=url, ca_file=crt.name), tmp_path).send({}, "en", NOW)
    assert len(heard.requests) == 1


@pytest.mark.parametrize(("content", "why"), [(None, "can't be read"), (b" \n", "is empty")])
def test_a_secret_that_is_not_there_is_said_by_its_files_name(tmp_path: Path, content: bytes | None, why: str):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ChannelFailed, match=f"SecretFile secret {why}"):
        Webhook(AlertWebhook(url="https://localhost:1/", secret_file="secret"), tmp_path).send({}, "en", NOW)


# --- digest, settings, status -------------------------------------------------------------------------


def test_the_digest_tells_of_all_that_waits_once_a_day(opened: Sessions, tmp_path: Path):
    now = Clock()
    now.at = NOW.replace(hour=4, minute=50)
    number = waits(opened, "step", kind="mpps-no-order", at=now.at)
    with http_receiver(Heard()) as heard:
        one = teller(opened, webhook(heard, tmp_path), now, digest_hour=7)
        for _ in range(3):
            one.round()
            now.pass_by(minutes=10)
        now.pass_by(hours=12)
        one.round()
    ((_, _, body),) = heard.requests
    told = json.loads(body)
    assert (told["about"], told["new"], told["open"], told["groups"][0]["ids"]) == ("digest", 0, 1, [number])
    assert channel(opened).digest_day == "2026-03-02"


def test_two_channels_stand_each_for_itself_and_a_channel_that_is_gone_is_forgotten(opened: Sessions, tmp_path: Path):
    waits(opened, "held 1")
    dead = Mail(AlertMail(host="127.0.0.1", port=1, security="none", from_="a@b.c", to=("d@e.f",)), tmp_path, whole_s=5)
    with http_receiver(Heard()) as heard:
        teller(opened, dead, Clock()).round()
        teller(opened, webhook(heard, tmp_path), Clock()).round()
    assert len(heard.requests) == 1
    with opened.begin() as session:
        assert {one.name: bool(one.error) for one in status.alert_states(session)} == {"mail": True, "webhook": False}
        alerting.forget_others(session, ["webhook"])
        assert [one.name for one in status.alert_states(session)] == ["webhook"]


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5/x", "ftp://host/", "https://", "https://user:pass@host/", "nonsense", "https://h:99999/"]
)
def test_an_address_that_is_not_safe_is_refused(url: str):
    with pytest.raises(ValidationError):
        AlertWebhook(url=url)


@pytest.mark.parametrize(
    "given",
    [
        {"host": "smtp", "from_": "a@b.c"},
        {"host": "smtp", "from_": "a@b.c", "to": ("x\r\nBcc: y@z.w",)},
        {"host": "smtp", "from_": "a@b.c", "to": ("d@e.f",), "security": "none", "user": "u", "password_file": "p"},
        {"host": "smtp", "from_": "a@b.c", "to": ("d@e.f",), "user": "u"},
    ],
)
def test_mail_settings_that_would_not_work_or_show_a_password_are_refused(given: dict):
    with pytest.raises(ValidationError):
        AlertMail(**given)


def test_a_kind_that_nobody_knows_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="known: audit-broken"):
        Alerts(hours_of_kind={"conflikt": 1})


def test_the_command_tells_a_test_by_every_way_and_says_which_failed(
    opened: Sessions, tables_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "json").mkdir()
    monkeypatch.setenv("ZAMBEZI_DATABASE_URL", tables_url)
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path))
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(tmp_path / "json"))
    from zambezi.environment import REPOSITORY

    for file in (REPOSITORY / "orthanc-config").glob("[124]0-*.json"):
        (tmp_path / "json" / file.name).write_bytes(file.read_bytes())
    with http_receiver(Heard()) as heard:
        mail = {"Host": "127.0.0.1", "Port": 1, "Security": "none", "From": "a@b.c", "To": ["d@e.f"]}
        section = {"Webhook": {"Url": f"http://127.0.0.1:{heard.port}/"}, "Mail": mail}
        ours = tmp_path / "json" / "30-zambezi.json"
        ours.write_text(json.dumps({"Zambezi": {"Alerts": section}}))
        result = CliRunner().invoke(alerts_group, ["test"])
        assert (result.exit_code, "webhook: told" in result.output, "mail: 127.0.0.1:" in result.output) == (
            1,
            True,
            True,
        )
        assert json.loads(heard.requests[0][2])["about"] == "test"
        ours.write_text(json.dumps({"Zambezi": {}}))
        assert "names neither" in CliRunner().invoke(alerts_group, ["test"]).output
    assert [e["about"] for e in trail(opened)] == ["test"]
    assert Message("test").new == ()
