"""Who called at the DICOM port: lines of Orthanc's log become entries, and rows for the page of devices."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plugins import callers, spool
from plugins.journal import Journal
from plugins.noted import Noted
from plugins.refusals import ADMISSION, Refusals
from plugins.spool import Spool
from zambezi.chain import first_broken

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
AT = NOW.timestamp() - 5
WHO = {"aet": "CT1", "ip": "10.1.0.21", "called_aet": "ZAMBEZI"}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "callers.log"
        self.journal = Journal(folder / "journal.db")
        self.refusals = Refusals()
        spools = Spool(folder / "queries.log"), Spool(folder / "incidents.log")
        self.queries = folder / "queries.log"
        self.noted = Noted(self.journal, *spools, self.refusals, Spool(self.file))

    def take(self, *lines: Any) -> list[dict[str, Any]]:
        before = self.journal.head[0]
        with self.file.open("a") as out:
            out.writelines((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
        self.noted.record(NOW)
        self.noted.record(NOW)
        entries = self.journal.entries_after(0, "", 10000)
        assert first_broken(entries) is None
        return [one.facts for one in entries if one.seq > before]

    def signs(self) -> dict[tuple[str, str, str], tuple[str, int]]:
        return {
            (one["aet"], one["ip"], one["sign"]): (one["reason"], one["count"]) for one in callers.told(self.journal)
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_kind_of_line_becomes_its_entry_and_its_sign(bench: Bench):
    found = bench.take(
        {"kind": "associated", "at": AT, **WHO, "count": 3, "requests": {"Store": 40}},
        {"kind": "sign", "at": AT, "aet": "CT1", "ip": "10.1.0.21", "request": "Echo"},
        {"kind": "sign", "at": AT, "aet": "CT1", "ip": "10.1.0.21", "request": "N-ACTION"},
        {"kind": "retrieve", "at": AT, **WHO, "request": "Move", "target": "WS7"},
        {"kind": "retrieve", "at": AT, **WHO, "request": "Get"},
        {"kind": "refused", "at": AT, **WHO, "aet": "X", "reason": "the AE title is unknown", "count": 7},
        {"kind": "lost", "at": AT, "count": 4},
    )
    told = [
        {name: value for name, value in one.items() if name not in ("journal", "seq", "prev", "at")} for one in found
    ]
    assert told == [
        {"event": "associated", **WHO, "last_at": "2026-03-01T08:29:55.000000Z", "count": 3, "requests": {"Store": 40}},
        {"event": "retrieve-asked", **WHO, "kind": "Move", "target": "WS7"},
        {"event": "retrieve-asked", **WHO, "kind": "Get"},
        {"event": "refused", **WHO, "aet": "X", "door": "dicom", "reason": "the AE title is unknown", "times": 7},
        {
            "event": "incident", "count": 4,
            "reason": "4 requests for images (C-MOVE, C-GET) came too fast to be told one by one",
        },
    ]  # fmt: skip
    signs = bench.signs()
    assert set(signs) == {
        ("CT1", "10.1.0.21", "associated"), ("CT1", "10.1.0.21", "echo"), ("CT1", "10.1.0.21", "commitment"),
        ("X", "10.1.0.21", "refused"),
    }  # fmt: skip
    assert signs["X", "10.1.0.21", "refused"] == ("the AE title is unknown", 7)
    assert bench.journal.seen() == {"CT1": "2026-03-01T08:29:55.000000Z"}, "an echo is a sign of life, a refusal isn't"
    bench.take({"kind": "refused", "at": AT, **WHO, "aet": "X", "reason": "the AE title is unknown", "count": 2})
    assert bench.signs()["X", "10.1.0.21", "refused"] == ("the AE title is unknown", 9)


def test_lines_of_any_kind_neither_stop_the_journal_nor_bring_odd_characters_into_it(bench: Bench):
    found = bench.take(
        "{", '"text"', {"kind": "unheard of"}, {"kind": "associated", "requests": 5, "count": "many", "at": "never"},
        {"kind": "refused", "at": AT, "aet": "A\x1b[2J" + "B" * 100, "ip": "10.9.9.9", "reason": "r" * 999, "count": 1},
    )  # fmt: skip
    assert [one["event"] for one in found] == ["associated", "refused", "incident"]
    assert found[1]["aet"] == ("A?[2J" + "B" * 100)[:64]
    assert len(found[1]["reason"]) == 200


def test_ever_new_strangers_keep_no_more_rows_than_a_page_can_show(bench: Bench):
    bench.take(
        {"kind": "sign", "at": AT - 999, "aet": "CT1", "ip": "10.1.0.21", "request": "Echo"},
        *(
            {"kind": "refused", "at": AT + n, "aet": f"S{n}", "ip": "10.9.9.9", "reason": "", "count": 1}
            for n in range(500)
        ),
    )
    kept = [aet for aet, _, sign in bench.signs() if sign == "refused"]
    assert len(kept) <= callers.REFUSED + 1
    assert "S499" in kept and "S0" not in kept
    assert ("CT1", "10.1.0.21", "echo") in bench.signs(), "a device's own signs give no way"


def test_a_worklist_query_and_a_refused_image_are_signs_too(bench: Bench):
    bench.queries.write_text(json.dumps({"kind": "worklist", "aet": "CT1", "ip": "10.1.0.21", "query": {}}) + "\n")
    bench.refusals.note("", "C-STORE", ADMISSION, "it has no Patient ID", "CT1")
    bench.refusals.note("", "C-STORE", "", "no room: the disk is full", "DICOM")
    bench.take()
    assert bench.signs() == {
        ("CT1", "10.1.0.21", "worklist"): ("", 1), ("CT1", "", "refused"): ("it has no Patient ID", 1),
    }  # fmt: skip


@pytest.mark.parametrize("is_cut", [False, True])
def test_more_queries_than_their_file_holds_are_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch, is_cut: bool):
    asked = json.dumps({"kind": "find", "at": AT, **WHO, "query": {"0008,0052": "STUDY"}}) + "\n"
    monkeypatch.setattr(spool, "FULL_BYTES", 10 * len(asked) + 1)
    many = 10 + is_cut  # Orthanc writes the last one whole that begins below the limit
    bench.queries.write_text(asked * many)
    found = bench.take()
    told = [one["event"] for one in found]
    assert told == ["queried"] * many + ["incident"] * is_cut
    if is_cut:
        assert (found[-1]["count"], "not in the journal" in found[-1]["reason"]) == (many, True)
