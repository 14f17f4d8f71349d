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
from zambezi import clock, exception_kinds, exception_rules, exceptions, users
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Base, ExceptionItem
from zambezi.environment import Environment

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
GB = 2**30


@pytest.fixture
def session(tables_url: str) -> Iterator[Session]:
    engine = connect(tables_url, "test")
    with sessions(engine, "test")() as opened:
        yield opened
    engine.dispose()


@pytest.mark.parametrize(("total", "free"), [(1000 * GB, 21 * GB), (100 * GB, 19 * GB), (50 * GB, 5 * GB)])
def test_a_disk_with_room_is_no_concern(total: int, free: int):
    assert disk_concern(total, free, "2026-03-01") is None


def test_a_disk_that_gets_full_is_a_concern_once_a_day():
    concern = disk_concern(1000 * GB, 19 * GB, "2026-03-01")
    assert concern is not None
    assert concern.reference == "disk 2026-03-01"
    assert "19.0 GB of 1000 GB" in concern.what


def test_each_broken_place_of_the_audit_trail_is_a_concern():
    place = auditing.Place("journal file", "orthanc-1", 17, "the sealed payload is not what was hashed")
    concerns = audit_concerns(auditing.Verdict({}, "orthanc-1", 16, [place]))
    assert [concern.reference for concern in concerns] == ["audit orthanc-1 17"]
    assert str(place) in concerns[0].what


def test_a_concern_waits_for_a_person_once_and_is_an_incident_in_the_trail(session: Session):
    concern = disk_concern(1000 * GB, 1 * GB, "2026-03-01")
    assert concern is not None
    assert [raise_item(session, concern, NOW), raise_item(session, concern, NOW)] == [True, False]
    (item,) = session.scalars(select(ExceptionItem)).all()
    assert (item.room, item.kind, item.reference) == ("disk", "disk-low", "disk 2026-03-01")
    said = exception_kinds.words(item.kind, "pt", item.facts)
    assert said is not None and "estão livres 1.0 GB de 1000 GB" in said.what
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
    Caretaker(environment, opened, opened, "", ZoneInfo("Africa/Maputo")).decide_by_rules()
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
