"""The journal: sealed, durable, all or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from plugins.journal import Journal, JournalMismatch
from plugins.recorder import Recorder
from plugins.rules import Rules
from zambezi.chain import first_broken

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def add(journal: Journal, count: int = 1) -> None:
    with journal.transaction() as transaction:
        for n in range(count):
            transaction.append("incident", NOW, reason=str(n))


def test_entries_are_a_chain_over_transactions_and_restarts(journal: Journal, tmp_path: Path) -> None:
    add(journal, 3)
    journal.close()
    again = Journal(tmp_path / "journal.db")
    add(again, 2)
    entries = again.entries_after(0, "", 100)
    assert [one.seq for one in entries] == [1, 2, 3, 4, 5]
    assert first_broken(entries) is None
    assert {one.journal for one in entries} == {journal.name} == {again.name}


def test_a_transaction_that_fails_leaves_nothing(journal: Journal) -> None:
    add(journal)

    def fail() -> None:
        with journal.transaction() as transaction:
            transaction.append("incident", NOW, reason="x")
            transaction.set_meta("key", "value")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert journal.head[0] == 1
    assert journal.meta("key") is None
    add(journal)
    assert first_broken(journal.entries_after(0, "", 10)) is None


def test_counting_all_that_is_recorded_holds_up_no_other_reader(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(journal, 10)
    reading, may_go_on = threading.Event(), threading.Event()

    def stop_in_the_middle() -> int:
        reading.set()
        may_go_on.wait(10)
        return 0

    connect = journal.reader

    def reader() -> sqlite3.Connection:
        opened = connect()
        opened.set_progress_handler(stop_in_the_middle, 1)
        return opened

    monkeypatch.setattr(journal, "reader", reader)
    with ThreadPoolExecutor(2) as threads:
        counted = threads.submit(Recorder(journal, cast("Rules", None)).present_count)
        assert reading.wait(10)
        asked = threads.submit(journal.entries_after, 0, "", 10)
        try:
            assert len(asked.result(timeout=5)) == 10
            assert not counted.done()
        finally:
            may_go_on.set()
        assert counted.result(timeout=10) == 0


def test_only_events_of_the_list_are_told(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no event"), journal.transaction() as transaction:
        transaction.append("invented", NOW)


def test_a_cursor_must_fit(journal: Journal) -> None:
    add(journal, 3)
    entries = journal.entries_after(0, "", 10)
    assert [one.seq for one in journal.entries_after(2, entries[1].hash, 10)] == [3]
    for seq, head in ((2, entries[0].hash), (2, ""), (9, entries[0].hash)):
        with pytest.raises(JournalMismatch):
            journal.entries_after(seq, head, 10)


def test_writers_take_turns_and_never_fork_the_chain(journal: Journal) -> None:
    threads = [threading.Thread(target=lambda: [add(journal) for _ in range(20)]) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    entries = journal.entries_after(0, "", 1000)
    assert len(entries) == 80
    assert first_broken(entries) is None


def test_a_reader_waits_for_the_next_entry_and_is_let_go_when_orthanc_stops(journal: Journal) -> None:
    began = time.monotonic()
    journal.wait_beyond(0, 0.05)
    assert time.monotonic() - began < 1
    threading.Timer(0.05, lambda: add(journal)).start()
    journal.wait_beyond(0, 20)
    threading.Timer(0.05, journal.release_readers).start()
    journal.wait_beyond(1, 20)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("passed", "left"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_dying_before_a_commit_leaves_nothing_and_after_it_everything(tmp_path: Path, passed: int, left: int) -> None:
    (tmp_path / "orthanc").write_text(str(passed))
    program = (
        "import sys; from pathlib import Path; from plugins.journal import Journal; from zambezi import clock\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(2):\n"
        "    with journal.transaction() as t: t.append('incident', clock.now(), reason=str(n))\n"
    )
    repository = Path(__file__).parents[3]
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "journal.db")],
        env={"PYTHONPATH": str(repository), "ZAMBEZI_CRASH_DIR": str(tmp_path)},
        check=False,
    )
    assert ended.returncode == 137
    assert len(Journal(tmp_path / "journal.db").entries_after(0, "", 10)) == left


def test_a_file_of_the_first_version_gets_the_columns_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    made = sqlite3.connect(file)
    made.executescript(FIRST_VERSION)
    made.commit()
    made.close()
    for _ in range(2):
        journal = Journal(file)
        rows = journal.query(
            "SELECT orthanc_id, cause, reference, sha256, present FROM instances WHERE sop_uid = '1.5'"
        )
        assert rows == [("a", "modality", "", None, 1)]
        assert journal.query("SELECT study_orthanc_id, generation, priority FROM studies") == [("s", 2, "")]
        journal.close()


#: `instances` and `studies` as the first version made them, with a row each.
FIRST_VERSION = """
CREATE TABLE instances (
  orthanc_id TEXT PRIMARY KEY, study_orthanc_id TEXT NOT NULL, series_orthanc_id TEXT NOT NULL,
  study_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sop_uid TEXT NOT NULL, modality TEXT NOT NULL,
  cause TEXT NOT NULL, remote_aet TEXT NOT NULL, called_aet TEXT NOT NULL,
  index_id TEXT NOT NULL, change_seq INTEGER NOT NULL, generation INTEGER,
  present INTEGER NOT NULL DEFAULT 1, unsure INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE studies (
  study_orthanc_id TEXT PRIMARY KEY, study_uid TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO studies VALUES ('s', '1.2', 2);
INSERT INTO instances VALUES ('a', 's', 's', '1.2', '1.3', '1.5', 'CT', 'modality', '', '', 'i', 1, NULL, 1, 0);
"""
