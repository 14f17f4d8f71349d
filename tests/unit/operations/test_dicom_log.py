"""Orthanc's log, read by its parent: which facts become lines for the journal, and which lines stay in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operations.dicom_log import ASSOCIATIONS_S, KINDS, REFUSALS_S, DicomLog
from zambezi.environment import REPOSITORY

#: How a line begins: 1.10.1 names no thread, later versions do.
OLD, NEW = "I1122 10:15:03.512449 main.cpp:321] ", "I1122 10:15:03.512449          DICOM-2 main.cpp:340] "


class Log:
    """A reader whose clock a test says, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "callers.log"
        self.reader = DicomLog(self.file)
        self.now = 1000.0

    def said(self, *words: str, begin: str = OLD) -> list[bool]:
        return [self.reader.line((begin + one).encode("latin-1"), self.now) for one in words]

    def connects(self, aet: str = "CT1", ip: str = "10.1.0.21", begin: str = OLD) -> None:
        self.said(
            f"Association Received from AET {aet} on IP {ip}",
            f"Incoming connection from AET {aet} on IP {ip}, calling AET ZAMBEZI",
            "Association Acknowledged (Max Send PDV: 16372)", begin=begin,
        )  # fmt: skip

    def written(self, kind: str = "", after: float = 0, end: bool = False) -> list[dict[str, Any]]:
        self.now += after
        self.reader.write(self.now, end)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.file.unlink(missing_ok=True)
        return [one for one in map(json.loads, lines) if one["kind"] == kind or not kind]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.mark.parametrize("version", ["1.10.1", "1.12.7", "1.13.0"])
def test_the_same_day_is_read_alike_in_the_log_of_each_version(log: Log, version: str):
    """What an Orthanc of each version wrote when the same peers did the same (tests/data/dicom-log)."""
    lines = (REPOSITORY / "tests" / "data" / "dicom-log" / f"{version}.txt").read_bytes().splitlines()
    kept = [one for one in lines if log.reader.line(one, log.now)]
    assert kept and all(one[:1] in b"WE" for one in kept)
    found = log.written(end=True)
    associated = {one["aet"]: (one["count"], one["requests"]) for one in found if one["kind"] == "associated"}
    asked = {"Echo": 1, "Find": 1, "Move": 1, "Get": 1}
    assert associated == {"CT1": (2, {"Store": 1, "N-ACTION": 1}), "PACS2": (1, asked)}
    assert {(one["aet"], one["called_aet"], one["reason"]) for one in found if one["kind"] == "refused"} == {
        ("PACS2", "ZAMBEZI", "nothing that it proposes is taken here"), ("PACS2", "", "C-GET is not allowed for it"),
        ("KNOCK", "ZAMBEZI", "the AE title is unknown"), ("FAR", "ZAMBEZI", "the AE title belongs to another address"),
        ("CT1", "WRONG", "it calls an AE title that is not ours"),
    }  # fmt: skip
    assert [(one["aet"], one["target"]) for one in found if one["kind"] == "retrieve"] == [("PACS2", "CT1")]
    assert {(one["aet"], one["request"]) for one in found if one["kind"] == "sign"} == {
        ("PACS2", "Echo"), ("PACS2", "Move"), ("PACS2", "Get"), ("CT1", "N-ACTION"),
    }  # fmt: skip


def test_associations_are_told_at_once_and_then_counted(log: Log):
    log.connects()
    for _ in range(120):
        log.said("Incoming Store request from AET CT1 on IP 10.1.0.21, calling AET ZAMBEZI")
    first = {"kind": "associated", "at": 1000.0, "aet": "CT1", "ip": "10.1.0.21", "called_aet": "ZAMBEZI"}
    assert log.written() == [{**first, "count": 1, "requests": {"Store": 120}}]
    log.connects()
    log.connects()
    assert log.written(after=ASSOCIATIONS_S - 1) == []
    assert [one["count"] for one in log.written(after=1)] == [2]
    log.connects()
    assert [one["count"] for one in log.written(end=True)] == [1], "the end tells what was only counted"


@pytest.mark.parametrize(
    ("lines", "aet", "called", "reason"),
    [
        (
            (
                "Incoming connection from AET KNOCK on IP 10.9.9.9, calling AET ZAMBEZI",
                'Modality "KNOCK" is not listed in the "DicomModalities" configuration option',
                "Rejected association for remote AET KNOCK on IP 10.9.9.9",
            ),
            "KNOCK", "ZAMBEZI", "the AE title is unknown",
        ),
        (
            (
                "Incoming connection from AET CT1 on IP 10.9.9.9, calling AET ZAMBEZI",
                'Forbidding access from AET "CT1" given its hostname (10.9.9.9) does not match the "DicomModalities"'
                " configuration option (10.1.0.21 was expected)",
                "Rejected association for remote AET CT1 on IP 10.9.9.9",
            ),
            "CT1", "ZAMBEZI", "the AE title belongs to another address",
        ),
        (
            ("Rejected association, because of a bad called AET in the request (OTHER)",),
            "KNOCK", "OTHER", "it calls an AE title that is not ours",
        ),
        (
            (
                "Incoming connection from AET CT 1 on IP 10.9.9.9, calling AET ZAMBEZI",
                "Association Acknowledged (Max Send PDV: 16372)",
                "Incoming Get request from AET CT 1 on IP 10.9.9.9, calling AET ZAMBEZI",
                "DICOM authorization rejected for AET CT 1 on IP 10.9.9.9: The DICOM command Get is not allowed for"
                ' this modality according to configuration option "DicomModalities"',
            ),
            "CT 1", "", "C-GET is not allowed for it",
        ),
    ],
    ids=["unknown", "elsewhere", "wrongly called", "not allowed"],
)  # fmt: skip
def test_a_refusal_says_who_and_why(log: Log, lines: tuple[str, ...], aet: str, called: str, reason: str):
    log.said("Association Received from AET KNOCK on IP 10.9.9.9", *lines)
    found = log.written()
    refused = {"kind": "refused", "at": 1000.0, "called_aet": called, "aet": aet, "ip": "10.9.9.9", "reason": reason}
    assert [one for one in found if one["kind"] == "refused"] == [{**refused, "count": 1}]
    assert [one for one in found if one["kind"] == "retrieve"] == [], "what was refused retrieves nothing"
    assert any(one["kind"] == "associated" for one in found) is (called == ""), "who is rejected was never let in"


