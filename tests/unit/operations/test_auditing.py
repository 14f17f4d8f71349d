"""Verifying the audit trail: what is walked, and how a changed byte is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from operations.auditing import Verdict, verify
from zambezi import audit, chain
from zambezi.database.engine import connect, sessions

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
JOURNAL = "orthanc-1"


@pytest.fixture
def session(tables_url: str) -> Iterator[Session]:
    """A central table with the first four of the journal's five entries, and two of the RIS."""
    engine = connect(tables_url, "test")
    with sessions(engine, "test")() as opened:
        audit.take_over(opened, entries()[:4])
        for login in ("ana", "rui"):
            audit.append(opened, "ris", "signed-in", NOW, who=login)
        opened.flush()
        yield opened
    engine.dispose()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The plugin's journal file with five entries."""
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        database.execute("INSERT INTO meta VALUES ('journal', ?)", (JOURNAL,))
        database.execute(
            "CREATE TABLE entries (seq INTEGER PRIMARY KEY, hash TEXT, payload BLOB, event TEXT, study_uid TEXT,"
            " orthanc_id TEXT)"
        )
        for entry in entries():
            row = (entry.seq, entry.hash, entry.payload, "stored", entry.facts["study_uid"], entry.facts["orthanc_id"])
            database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
    database.close()
    return file


def entries() -> list[chain.Sealed]:
    sealed: list[chain.Sealed] = []
    for seq in range(1, 6):
        prev = sealed[-1].hash if sealed else ""
        facts = {"study_uid": "1.2.3", "sop_uid": f"1.2.3.{seq}", "orthanc_id": f"id-{seq}"}
        sealed.append(chain.seal(JOURNAL, seq, prev, "stored", NOW, facts))
    return sealed


def tamper(file: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(file) as database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


def places(verdict: Verdict) -> list[str]:
    return [f"{place.store} {place.journal} {place.seq}: {place.why}" for place in verdict.broken]


def test_an_untouched_trail_holds(session: Session, journal: Path):
    found = verify(session, journal)
    assert found == Verdict({JOURNAL: 4, "ris": 2}, JOURNAL, 5, [])


def test_without_a_journal_file_the_central_table_is_walked_alone(session: Session, tmp_path: Path):
    assert verify(session, tmp_path / "none.db") == Verdict({JOURNAL: 4, "ris": 2}, "", 0, [])


def test_a_byte_changed_in_the_journals_payload_is_named(session: Session, journal: Path):
    changed = entries()[2].payload.replace(b"id-3", b"id-4")
    tamper(journal, "UPDATE entries SET payload = ? WHERE seq = 3", changed)
    assert places(verify(session, journal)) == [f"journal file {JOURNAL} 3: the sealed payload is not what was hashed"]


def test_a_column_beside_the_journals_payload_is_compared(session: Session, journal: Path):
    tamper(journal, "UPDATE entries SET study_uid = '9.9' WHERE seq = 2")
    assert places(verify(session, journal)) == [
        f"journal file {JOURNAL} 2: column study_uid is not what the sealed payload says"
    ]


def test_an_entry_taken_out_of_the_journal_is_named(session: Session, journal: Path):
    tamper(journal, "DELETE FROM entries WHERE seq = 2")
    assert places(verify(session, journal)) == [
        f"journal file {JOURNAL} 2: entry 2 is missing: the next one found is 3"
    ]


def test_a_journal_whose_end_was_cut_off_is_named(session: Session, journal: Path):
    for seq in (5, 4):
        tamper(journal, "DELETE FROM entries WHERE seq = ?", seq)
    assert places(verify(session, journal)) == [
        f"journal file {JOURNAL} 4: the journal ends with entry 3, but the central table has 4"
    ]


def test_a_journal_pruned_of_what_is_central_holds(session: Session, journal: Path):
    for seq in (1, 2):
        tamper(journal, "DELETE FROM entries WHERE seq = ?", seq)
    assert verify(session, journal).broken == []


def test_a_journal_that_was_sealed_anew_differs_from_its_central_copy(session: Session, journal: Path):
    forged = chain.seal(JOURNAL, 1, "", "stored", NOW, {"study_uid": "1.2.3", "orthanc_id": "id-1"})
    tamper(journal, "UPDATE entries SET payload = ?, hash = ? WHERE seq = 1", forged.payload, forged.hash)
    assert f"journal file {JOURNAL} 1: the central table's copy is another one" in places(verify(session, journal))


def test_a_byte_changed_in_the_central_table_is_named_there_and_by_the_comparison(session: Session, journal: Path):
    changed = entries()[3].payload.replace(b"id-4", b"id-5")
    session.execute(
        text("UPDATE audit_entry SET payload = :p WHERE journal = :j AND seq = 4"), {"p": changed, "j": JOURNAL}
    )
    assert places(verify(session, journal)) == [
        f"central table {JOURNAL} 4: the sealed payload is not what was hashed",
        f"journal file {JOURNAL} 4: the central table's copy is another one",
    ]


def test_a_broken_journal_file_is_a_place_too(session: Session, tmp_path: Path):
    file = tmp_path / "journal.db"
    file.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    assert "can't be read" in places(verify(session, file))[0]
