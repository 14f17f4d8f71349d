"""However much the journal holds, what comes is looked up in it: nothing that follows a store reads a whole table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from plugins.journal import Journal
from tests.unit.plugins.test_completeness import rules
from tests.unit.plugins.test_follower import Bench

#: They grow with the archive. `clocks`, `fired` and `anchors` don't: they have what is under way.
_GROWING = re.compile(r"SCAN (?:TABLE )?(instances|entries|changes|studies|routed|came|new|old)\b")


def asked(bench: Bench, work: Callable[[], object]) -> list[str]:
    """Every statement of the journal while something happens, with its values in it."""
    told: list[str] = []
    journal = bench.journal
    for connection in (journal._writer, journal._reader, bench.arrivals._reader):
        connection.set_trace_callback(told.append)
    work()
    for connection in (journal._writer, journal._reader, bench.arrivals._reader):
        connection.set_trace_callback(None)
    return sorted({one for one in told if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE)", one)})


def whole_tables(journal: Journal, statements: list[str]) -> list[str]:
    """Those that SQLite would read a growing table from its beginning to its end for."""
    found = []
    for one in statements:
        plan = [str(row[3]) for row in journal.query(f"EXPLAIN QUERY PLAN {one}")]
        if any(_GROWING.search(step) and "USING" not in step for step in plan):
            found.append(one)
    return found


def test_what_comes_is_recorded_completed_routed_and_deleted_without_reading_a_whole_table(tmp_path: Path) -> None:
    bench = rules(tmp_path, {"Name": "all", "SendTo": ["B"]})
    bench.orthanc.store("i0", study="S0")
    bench.follow()  # what is compared at a start alone is behind us

    def a_day() -> None:
        for n in range(1, 4):
            bench.orthanc.store(f"i{n}", study=f"S{n % 2}")
        bench.follow()
        bench.follow(120)
        bench.orthanc.store("i9", study="S1")
        bench.follow(120)
        bench.orthanc.delete("i1")
        bench.follower.check_deleted("i1")
        bench.follow()

    statements = asked(bench, a_day)
    assert bench.told("routed") and bench.told("deleted")
    assert any("routed JOIN instances" in one for one in statements)
    assert whole_tables(bench.journal, statements) == []


def test_a_study_is_explained_without_reading_a_whole_table(tmp_path: Path) -> None:
    bench = rules(tmp_path, {"Name": "all", "SendTo": ["B"]})
    bench.orthanc.store("i0")
    bench.follow()
    uid = bench.told("stored")[0]["study_uid"]
    statements = asked(bench, lambda: bench.completeness.explain(uid, bench.orthanc, bench.now))
    assert any("instances" in one for one in statements)
    assert whole_tables(bench.journal, statements) == []
