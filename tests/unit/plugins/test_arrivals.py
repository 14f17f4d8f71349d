"""What is held before Orthanc may drop it, what is not, and what must be refused."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plugins import arrivals, header
from plugins.arrivals import Arrivals, Copy, judge
from plugins.claims import Claims
from plugins.header import Header
from plugins.journal import Journal
from plugins.pushed import Announced
from tests.integration.archive_fixture import image, written
from tests.integration.test_archive_conflicts import alike
from zambezi import hold
from zambezi.causes import Because

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NEWCOMER = Header("1.5", "1.2", "1.3", "P1", "", True)
HERE = NEWCOMER.orthanc_id


@pytest.mark.parametrize(
    ("copies", "is_ours", "knows_all", "why", "other"),
    [
        ([], False, True, "", None),
        ([Copy(HERE, "n")], False, True, "", None),
        ([Copy("another", "o")], False, True, "", None),
        ([Copy(HERE, "o")], False, True, "conflict", "o"),
        ([Copy(HERE, None)], False, True, "conflict", None),
        ([Copy(HERE, "n"), Copy(HERE, "o")], False, True, "conflict", "o"),
        ([Copy("another", "n"), Copy(HERE, "o")], False, True, "conflict", "o"),
        ([Copy(HERE, "o")], True, True, "", None),
        # Before all that the archive holds is recorded, what is unknown may be there.
        ([], False, False, "conflict", None),
        ([Copy(HERE, "n")], False, False, "", None),
    ],
)
def test_what_is_held(copies: list[Copy], is_ours: bool, knows_all: bool, why: str, other: str | None) -> None:
    verdict = judge(NEWCOMER, "n", copies, is_ours, knows_all)
    assert (verdict.why, verdict.other_sha256) == (why, other)
    assert verdict.state == ("comparing" if why else "")
    assert bool(verdict.reason) == bool(why)


def test_an_identity_that_may_be_read_in_two_ways_is_held_rather_than_lost() -> None:
    odd = Header("1.5", "1.2", "1.3", "João", "", False)
    assert judge(odd, "n", [Copy("another", "o")], False, True).why == "conflict"
    assert judge(odd, "n", [Copy("another", "n")], False, True).why == ""


@pytest.mark.parametrize("missing", ["sop_uid", "study_uid", "series_uid"])
def test_what_orthanc_refuses_is_held_whoever_sends_it(missing: str) -> None:
    told = {"sop_uid": "1.5", "study_uid": "1.2", "series_uid": "1.3", missing: ""}
    verdict = judge(Header(**told, patient_id="", sender="", is_certain=True), "n", [], True, True)
    assert (verdict.why, verdict.state) == ("no-identity", "waiting")


@dataclass
class Bench:
    """Arrivals over a journal; `record` is what the follower does when Orthanc has stored something."""

    folder: Path
    announced: Announced = field(default_factory=Announced)
    clock: float = 1000.0

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / "journal.db")
        self.restart()
        self.arrivals.caught_up()

    def restart(self) -> None:
        self.arrivals = Arrivals(
            self.journal, self.folder / "hold", lambda: self.announced, monotonic=lambda: self.clock
        )

    def look(self, content: bytes, by_dicom: bool = True) -> bool:
        return self.arrivals.look(content, by_dicom, NOW)

    def record(self, content: bytes) -> str | None:
        """The digest it is recorded with."""
        found = header.read(content)
        sha256 = self.arrivals.digest(found.sop_uid, found.orthanc_id, len(content))
        with self.journal.transaction() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO instances VALUES (?, 's', 's', '1', '1', ?, '', 'modality', '', '', 'i', 1,"
                " NULL, 1, 0, '', ?)",
                (found.orthanc_id, found.sop_uid, sha256),
            )
        self.arrivals.recorded([Stored(found.sop_uid, found.orthanc_id)])  # type: ignore[list-item]
        return sha256

    @property
    def held(self) -> list[tuple[str, str]]:
        """(why, SHA-256) of every `held` entry, whose bytes must be in the hold."""
        entries = [one.facts for one in self.journal.entries_after(0, "", 1000)]
        for one in entries:
            assert len(hold.get(self.folder / "hold", one["sha256"])) == one["size"]
        return [(one["why"], one["sha256"]) for one in entries]


@dataclass
class Stored:
    sop_uid: str
    orthanc_id: str


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def two() -> tuple[bytes, bytes]:
    one = image()
    return written(one), written(alike(one))


@pytest.mark.parametrize("several_nodes", [False, True])
def test_what_was_turned_away_is_no_rival_of_what_comes_then_but_another_in_flight_is(
    bench: Bench, tmp_path: Path, several_nodes: bool
) -> None:
    claims = Claims(tmp_path / "claims", lambda: NOW) if several_nodes else None
    bench.arrivals = Arrivals(bench.journal, bench.folder / "hold", Announced, claims=claims)
    bench.arrivals.caught_up()
    one, put_right = two()
    assert bench.look(one)
    bench.arrivals.turned_away(header.read(one), one, NOW)
    assert bench.look(put_right)
    assert bench.held == []
    # Of two that came at once one was let in: what comes then is its rival.
    bench.arrivals.look(put_right, True, NOW)
    bench.arrivals.turned_away(header.read(put_right), put_right, NOW)
    bench.look(one)
    assert ("conflict", digest(one)) in bench.held


def test_what_is_kept_for_its_identity_says_who_sent_it_and_is_whole(bench: Bench) -> None:
    one, _ = two()
    assert bench.arrivals.keep(one, header.read(one), "it has no Patient ID", "US1", NOW)
    assert bench.held == [("identity", digest(one))]
    (entry,) = bench.journal.entries_after(0, "", 10)
    assert (entry.facts["sender"], entry.facts["reason"]) == ("US1 by DICOM", "it has no Patient ID")


def test_the_same_bytes_again_make_nothing_recorded_or_not(bench: Bench) -> None:
    one, _ = two()
    assert bench.look(one)
    assert bench.look(one)
    assert bench.record(one) == digest(one)
    assert bench.look(one)
    assert bench.held == []


def test_other_bytes_are_held_once_the_first_are_recorded(bench: Bench) -> None:
    one, other = two()
    bench.look(one)
    bench.record(one)
    assert bench.look(other)
    assert bench.held == [("conflict", digest(other))]


def test_of_two_that_come_before_either_is_recorded_both_are_held_and_no_digest_is_claimed(bench: Bench) -> None:
    one, other = two()
    third = written(alike(header_image(one)))
    assert bench.look(one)
    assert bench.look(other)
    assert sorted(bench.held) == sorted([("conflict", digest(one)), ("conflict", digest(other))])
    assert bench.look(third)
    assert ("conflict", digest(third)) in bench.held
    assert bench.record(one) is None
    before = len(bench.held)
    assert bench.look(one), "which of them Orthanc has is not known: it is looked at closer"
    assert bench.held[before:] == [("conflict", digest(one))]


def header_image(content: bytes) -> Any:
    found = header.read(content)
    return image(
        found.study_uid, SOPInstanceUID=found.sop_uid, SeriesInstanceUID=found.series_uid, PatientID=found.patient_id
    )


def test_a_rival_of_what_is_not_at_hand_any_more_waits_until_that_must_be_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "KEPT_BYTES", 0)
    one, other = two()
    assert bench.look(one)
    assert not bench.look(other), "the earlier one could still lose, and nobody has its bytes"
    assert bench.held == [("conflict", digest(other))]
    assert not bench.look(other)
    bench.clock += arrivals.IN_FLIGHT_S + 1
    assert bench.look(other)


@pytest.mark.parametrize("ahead", [True, False], ids=["made ahead", "its bytes not at hand any more"])
def test_a_digest_is_known_when_the_sender_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    if not ahead:
        monkeypatch.setattr(arrivals, "KEPT_BYTES", 0)
    one = written(image())
    assert bench.look(one)
    if ahead:
        bench.arrivals.digest_ahead()
    with monkeypatch.context() as later:
        later.setattr(arrivals.hashlib, "sha256", None)  # whoever digests now fails
        recorded = bench.record(one)
    assert recorded == digest(one)


def test_nothing_is_digested_while_a_sender_waits_unless_there_is_something_to_compare_it_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(arrivals.hashlib, "sha256", None)
        assert bench.look(one)
    assert bench.look(one), "the same again"
    assert bench.look(other)
    assert sorted(bench.held) == sorted([("conflict", digest(other)), ("conflict", digest(one))])


def test_before_following_has_caught_up_what_is_unknown_is_held(bench: Bench) -> None:
    one, other = two()
    bench.look(one)
    bench.restart()  # Orthanc was killed before one was recorded
    assert bench.look(other)
    assert bench.held == [("conflict", digest(other))]
    bench.arrivals.caught_up()
    bench.look(written(image()))
    assert len(bench.held) == 1


def test_what_came_while_it_was_unknown_gets_no_digest(bench: Bench) -> None:
    one, _ = two()
    bench.restart()
    bench.look(one)
    assert bench.record(one) is None, "the archive may have had other bytes"


def test_what_is_not_recorded_is_forgotten_after_a_while(bench: Bench) -> None:
    one, other = two()
    bench.look(one)  # and Orthanc refuses it: its disk is full
    bench.clock += arrivals.SETTLED_S + 1
    bench.arrivals.caught_up()
    assert bench.look(other)
    assert bench.held == []
    assert bench.record(other) == digest(other)


def test_when_too_much_is_coming_what_is_unknown_is_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "COMING", 3)
    contents = [written(image()) for _ in range(5)]
    assert all(bench.look(one) for one in contents)
    assert bench.held == [("conflict", digest(contents[4]))]


def test_a_size_that_orthanc_does_not_have_is_not_what_it_stored(bench: Bench) -> None:
    one, _ = two()
    bench.look(one)
    found = header.read(one)
    assert bench.arrivals.digest(found.sop_uid, found.orthanc_id, len(one) + 2) is None


def test_a_correction_is_no_conflict_by_http_alone(bench: Bench) -> None:
    one, other = two()
    bench.announced = Announced({}, {header.read(one).sop_uid: Because("correction", "correction 1", digest(other))})
    bench.look(one)
    bench.record(one)
    assert bench.look(other, by_dicom=False)
    assert bench.held == []
    assert bench.record(other) == digest(other)
    bench.look(one, by_dicom=True)
    assert bench.held == [("conflict", digest(one))]


def test_an_announcement_that_stands_for_weeks_lets_no_other_bytes_pass(bench: Bench) -> None:
    one, other = two()
    for sha256 in (digest(one), ""):
        bench.announced = Announced({}, {header.read(one).sop_uid: Because("restore", "hold 7", sha256)})
        bench.look(one, by_dicom=False)
        bench.record(one)
        assert bench.look(other, by_dicom=False)
    assert [held for held in bench.held if held[1] == digest(other)] == [("conflict", digest(other))] * 2


def test_the_recovering_orthanc_holds_nothing_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    looked = Arrivals(journal, tmp_path / "hold", Announced, recovering=True)
    one, other = two()
    assert looked.look(one, False, NOW)
    found = header.read(one)
    assert looked.digest(found.sop_uid, found.orthanc_id, len(one)) == digest(one)
    assert looked.look(other, False, NOW)
    assert looked.digest(found.sop_uid, found.orthanc_id, len(one)) is None
    assert journal.entries_after(0, "", 10) == []


def test_what_we_can_not_read_is_kept_whole_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = bytes(128) + b"DICM" + b"\x08\x00\x01\x00OB\0\0\xff\xff\x00\x00"
    assert bench.look(odd)
    one, _ = two()

    def broken(_content: bytes) -> Header:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(header, "read", broken)
    assert bench.look(one)
    assert bench.held == [("unreadable", digest(odd)), ("unreadable", digest(one))]


def test_what_can_not_be_kept_safe_is_refused_and_not_known_afterwards(bench: Bench) -> None:
    one, other = two()
    bench.look(one)
    (bench.folder / "hold").write_text("no folder")
    assert not bench.look(other)
    assert not bench.look(other)
    assert not bench.look(b"\x08\x00\x01\x00 what is this")
    assert bench.look(written(image())), "what can't be lost comes in"
    (bench.folder / "hold").unlink()
    assert bench.look(other)
    assert ("conflict", digest(other)) in bench.held
    assert ("conflict", digest(one)) in bench.held


def test_without_its_journal_nothing_is_taken_that_may_be_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two()
    bench.look(one)
    bench.record(one)

    def full(*_: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "transaction", full)
    assert not bench.look(other)


def test_facts_hold_ids_and_no_name(bench: Bench) -> None:
    one, other = two()
    bench.look(one)
    bench.record(one)
    bench.look(other)
    bench.look(other)
    first, second = (entry.facts for entry in bench.journal.entries_after(0, "", 10))
    assert first["reference"] == second["reference"] == f"instance {header.read(one).orthanc_id}"
    assert (first["patient_id"], first["other_sha256"], first["sender"]) == ("P1", digest(one), "DICOM")
    assert "Ana" not in str(first)
