"""Checkpoints by mail, to a real SMTP peer: the newest, once in so long, tried again; and what one of them proves."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from sqlalchemy import delete, update

from operations.auditing import verify
from operations.trail import standing
from operations.trail.commands import audit as commands
from operations.trail.mailing import Mailer
from tests.unit.operations.receivers import Heard, certificate, smtp_receiver
from zambezi import audit, checkpoints, signing
from zambezi.config.settings import Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditCheckpoint, AuditEntry, Base, ChainHead
from zambezi.environment import Environment

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
OUTSIDE = "notario@outside.example"


class House:
    def __init__(self, home: Path) -> None:
        self.now, self.home = NOW, home
        self.engine = connect(f"sqlite:///{home}/zambezi.db", "test")
        Base.metadata.create_all(self.engine)
        self.sessions = sessions(self.engine, "test")

    def sign(self) -> int:
        """Something was recorded, and signed; the checkpoint's number."""
        with self.sessions.begin() as session:
            audit.append(session, "ris", "viewed", self.now, who="ana", patient_name="CONCEICAO^JOSE")
            key = signing.current(self.home / "signing", "audit", "test", self.now)
            return int(checkpoints.make(session, key, self.now).body["number"])

    def settings(self, heard: Heard, **mail: str) -> Zambezi:
        server = {
            "Host": "localhost", "Port": heard.port, "Security": "none", "From": "zambezi@hcm.example",
            "To": ["ti@hcm.example"], **mail,
        }  # fmt: skip
        trail = {"CheckpointMailTo": [OUTSIDE], "CheckpointMailHours": 24}
        site = {"Name": "HCM", "Language": "pt"}
        return Zambezi.model_validate({"Alerts": {"Mail": server}, "Audit": trail, "Site": site})

    def mailer(self, settings: Zambezi) -> Mailer:
        return Mailer(self.sessions, self.sessions, settings, self.home, lambda: self.now)

    def broken(self, *evidence: Path) -> list[str]:
        with self.sessions() as session:
            return [str(one) for one in verify(session, self.home / "none", self.home, evidence).broken]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.engine.dispose()


def attached(raw: bytes, folder: Path) -> tuple[str, Path]:
    """What the mail says, and the attachment as its reader saves it."""
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    (part,) = mail.iter_attachments()
    name, body = part.get_filename(), mail.get_body()
    assert name and body
    (folder / name).write_bytes(part.get_content())
    return f"{mail['Subject']}\n{body.get_content()}", folder / name


def test_the_newest_goes_out_once_a_day_over_tls_and_shows_a_cut_end(house: House, tmp_path: Path):
    crt, context = certificate(tmp_path)
    with smtp_receiver(Heard(starttls=context)) as heard:
        mailer = house.mailer(house.settings(heard, Security="starttls", CaFile=str(crt)))
        assert mailer.round() == 0, "there is none yet"
        house.sign()
        house.sign()
        assert (mailer.round(), mailer.round(), len(heard.mails)) == (2, 0, 1)
        house.now += timedelta(hours=23)
        assert (house.sign(), mailer.round()) == (3, 0), "one a day"
        house.now += timedelta(hours=1)
        assert (mailer.round(), mailer.round()) == (3, 0)
        house.now -= timedelta(days=2)  # a clock that was put back silences nobody
        assert (house.sign(), mailer.round()) == (4, 4)
    assert [[one.upper() for one in to] for _, to, _ in heard.mails] == [[f"TO:<{OUTSIDE}>".upper()]] * 3
    said, saved = attached(heard.mails[-1][2], tmp_path)
    assert said.startswith("Zambezi, HCM: ponto de controlo 4 da auditoria")
    assert f"zambezi audit verify --against {saved.name}" in said
    assert "CONCEICAO" not in said + saved.read_text()
    assert house.broken(saved) == []
    with house.sessions.begin() as session:  # somebody takes the last entry away, and all that tells of it
        session.execute(delete(AuditCheckpoint))
        session.execute(delete(AuditEntry).where(AuditEntry.seq == 4))
        third = session.get_one(AuditEntry, ("ris", 3))
        session.execute(update(ChainHead).values(seq=3, hash=third.hash))
    assert house.broken() == []
    (place,) = house.broken(saved)
    assert "entry 4: the chain ends here" in place and saved.name in place


def test_what_the_server_refuses_is_tried_again_and_said_until_it_went(house: House):
    house.sign()
    with smtp_receiver(Heard(refuses=(OUTSIDE,))) as heard:
        settings = house.settings(heard)
        mailer = house.mailer(settings)
        assert (mailer.round(), mailer.round(), heard.mails) == (0, 0, [])
        (found,) = standing.conditions(house.sessions, settings.audit)
        assert (found.kind, found.source) == ("checkpoint-not-mailed", f"mail to {OUTSIDE}")
        assert found.facts["reason"] == "localhost: it refused every address"
        with house.sessions() as session:
            assert "no checkpoint of the audit trail went out by mail" in standing.look(session, settings.audit).trouble
        heard.refuses = ()
        assert mailer.round() == 0, "a moment after a failure it is left alone"
        house.now += timedelta(minutes=1)
        assert (mailer.round(), len(heard.mails)) == (1, 1)
        assert standing.conditions(house.sessions, settings.audit) == []
        with house.sessions() as session:
            said = standing.look(session, settings.audit)
        assert (said.trouble, said.lines[1]) == (
            "", f"       checkpoints by mail to {OUTSIDE}, the last 2026-03-01T08:31:00",
        )  # fmt: skip


def test_addresses_without_a_server_are_refused_by_name():
    with pytest.raises(ValidationError, match=r"Audit\.CheckpointMailTo: goes with Alerts\.Mail"):
        Zambezi.model_validate({"Audit": {"CheckpointMailTo": [OUTSIDE]}})


def test_a_person_tries_it_at_the_console(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZAMBEZI_HOME", str(tmp_path))
    monkeypatch.setenv("ZAMBEZI_CONFIG", str(tmp_path / "json"))
    (tmp_path / "json").mkdir()
    for name, value in Environment.read().variables().items():
        monkeypatch.setenv(name, value)
    house.sign()
    with smtp_receiver(Heard()) as heard:
        written = house.settings(heard).model_dump(mode="json", by_alias=True, exclude_unset=True)
        repository = Path(__file__).parents[4] / "orthanc-config"
        for file in repository.glob("[124]0-*.json"):
            (tmp_path / "json" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "json" / "30-zambezi.json").write_text(json.dumps({"Zambezi": written}))
        done = CliRunner().invoke(commands, ["checkpoint", "--mail"])
        assert (done.exit_code, done.output) == (0, f"checkpoint 2 was mailed to {OUTSIDE}\n")
        assert "checkpoint-2.json" in attached(heard.mails[0][2], tmp_path)[0]
        heard.refuses = (OUTSIDE,)
        refused = CliRunner().invoke(commands, ["checkpoint", "--mail"])
    assert refused.exit_code == 1
    assert "checkpoint 3 was signed, but not mailed: localhost: it refused every address" in refused.output
