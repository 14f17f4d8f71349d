"""The plugin's own REST routes, /zambezi/...: JSON in, JSON out, for services alone (the filter sees to that)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from plugins import callers, trial
from plugins.attributes import Reader
from plugins.completeness import Completeness, Signs
from plugins.follower import Follower
from plugins.journal import Journal, JournalMismatch
from plugins.orthanc_rest import RestRefused
from plugins.pushed import Announced, Pushed, SnapshotRefused
from plugins.rules import Rules
from plugins.standing import Offer, OfferRefused, Standing
from plugins.verifying import AskedWrongly, Verifier
from zambezi import clock
from zambezi.config import ConfigurationFaults

#: Longest wait for a new entry, and how many may wait at once (each holds one of Orthanc's HTTP threads).
WAIT_S = 25.0
WAITING = 8
#: Most entries in one answer.
ENTRIES = 2000
#: What the front door puts before the number of a frame that the web viewer is asked for (plugins.viewer_cache).
PICTURES = "Zambezi-Pictures"


@dataclass(frozen=True)
class Answer:
    """Status and JSON of an answer, and its own headers."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request as Orthanc shows it to a REST callback."""

    method: str
    path: str
    arguments: Mapping[str, str]
    body: bytes


class RouteFault(ValueError):
    """The request can't be understood; the text says why."""


