"""The door: no view without its entry, refusals bounded."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plugins.door import Door
from plugins.http_filter import Request
from plugins.journal import Journal, Transaction
from plugins.refusals import EVERY, KINDS, Refusals
from plugins.replaced import Replaced
from zambezi.access import tokens

KEY = "11" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def request(path: str, login: str = "ana") -> Request:
    token = tokens.begin(login, "session", "radiologist", int(NOW.timestamp()), 600)
    headers = {"authorization": "Basic " + base64.b64encode(b"front:x").decode(), "x-real-ip": "10.0.0.7"}
    return Request("GET", path, "127.0.0.1", {**headers, tokens.HEADER: tokens.sign(token, KEY)}, {})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def test_the_first_view_of_a_study_in_a_session_is_recorded(journal: Journal) -> None:
    door = Door(KEY, journal, Refusals(), frozenset)
    ana, rui = request("/dicom-web/studies/1.2/series"), request("/dicom-web/studies/1.2/series", "rui")
    for one in (ana, ana, rui, ana):
        assert door.ask(one, NOW)
    told = [one.facts for one in journal.entries_after(0, "", 10)]
    assert [(one["event"], one["who"], one["study_uid"], one["ip"]) for one in told] == [
        ("viewed", "ana", "1.2", "10.0.0.7"),
        ("viewed", "rui", "1.2", "10.0.0.7"),
    ]


def test_a_view_that_can_not_be_recorded_is_refused(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full() -> Iterator[Transaction]:
        raise sqlite3.OperationalError("disk is full")
        yield

    refusals = Refusals()
    door = Door(KEY, journal, refusals, frozenset)
    shown = request("/dicom-web/studies/1.2/series")
    with monkeypatch.context() as broken:
        broken.setattr(journal, "transaction", full)
        assert not door.ask(shown, NOW)
    assert "could not be recorded" in refusals.take(NOW)[0]["reason"]
    assert door.ask(shown, NOW)
    assert journal.head[0] == 1


def test_lists_and_the_viewers_own_files_are_no_view(journal: Journal) -> None:
    door = Door(KEY, journal, Refusals(), frozenset)
    assert door.ask(request("/dicom-web/studies"), NOW)
    assert door.ask(request("/web-viewer/app/viewer.html"), NOW)
    assert journal.head[0] == 0


def test_a_repeated_refusal_is_told_once_and_counted_after() -> None:
    refusals = Refusals()
    for _ in range(100):
        refusals.note("10.0.0.9", "GET", "/studies", "no token", "")
    assert [(one["count"], one["ip"]) for one in refusals.take(NOW)] == [(100, "10.0.0.9")]
    for _ in range(40):
        refusals.note("10.0.0.9", "GET", "/studies", "no token", "")
    assert refusals.take(NOW + timedelta(seconds=30)) == []
    assert [one["count"] for one in refusals.take(NOW + EVERY)] == [40]
    assert refusals.take(NOW + 2 * EVERY) == []


def test_kinds_of_refusals_beyond_the_limit_are_counted_together() -> None:
    refusals = Refusals()
    for n in range(KINDS * 5):
        refusals.note(f"10.0.{n // 250}.{n % 250}", "GET", "/" + "x" * 5000, "no token", "")
    told = refusals.take(NOW)
    assert len(told) == KINDS + 1
    assert sum(one["count"] for one in told) == KINDS * 5
    assert max(len(one["path"]) for one in told) <= 200


def test_what_another_node_replaced_is_refused_where_this_one_may_have_kept_it(journal: Journal) -> None:
    replaced, refusals = Replaced(), Refusals()
    door = Door(KEY, journal, refusals, frozenset, replaced=replaced)
    series, rendered = (request(f"/dicom-web/studies/1.2/{end}") for end in ("series", "rendered"))
    assert door.ask(series, NOW) and door.ask(rendered, NOW)
    replaced.deleted("1.2", ["i1"])
    assert not door.ask(rendered, NOW)
    assert "another node replaced" in refusals.take(NOW)[0]["reason"]
    assert not door.ask(series, NOW)
    assert door.ask(request("/dicom-web/studies/1.3/rendered"), NOW)
    assert journal.head[0] == 3, "what was refused is no view"


def test_a_link_is_closed_when_a_second_patients_images_come_under_its_study(journal: Journal) -> None:
    door, shown = Door(KEY, journal, Refusals(), frozenset), "/dicom-web/studies/1.2/series"
    token = tokens.begin("share:1", "share", "guest", int(NOW.timestamp()), 600, ("1.2",))
    basic = "Basic " + base64.b64encode(b"front:x").decode()
    headers = {"authorization": basic, tokens.HEADER: tokens.sign(token, KEY)}
    for patients, opens in ((1, True), (2, False)):
        with journal.transaction() as transaction:
            row = (f"study-{patients}", "1.2")
            transaction.execute("INSERT INTO studies (study_orthanc_id, study_uid) VALUES (?, ?)", row)
        assert door.ask(Request("GET", shown, "127.0.0.1", headers, {}), NOW) == opens


def test_refusals_are_told_when_the_clock_was_put_back() -> None:
    refusals = Refusals()
    for now in (NOW + timedelta(hours=2), NOW):
        refusals.note("10.0.0.9", "GET", "/studies", "no token", "")
        assert [one["count"] for one in refusals.take(now)] == [1]
