"""What Orthanc's log alone tells of its DICOM port: who called, who was refused, C-ECHO, C-MOVE and C-GET.

No plugin is shown any of these. Orthanc's parent (operations.keeper) hands over each line of its log; facts go to a
file that the journal takes (plugins.spool), a line of JSON each:

    {"kind": "associated", "at", "aet", "ip", "called_aet", "count", "requests": {"Store": 120}}   every ten minutes
    {"kind": "refused", "at", "aet", "ip", "called_aet", "reason", "count"}                        every minute
    {"kind": "retrieve", "at", "aet", "ip", "called_aet", "request": "Move", "target"}             each one
    {"kind": "sign", "at", "aet", "ip", "request": "Echo"}                                         every two seconds

The first of a kind is told at once, those that follow are counted: a port scanner must not fill the disk. Lines at
level INFO end here: what a query asked for must not stand in a log. Orthanc negotiates one association after the
other, so that what is said of one is said between its lines. Standard library only: the keeper stays as long as
Orthanc does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What Orthanc is started with: categories in which it tells of connections (generic) and of negotiation (dicom).
OPTIONS = ("--verbose-generic", "--verbose-dicom")

GATHER_S = 2.0
ASSOCIATIONS_S = 600.0
REFUSALS_S = 60.0
#: Kinds (peer, address, reason) that are counted apart; beyond, they are counted together.
KINDS = 200
#: C-MOVE and C-GET are told one by one, no more of them at once.
RETRIEVES = 1000
#: The file grows no further while nobody takes it.
MAXIMUM_BYTES = 4_000_000
#: Requests that nobody else tells of.
SIGNS = ("Echo", "Get", "Move", "N-ACTION")

#: Level; the thread, which 1.10.1 doesn't name; behind the category what is said.
_LINE = re.compile(r"^([A-Z])\d{4} [\d:.]+ +(?:(\S+) +)?\S+:\d+\] (?:\(\w+\) )?(.*)$")
_RECEIVED = re.compile(r"Association Received from AET (.*) on IP (\S+)$")
_CONNECTION = re.compile(r"Incoming connection from AET (.*) on IP (\S+), calling AET (.*)$")
_REQUEST = re.compile(r"Incoming (.+?) request from AET (.*) on IP (\S+), calling AET (.*)$")
_TARGET = re.compile(r'Move-SCU request received for AET "(.*)"$')
_UNKNOWN = re.compile(r'Modality "(.*)" is not listed in the "DicomModalities" configuration option')
_ELSEWHERE = re.compile(r'Forbid+ing access from AET "(.*)" given its hostname')
_REJECTED = re.compile(r"Rejected association for remote AET (.*) on IP (\S+)$")
_BAD_CALLED = re.compile(r"Rejected association, because of a bad called AET in the request \((.*)\)$")
_NOT_ALLOWED = re.compile(
    r"DICOM authorization rejected +for AET (.*) on IP (\S+): (?:The DICOM command (.+?) is not )?"
)
_NOTHING_KNOWN = "(but no valid presentation contexts)"
#: Every line of interest holds one of these: the others are not looked at closer.
_WORDS = ("Incoming ", "ssociation", "Modality ", "Forbid", "Move-SCU", "DICOM authorization")

UNKNOWN, ELSEWHERE = "the AE title is unknown", "the AE title belongs to another address"
_COMMANDS = {
    "Echo": "C-ECHO", "Find": "C-FIND", "FindWorklist": "the worklist", "Get": "C-GET", "Move": "C-MOVE",
    "Store": "C-STORE", "N-ACTION": "storage commitment",
}  # fmt: skip


@dataclass
class _Counted:
    told_at: float | None = None
    count: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    def is_due(self, now: float, every: float) -> bool:
        return bool(self.count or self.requests) and (self.told_at is None or now - self.told_at >= every)


Caller = tuple[str, str, str]


class DicomLog:
    """Reads lines, counts, and writes what is due to `file`. For one thread; `now` is in seconds UTC."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._associations: dict[Caller, _Counted] = {}
        self._refusals: dict[Caller, _Counted] = {}
        self._signs: dict[tuple[str, str, str], float] = {}
        self._retrieves: list[dict[str, Any]] = []
        self._negotiating: Caller | None = None  # accepted, unless a rejection follows
        self._received = ("", "")
        self._why: dict[str, str] = {}
        self._began = 0.0
        self._moving: dict[str, list[dict[str, Any]]] = {}  # by thread: C-MOVE whose destination was not told yet
        self._lost = 0

    def line(self, raw: bytes, now: float) -> bool:
        """Take a line; whether it stays in the log."""
        text = raw.decode("latin-1").rstrip("\r\n")
        found = _LINE.match(text)
        if found is None:
            return True
        level, thread, said = found.groups()
        if any(word in said for word in _WORDS):
            self._take(said, thread or "", now)
        return level not in "IT"

    def _take(self, said: str, thread: str, now: float) -> None:
        if found := _REQUEST.match(said):
            self._requested(found[1], (found[2], found[3], found[4]), thread, now)
        elif found := _CONNECTION.match(said):
            self._accepted(now)
            self._negotiating, self._began = (found[1], found[2], found[3]), now
        elif said.startswith("Association Acknowledged"):
            if said.endswith(_NOTHING_KNOWN):
                self._rejected(said, now)
            self._accepted(now)
        elif found := _RECEIVED.match(said):
            self._accepted(now)
            self._received = (found[1], found[2])
        elif found := _TARGET.match(said):
            # Of several at once nobody can tell which of them goes where, unless Orthanc names its threads.
            waiting = self._moving.pop(thread, [])
            for one in waiting:
                one["target"] = found[1][:16] if len(waiting) == 1 else "one of several at once"
        elif found := _UNKNOWN.match(said):
            self._why[found[1]] = UNKNOWN
        elif found := _ELSEWHERE.match(said):
            self._why[found[1]] = ELSEWHERE
        elif found := _NOT_ALLOWED.match(said):
            what = _COMMANDS.get(found[3], found[3]) if found[3] else ""
            self._not_sent(found[1], found[2], thread)
            reason = f"{what} is not allowed for it" if what else "the AE title is not allowed from this address"
            self._refused(found[1], found[2], "", reason, now)
        elif said.startswith(("Rejected association", "Association Rejected")):
            self._rejected(said, now)

    def _rejected(self, said: str, now: float) -> None:
        negotiating, self._negotiating = self._negotiating, None
        if found := _REJECTED.match(said):
            called = negotiating[2] if negotiating and negotiating[:2] == (found[1], found[2]) else ""
            reason = self._why.pop(found[1], "Orthanc gives no reason")
            self._refused(found[1], found[2], called, reason, now)
        elif found := _BAD_CALLED.match(said):
            self._refused(*self._received, found[1], "it calls an AE title that is not ours", now)
        elif said.endswith(_NOTHING_KNOWN):
            called = negotiating[2] if negotiating else ""
            self._refused(*self._received, called, "nothing that it proposes is taken here", now)
        else:
            self._refused(*self._received, "", "its request can't be read", now)
        self._why.clear()

    def _accepted(self, now: float) -> None:
        """What was being negotiated a moment ago was not rejected."""
        if self._negotiating is None:
            return
        counted = _of(self._associations, self._negotiating)
        counted.count += 1
        counted.last = {"at": now}
        self._negotiating = None

    def _requested(self, request: str, caller: Caller, thread: str, now: float) -> None:
        aet, ip, called = caller
        counted = _of(self._associations, caller)
        counted.requests[request] = counted.requests.get(request, 0) + 1
        counted.last = {"at": now}
        if request in SIGNS and len(self._signs) < KINDS:
            self._signs[(aet, ip, request)] = now
        if request in ("Move", "Get"):
            if len(self._retrieves) >= RETRIEVES:
                self._lost += 1
                return
            told = {"kind": "retrieve", "at": now, "aet": aet, "ip": ip, "called_aet": called, "request": request}
            self._retrieves.append(told)
            if request == "Move":
                self._moving.setdefault(thread, []).append(told)

    def _not_sent(self, aet: str, ip: str, thread: str) -> None:
        """The request that was told last was refused: nothing is retrieved by it."""
        last = self._retrieves[-1:]
        if last and (last[0]["aet"], last[0]["ip"]) == (aet, ip) and "target" not in last[0]:
            self._retrieves.pop()
            self._moving.pop(thread, None)

    def _refused(self, aet: str, ip: str, called: str, reason: str, now: float) -> None:
        counted = _of(self._refusals, (aet, ip, reason))
        counted.count += 1
        counted.last = {"at": now, "called_aet": called}

    def wait_s(self, now: float) -> float | None:
        """For how long nothing must be written; None: until the next line."""
        if self._signs or self._retrieves or self._negotiating:
            return GATHER_S
        waits = [
            0.0 if one.told_at is None else one.told_at + every - now
            for every, kinds in ((ASSOCIATIONS_S, self._associations), (REFUSALS_S, self._refusals))
            for one in kinds.values()
            if one.count or one.requests
        ]
        return max(GATHER_S, min(waits)) if waits else None

    def write(self, now: float, all_of_it: bool = False) -> None:
        """Tell what is due, or everything there is: the end has come. What can't be written now is told later."""
        if all_of_it or now - self._began > GATHER_S:
            self._accepted(now)
        self._moving.clear()
        lines: list[dict[str, Any]] = []
        due: list[_Counted] = []
        for caller, counted in self._associations.items():
            if counted.is_due(now, 0 if all_of_it else ASSOCIATIONS_S):
                due.append(counted)
                named = dict(zip(("aet", "ip", "called_aet"), caller, strict=True))
                told = {"kind": "associated", **counted.last, **named, "count": counted.count}
                lines.append({**told, "requests": counted.requests})
        for (aet, ip, reason), counted in self._refusals.items():
            if counted.is_due(now, 0 if all_of_it else REFUSALS_S):
                due.append(counted)
                told = {"kind": "refused", **counted.last, "aet": aet, "ip": ip, "reason": reason}
                lines.append({**told, "count": counted.count})
        lines += self._retrieves
        if self._lost:
            lines.append({"kind": "lost", "at": now, "count": self._lost})
        lines += [
            {"kind": "sign", "at": at, "aet": aet, "ip": ip, "request": request}
            for (aet, ip, request), at in self._signs.items()
        ]
        if not lines or not self._append(lines):
            return
        for counted in due:
            counted.told_at, counted.count, counted.requests = now, 0, {}
        self._retrieves, self._lost = [], 0
        self._signs.clear()
        _forget_old(self._associations, now - ASSOCIATIONS_S)
        _forget_old(self._refusals, now - REFUSALS_S)

    def _append(self, lines: list[dict[str, Any]]) -> bool:
        text = "".join(json.dumps(one) + "\n" for one in lines)
        try:
            with self._file.open("a", encoding="ascii") as out:
                if out.tell() > MAXIMUM_BYTES:
                    return False
                out.write(text)
        except OSError:  # no room, most likely: it stays counted
            return False
        return True


def _of(kinds: dict[Caller, _Counted], key: Caller) -> _Counted:
    if key not in kinds and len(kinds) >= KINDS:
        key = ("", "many", "more callers at once than are told apart")
    return kinds.setdefault(key, _Counted())


def _forget_old(kinds: dict[Caller, _Counted], before: float) -> None:
    """What was told and is quiet since needs no counting."""
    for key in [
        key for key, one in kinds.items() if not one.count and not one.requests and (one.told_at or 0) < before
    ]:
        del kinds[key]