def test_a_port_scanner_fills_nothing(log: Log):
    for n in range(2000):
        log.said(
            f"Incoming connection from AET S{n} on IP 10.9.9.9, calling AET ZAMBEZI",
            f"Rejected association for remote AET S{n} on IP 10.9.9.9",
        )
    found = log.written("refused")
    assert len(found) == KINDS + 1
    assert sum(one["count"] for one in found) == 2000
    log.said("Rejected association for remote AET S1 on IP 10.9.9.9")
    assert log.written("refused", after=REFUSALS_S - 1) == []
    assert [one["count"] for one in log.written("refused", after=1)] == [1]


@pytest.mark.parametrize("begin", [OLD, NEW], ids=["without threads", "with threads"])
def test_a_retrieve_is_told_with_its_destination(log: Log, begin: str):
    log.connects("PACS2", begin=begin)
    log.said(
        "Incoming Move request from AET PACS2 on IP 10.1.0.21, calling AET ZAMBEZI",
        'Move-SCU request received for AET "WS7"', begin=begin,
    )  # fmt: skip
    (move,) = log.written("retrieve")
    assert (move["aet"], move["request"], move["target"]) == ("PACS2", "Move", "WS7")


def test_two_moves_at_once_are_not_mixed_up(log: Log):
    asked = "Incoming Move request from AET {} on IP 10.1.0.21, calling AET ZAMBEZI"
    log.said(asked.format("A"), asked.format("B"))
    log.said('Move-SCU request received for AET "X"', 'Move-SCU request received for AET "Y"')
    assert {one["target"] for one in log.written("retrieve")} == {"one of several at once"}
    one, two = NEW, NEW.replace("DICOM-2", "DICOM-3")
    log.said(asked.format("A"), begin=one)
    log.said(asked.format("B"), begin=two)
    log.said('Move-SCU request received for AET "Y"', begin=two)
    log.said('Move-SCU request received for AET "X"', begin=one)
    assert {one["aet"]: one["target"] for one in log.written("retrieve")} == {"A": "X", "B": "Y"}


def test_only_warnings_faults_and_what_is_not_orthancs_stay_in_the_log(log: Log):
    query = log.said("  (0010,0010)  PatientName = Segredo*", "Incoming Echo request from AET A on IP B, calling AET C")
    assert query == [False, False]
    kept = [
        'W1122 10:15:03.512449 main.cpp:1] Modality "A" is not listed in the "DicomModalities" configuration option',
        "E1122 10:15:03.512449 main.cpp:1] a fault",
        "2026-11-22 10:15:03,512 INFO zambezi.room disk: low",
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in <module>',
    ]
    assert all(log.reader.line(one.encode(), 0) for one in kept)


def test_what_cannot_be_written_now_is_told_later(tmp_path: Path):
    log = Log(tmp_path / "away")
    log.connects()
    log.reader.write(log.now)
    assert log.reader.wait_s(log.now) is not None
    (tmp_path / "away").mkdir()
    assert [one["count"] for one in log.written("associated")] == [1]


def test_the_keeper_reads_on_whatever_comes_and_hands_the_rest_through(tmp_path: Path):
    """A program that writes a megabyte a second of log, odd bytes among it, is neither held up nor misread."""
    program = tmp_path / "Orthanc"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "assert sys.argv[1:] == ['--verbose-generic', '--verbose-dicom', 'x'], sys.argv\n"
        f"line = b'{OLD}Incoming Echo request from AET CT1 on IP 10.1.0.21, calling AET ZAMBEZI\\n'\n"
        "odd = b'W1122 10:15:03.5 a.cpp:1] kept\\n\\xff\\x00 odd\\n' + b'x' * 200000 + b'\\nno end'\n"
        "os.write(2, line * 30000 + odd)\n"
    )
    program.chmod(0o700)
    (tmp_path / "storage").mkdir()
    notes = tmp_path / "callers.log"
    command = [sys.executable, "-P", "-S", "-m", "operations.keeper", str(program), "x", str(tmp_path / "index")]
    done = subprocess.run(
        [*command, str(tmp_path / "storage"), str(notes)], capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stderr.startswith(b"W1122 10:15:03.5 a.cpp:1] kept\n\xff\x00 odd\nxxx"), done.stderr[:300]
    assert done.stderr.endswith(b"x\nno end\n")
    found = [json.loads(one) for one in notes.read_text().splitlines()]
    assert sum(one["requests"]["Echo"] for one in found if one["kind"] == "associated") == 30000
    assert [one["request"] for one in found if one["kind"] == "sign"][-1] == "Echo"