class Routes:
    """Dispatches a call to what answers it."""

    def __init__(
        self,
        journal: Journal,
        rules: Rules,
        completeness: Completeness,
        worklist: Pushed[dict[str, list[bytes]]],
        announced: Pushed[Announced],
        revocations: Pushed[frozenset[str]],
        follower: Callable[[], Follower | None],
        take_peers: Callable[[Mapping[str, Any]], None],
        room: Callable[[], dict[str, Any]],
        versions: Mapping[str, str],
        offered: Callable[[], Mapping[str, Any]],
        verifier: Verifier,
        standing: Standing | None = None,
        *,
        ready: Pushed[Signs],
        reading: Callable[[], AbstractContextManager[Reader]],
        generation: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._rules = rules
        self._completeness = completeness
        self._pushed: dict[str, Pushed[Any]] = {
            "worklist": worklist, "announced": announced, "revocations": revocations, "ready": ready,
        }  # fmt: skip
        self._reading = reading
        self._generation = generation
        self._follower = follower
        self._take_peers = take_peers
        self._room = room
        self._versions = versions
        self._offered = offered
        self._verifier = verifier
        self._standing = standing
        self._waiting = threading.BoundedSemaphore(WAITING)

    def answer(self, call: Call) -> Answer:
        """What is answered to a call; unknown paths 404, wrong methods 405, what can't be understood 400."""
        name = call.path.removeprefix("/zambezi/").rstrip("/")
        reading: dict[str, Callable[[Call], Answer]] = {
            "door": lambda _: Answer(200, headers={PICTURES: "0" * self._generation()}),
            "viewer-door": lambda _: Answer(200),
            "status": self._status,
            "journal": self._entries, "explain": self._explain,
            "callers": lambda _: Answer(200, {"callers": callers.told(self._journal)}),
        }  # fmt: skip
        writing: dict[str, tuple[str, Callable[[Call], Answer]]] = {
            "reload": ("POST", self._reload),
            "standing": ("PUT", self._stand),
            "dry-run": ("PUT", self._dry_run),
            "verify": ("PUT", self._verify),
            **dict.fromkeys(self._pushed, ("PUT", self._push)),
        }
        try:
            if name in reading:
                return reading[name](call) if call.method == "GET" else Answer(405, {"error": "GET only"})
            if name in writing:
                method, act = writing[name]
                return act(call) if call.method == method else Answer(405, {"error": f"{method} only"})
        except (RouteFault, SnapshotRefused, OfferRefused, AskedWrongly) as fault:
            return Answer(400, {"error": str(fault)})
        return Answer(404, {"error": f"no such path: {call.path}"})

    def _status(self, _: Call) -> Answer:
        seq, head = self._journal.head
        follower = self._follower()
        following = {"change": follower.change, "lag": follower.lag, "error": follower.error} if follower else None
        return Answer(
            200,
            {
                "journal": self._journal.name, "seq": seq, "hash": head, "configuration": self._rules.now.hash,
                "plugin": self._versions["plugin"], "orthanc": self._versions["orthanc"],
                **self._offered(),
                **{f"{name}_generation": pushed.generation for name, pushed in self._pushed.items()},
                "follower": following or {"change": 0, "lag": -1, "error": "not started"},
                "studies_open": self._completeness.open_studies(),
                **(self._standing.told if self._standing else {}),
                "disk": self._room(),
                "seen": self._journal.seen(),
            },
        )  # fmt: skip

    def _entries(self, call: Call) -> Answer:
        since = _number(call, "since", 0)
        limit = max(1, min(_number(call, "limit", ENTRIES), ENTRIES))
        wait = min(float(_number(call, "wait", 0)), WAIT_S)
        name = self._journal.name
        if call.arguments.get("journal", name) != name:
            return Answer(409, {"error": "this is another journal", "journal": name, "seq": self._journal.head[0]})
        if wait and self._waiting.acquire(blocking=False):
            try:
                self._journal.wait_beyond(since, wait)
            finally:
                self._waiting.release()
        try:
            entries = self._journal.entries_after(since, call.arguments.get("hash", ""), limit)
        except JournalMismatch as error:
            return Answer(409, {"error": str(error), "journal": name, "seq": self._journal.head[0]})
        told = [{"seq": one.seq, "hash": one.hash, "payload": one.payload.decode()} for one in entries]
        return Answer(200, {"journal": name, "entries": told, "head": self._journal.head[0]})

    def _explain(self, call: Call) -> Answer:
        study = call.arguments.get("study", "")
        with self._reading() as reader:
            told = self._completeness.explain(study, reader, clock.now())
        return Answer(200, told) if told else Answer(404, {"error": f"no study {study} is recorded"})

    def _dry_run(self, call: Call) -> Answer:
        """What other rules would have done to studies that came; a part at a time (plugins.trial)."""
        try:
            asked = trial.Asked.read(_json(call))
            tried = self._rules.tried(asked.section)
        except trial.TrialRefused as refused:
            return Answer(400, {"error": str(refused)})
        except ConfigurationFaults as faults:
            return Answer(409, {"faults": [str(fault) for fault in faults.faults]})
        with self._reading() as reader:
            return Answer(200, trial.run(self._completeness.studies, self._rules.now, tried, asked, reader))

    def _stand(self, call: Call) -> Answer:
        """Who records, and what the others did, by the gateway's word (of several nodes)."""
        if self._standing is None:
            return Answer(409, {"error": "this archive has one node; ZAMBEZI_NODES names more"})
        self._standing.offer(Offer.read(_json(call)))
        follower = self._follower()
        if follower:
            follower.wake()
        return Answer(200, self._standing.told)

    def _verify(self, call: Call) -> Answer:
        """What index and disk have of instances: storage commitment and migration rest on it. Changes nothing."""
        try:
            return Answer(200, {"looked": self._verifier.look(_json(call))})
        except (OSError, HTTPException, RestRefused) as error:
            return Answer(503, {"error": f"Orthanc's index can't be asked now: {error}"})

    def _push(self, call: Call) -> Answer:
        name = call.path.removeprefix("/zambezi/").rstrip("/")
        generation = self._pushed[name].put(_json(call))
        follower = self._follower()
        if name == "ready" and follower:
            follower.wake()
        return Answer(200, {"generation": generation})

    def _reload(self, _: Call) -> Answer:
        try:
            taken = self._rules.read()
            self._take_peers(taken.orthanc)
        except ConfigurationFaults as faults:
            return Answer(409, {"faults": [str(fault) for fault in faults.faults]})
        except (OSError, HTTPException, RestRefused) as error:
            return Answer(409, {"faults": [f"DicomModalities: Orthanc did not take all of them: {error}"]})
        self._rules.now = taken
        with self._journal.transaction() as transaction:
            transaction.append("configured", clock.now(), configuration=taken.hash)
        return Answer(200, {"configuration": taken.hash})


def _json(call: Call) -> Any:
    try:
        return json.loads(call.body)
    except ValueError as error:
        raise RouteFault(f"the body is not JSON: {error}") from error


def _number(call: Call, name: str, default: int) -> int:
    text = call.arguments.get(name, str(default))
    if not text.isdigit() or len(text) > 18:
        raise RouteFault(f"{name}: found {text!r}, allowed is a number")
    return int(text)
