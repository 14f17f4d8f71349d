from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from zambezi import crash
from zambezi.database.engine import Sessions, connect, sessions


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The crash points that were passed."""
    seen: list[str] = []
    monkeypatch.setattr(crash, "point", seen.append)
    return seen


@pytest.fixture
def made(tmp_path: Path, passed: list[str]) -> Sessions:
    factory = sessions(connect(f"sqlite:///{tmp_path}/new.db", "gateway"), "gateway")
    with factory.begin() as session:
        session.execute(text("CREATE TABLE one (n INTEGER)"))
        insert(session)
    passed.clear()
    return factory


def insert(session: Session) -> None:
    session.execute(text("INSERT INTO one VALUES (1)"))


def test_a_commit_is_two_points_one_before_and_one_after_it(made: Sessions, passed: list[str]):
    with made.begin() as session:
        insert(session)
        assert passed == []
    assert passed == ["gateway", "gateway"]


def test_looking_and_finding_nothing_to_change_is_no_commit_event(made: Sessions, passed: list[str]):
    with made.begin() as session:
        session.execute(text("SELECT * FROM one"))
        session.execute(text("UPDATE one SET n = 2 WHERE n = 7"))
    assert passed == []


def test_a_savepoint_is_no_commit(made: Sessions, passed: list[str]):
    with made.begin() as session:
        with session.begin_nested():
            insert(session)
        assert passed == []
    assert len(passed) == 2


def test_a_rollback_is_no_commit(made: Sessions, passed: list[str]):
    with made() as session:
        insert(session)
        session.rollback()
    assert passed == []
