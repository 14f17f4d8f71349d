"""What the caretaker says to a person, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from operations import auditing
from operations.running import first_administrator
from operations.service import Caretaker, audit_concerns, disk_concern, raise_item
from zambezi import clock, disk, exception_kinds, exception_rules, exceptions, users
from zambezi.config.settings import Disk
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Base, ExceptionItem, ProcessState
from zambezi.disk import Gauge, Volume
from zambezi.environment import Environment

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
GB = 2**30


@pytest.fixture
def session(tables_url: str) -> Iterator[Session]:
    engine = connect(tables_url, "test")
    with sessions(engine, "test")() as opened:
        yield opened
    engine.dispose()


def test_a_disk_that_gets_full_is_an_item_once_and_no_longer_when_there_is_room(tmp_path: Path):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    opened = sessions(connect(environment.database_url, "operations"), "operations")
    with opened.begin() as session:
        Base.metadata.create_all(session.connection())
    free, at = 21.0, 0.0

    def clock_of_the_gauge() -> float:
        nonlocal at
        at += 60
        return at

    gauge = Gauge(Disk(), lambda: [Volume(("images",), 1000 * GB, int(free * GB))], clock_of_the_gauge)
    caretaker = Caretaker(environment, opened, opened, "", ZoneInfo("Africa/Maputo"), gauge)

    def looked() -> list[tuple[str | None, str]]:
        caretaker.look_at_disk()
        with opened() as session:
            items = session.scalars(select(ExceptionItem)).all()
            trail = session.scalars(select(AuditEntry.event).order_by(AuditEntry.seq)).all()
        return [(item.decision, item.what) for item in items] + [("", event) for event in trail]

    assert looked() == []
    free = 19.0
    what = "The disk is getting full. images: 19.0 GB of 1000 GB are free"
    assert looked() == looked() == [(None, what), ("", "incident")]
    free = 22.0  # not enough to spare
    assert looked()[0] == (None, what)
    free = 26.0
    assert looked() == [("There is room again.", what), ("", "incident"), ("", "exception-decided")]
    free = 18.0
    assert looked()[0][0] is None, "what comes again waits anew"


def test_a_job_that_fails_is_said_when_it_fails_and_never_after(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    opened = sessions(connect(environment.database_url, "operations"), "operations")
    with opened.begin() as session:
        Base.metadata.create_all(session.connection())
    caretaker = Caretaker(environment, opened, opened, "", ZoneInfo("Africa/Maputo"), Gauge(Disk(), list))
    outcomes = iter(["no such place", "no such place", "", "", "no such place"])

    def backup() -> None:
        if why := next(outcomes):
            raise OSError(why)

    job, said = caretaker.guarded(backup), []
    for _ in range(5):
        job()
        caretaker.sign_of_life()
        with opened() as session:
            row = session.get_one(ProcessState, "operations")
            said.append((row.last_error, row.last_error_at == row.at))
    error = "backup: no such place"
    assert said == [(error, True), (error, True), (error, False), (error, False), (error, True)]
    assert [one.getMessage() for one in caplog.records] == [error, error], "once for each time that it goes wrong"


def test_each_broken_place_of_the_audit_trail_is_a_concern():
    place = auditing.Place("journal file", "orthanc-1", 17, "the sealed payload is not what was hashed")
    concerns = audit_concerns(auditing.Verdict({}, "orthanc-1", 16, [place]))
    assert [concern.reference for concern in concerns] == ["audit orthanc-1 17"]
    assert str(place) in concerns[0].what


def test_a_concern_waits_for_a_person_once_and_is_an_incident_in_the_trail(session: Session):
    concern = disk_concern(disk.decide([Volume(("images",), 1000 * GB, 1 * GB)], {}, Disk()))
    assert concern is not None
    assert [raise_item(session, concern, NOW), raise_item(session, concern, NOW)] == [True, False]
    (item,) = session.scalars(select(ExceptionItem)).all()
    assert (item.room, item.kind, item.reference) == ("disk", "disk-low", "disk")
    said = exception_kinds.words(item.kind, "pt", item.facts)
    assert said is not None and "Um disco (images) está a encher: estão livres 1.0 GB de 1000 GB" in said.what
    assert session.scalars(select(AuditEntry.event)).all() == ["incident"]


def test_a_broken_audit_trail_has_all_facts_that_its_words_need():
    place = auditing.Place("journal file", "orthanc-1", 17, "the sealed payload is not what was hashed")
    (concern,) = audit_concerns(auditing.Verdict({}, "orthanc-1", 16, [place]))
    said = exception_kinds.words(concern.kind, "pt", concern.facts)
    assert said is not None and "cadeia orthanc-1, entrada 17" in said.what


def test_the_caretaker_carries_out_every_rule_in_force_and_only_those(tmp_path: Path):
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    opened = sessions(connect(environment.database_url, "operations"), "operations")
    with opened.begin() as session:
        Base.metadata.create_all(session.connection())
        for n in range(250):
            exceptions.wait(
                session, "mpps", str(n), what="", suggestion="", now=clock.now(), kind="mpps-no-order",
                facts={"source": "CT1" if n else "CT2"},
            )  # fmt: skip
        rules = [
            exception_rules.make(
                session, exception_rules.NewRule(name, "mpps-no-order", "A drill.", "Tests.", 9, 1000, source=source),
                who="marta", now=clock.now(), writer="ris",
            ).id
            for name, source in (("drills", "CT1"), ("ended", "CT2"))
        ]  # fmt: skip
        exception_rules.end(session, rules[1], who="marta", now=clock.now(), writer="ris")
    gauge = Gauge.of(environment, Disk())
    Caretaker(environment, opened, opened, "", ZoneInfo("Africa/Maputo"), gauge).decide_by_rules()
    with opened.begin() as session:
        assert session.scalars(select(ExceptionItem.reference).where(ExceptionItem.decided_at.is_(None))).all() == ["0"]
        decided = select(AuditEntry.journal).where(AuditEntry.event == "exception-decided")
        assert session.scalars(decided).all() == ["operations"] * 249


def test_the_first_administrator_is_made_where_nobody_can_sign_in_and_never_again(session: Session):
    password = first_administrator(session, NOW)
    assert password is not None
    made = users.find(session, "administrator")
    assert made is not None
    assert (made.role, made.must_change_password) == ("administrator", True)
    assert users.password_is_right(made, password)
    assert first_administrator(session, NOW) is None
