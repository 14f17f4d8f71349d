"""What the caretaker says to a person, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from operations import auditing
from operations.running import first_administrator
from operations.service import audit_concerns, disk_concern, raise_item
from zambezi import users
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import AuditEntry, Base, ExceptionItem

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
GB = 2**30


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = connect(f"sqlite:///{tmp_path}/central.db", "test")
    Base.metadata.create_all(engine)
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
    assert session.scalars(select(ExceptionItem.reference)).all() == ["disk 2026-03-01"]
    assert session.scalars(select(AuditEntry.event)).all() == ["incident"]


def test_the_first_administrator_is_made_where_nobody_can_sign_in_and_never_again(session: Session):
    password = first_administrator(session, NOW)
    assert password is not None
    made = users.find(session, "administrator")
    assert made is not None
    assert (made.role, made.must_change_password) == ("administrator", True)
    assert users.password_is_right(made, password)
    assert first_administrator(session, NOW) is None
