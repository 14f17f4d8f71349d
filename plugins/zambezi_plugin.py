"""What Orthanc loads: the entry script, the only module that imports `orthanc`.

It composes the plugin's parts and registers the callbacks listed in `CALLBACKS`. A fault at import (the
configuration among them) stops Orthanc: it never runs without its journal and its second lock.
"""

# ruff: noqa: E402  the first lines must come before the imports
import sys
from pathlib import Path

# Orthanc puts the script's folder first on sys.path: a module of ours named like one of the standard
# library would shadow it, and each module would exist twice. The repository itself comes by PYTHONPATH.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import orthanc

from plugins import declared, index_id, moved, peers, pushed, thread_state
from plugins.admission import Gate
from plugins.arrivals import Arrivals
from plugins.attributes import Reader
from plugins.claims import Claims
from plugins.coercion import Coercion
from plugins.completeness import Completeness, Signs
from plugins.door import Door
from plugins.follower import Follower
from plugins.http_filter import Request
from plugins.journal import Journal
from plugins.noted import Noted
from plugins.orthanc_rest import OrthancRest
from plugins.pushed import Announced, Pushed
from plugins.recorder import Recorder
from plugins.refusals import Refusals
from plugins.room import RoomWatch
from plugins.routes import Call, Routes
from plugins.rules import Rules
from plugins.spool import Spool
from plugins.standing import Standing
from plugins.verifying import Verifier
from plugins.versions import StatusAnswer, lacks
from plugins.viewer_cache import ViewerCache
from plugins.worklist import WorklistAnswer
from zambezi import __version__, clock, disk, keys
from zambezi.config import ConfigurationFaults
from zambezi.environment import Environment

log = logging.getLogger("zambezi.plugin")

#: How long notifications gather; also the longest that a stop waits for it.
GATHER_S = 0.1

#: In place of an instance that Orthanc must refuse: no DICOM, which it answers as a failure.
REFUSED = b"Zambezi could not keep this instance safe; send it again."

#: PS3.7 C.5.
PROCESSING_FAILURE = 0x0110

# Looked up here: a version that lacked one would stop at its start, and not store while a callback raises.
_BY_DICOM = orthanc.InstanceOrigin.DICOM_PROTOCOL
_KEEP_AS_IS, _MODIFY = orthanc.ReceivedInstanceAction.KEEP_AS_IS, orthanc.ReceivedInstanceAction.MODIFY

_METHODS = {getattr(orthanc.HttpMethod, name): name for name in ("GET", "POST", "PUT", "DELETE")}


class Plugin:
    """The parts of one Orthanc, put together."""

    def __init__(self, environment: Environment) -> None:
        home = environment.plugin_dir
        self.rules = Rules(environment.orthanc_config_dir, os.environ)
        self.journal = Journal(environment.journal_file)
        self.worklist: Pushed[dict[str, list[bytes]]] = Pushed(home / "worklist.json", {}, pushed.worklist)
        self.announced: Pushed[Announced] = Pushed(home / "announced.json", Announced(), pushed.announced)
        self.revocations: Pushed[frozenset[str]] = Pushed(home / "revocations.json", frozenset(), pushed.revocations)
        refusals = Refusals()
        # Of one node nothing here depends on a gateway, or on anybody else.
        shared, several = environment.index_dir, bool(environment.nodes)
        self.standing = Standing(self.journal, environment.node, shared, self.deleted) if several else None
        self.replaced = self.standing.replaced if self.standing else None
        self.recorder = Recorder(self.journal, self.rules, self.deleted)
        self.ready: Pushed[Signs] = Pushed(home / "ready.json", {}, pushed.ready)
        self.completeness = Completeness(
            self.journal, self.rules, lambda: self.ready.content, lambda: self.announced.content
        )
        self.noted = Noted(
            self.journal, Spool(home / "queries.log"), Spool(home / "incidents.log"), refusals,
            Spool(home / "callers.log"),
        )  # fmt: skip
        places = disk.folders(environment)
        self.room = RoomWatch(self.rules, self.journal, refusals, lambda: disk.measure(places))
        self.room.look(clock.now())
        self.door = Door(
            keys.load(environment.keys_file).session_key, self.journal, refusals, lambda: self.revocations.content,
            self.room.admits, self.replaced,
        )  # fmt: skip
        configuration = json.loads(orthanc.GetConfiguration())
        self.http_port = int(configuration["HttpPort"])
        # Once, here, while nothing comes in yet: this, too, takes the mutex that Orthanc holds while an arrival waits
        # for Python's lock. Asked for later, it would stop Orthanc for good.
        self.token = orthanc.GenerateRestApiAuthorizationToken()
        # The recovering Orthanc (operations.recovery) is the one whose DICOM port is closed.
        self.recovering = configuration.get("DicomServerEnabled") is False
        self.viewer_cache = ViewerCache(
            configuration.get("WebViewer", {}).get("CachePath"), environment.storage_dir, self.known
        )
        self.arrivals = Arrivals(
            self.journal, environment.hold_dir, lambda: self.announced.content, self.recovering,
            claims=Claims(shared / "claims") if several else None,
        )  # fmt: skip
        self.coercion = Coercion(
            lambda: self.rules.now.zambezi.coercions, self.journal, self.worklist, lambda: self.announced.content,
            self.arrivals.holds, self.recovering,
        )  # fmt: skip
        self.gate = Gate(self.rules, self.arrivals, refusals)
        self.commits_late = configuration.get("PostgreSQL", {}).get("EnableIndex") is True
        self.follower: Follower | None = None
        self.kept: list[Callable[..., Any]] = []
        self.index_id = index_id.read_or_create(environment.index_id_file)
        moved.take_over(self.journal, self.recorder, environment.moved_file, self.index_id, clock.now())
        self.gathered_at = 0.0
        self.status_answer = StatusAnswer()
        self.versions = {"plugin": __version__, "orthanc": "", "index": self.index_id}
        self.offered: dict[str, Any] = {"python_plugin": "", "lacks": []}
        self.routes = Routes(
            self.journal, self.rules, self.completeness, self.worklist, self.announced, self.revocations,
            lambda: self.follower, self.take_peers, lambda: self.room.told, self.versions, lambda: self.offered,
            Verifier(environment.storage_dir, self.rest, self.arrivals.arrived), self.standing, ready=self.ready,
            reading=self.reading, generation=lambda: self.viewer_cache.generation,
        )  # fmt: skip

    def rest(self) -> OrthancRest:
        """A new connection to our own Orthanc; its requests pass the filter by the plugin's own token."""
        return OrthancRest(self.http_port, self.token)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """How a thread of Orthanc's that answers a request reads instances: by a connection of its own."""
        rest = self.rest()
        try:
            yield rest
        finally:
            rest.close()

    def take_peers(self, wanted: Mapping[str, Any]) -> None:
        """Bring a reloaded configuration's peers to Orthanc."""
        rest = self.rest()
        try:
            peers.take(rest, wanted)
        finally:
            rest.close()

    def known(self, orthanc_ids: list[str]) -> set[str]:
        """Which of these resources Orthanc has."""
        rest = self.rest()
        try:
            return set(rest.contents(orthanc_ids))
        finally:
            rest.close()

    def deleted(self, study_uid: str, orthanc_ids: Collection[str]) -> None:
        """The journal tells that these went; of several nodes, perhaps by another one's hand."""
        if self.replaced:
            self.replaced.deleted(study_uid, orthanc_ids)
            self.viewer_cache.deleted()

    def on_change(self, change_type: int, _level: int, resource: str) -> None:
        """Notification: Orthanc started, stops, or something in it changed."""
        if change_type == orthanc.ChangeType.ORTHANC_STARTED:
            self.start()
        elif change_type == orthanc.ChangeType.ORTHANC_STOPPED:
            self.stop()
        elif self.follower and change_type == orthanc.ChangeType.DELETED:
            if self.replaced:
                self.replaced.deleted_here(resource)
            self.follower.check_deleted(resource)
            self.viewer_cache.deleted()
        elif self.follower and change_type == orthanc.ChangeType.NEW_INSTANCE:
            self.follower.wake()
            self.gather()

    def gather(self) -> None:
        """Let notifications pile up for a moment, and take them at once.

        They come one by one from a thread that does nothing else. Waking it, and taking Python's lock, for
        each stored instance costs more than what is done with it; nobody waits for that thread. So it digests, too.
        """
        now = time.monotonic()
        if now - self.gathered_at > GATHER_S:
            time.sleep(GATHER_S)
            self.gathered_at = time.monotonic()
            self.arrivals.digest_ahead()

    def start(self) -> None:
        """Begin to follow, and to look at the disks: Orthanc answers HTTP now."""
        rest = self.rest()

        def began() -> None:
            system = rest.get("/system")
            self.versions["orthanc"] = str(system["Version"])
            self.offered = {
                "python_plugin": str(rest.get("/plugins/python")["Version"]),
                "lacks": lacks(dir(orthanc), system),
            }
            with self.journal.transaction() as transaction:
                transaction.append("started", clock.now(), **self.versions)
                transaction.append("configured", clock.now(), configuration=self.rules.now.hash)

        self.follower = Follower(
            rest, self.journal, self.recorder, self.completeness, self.noted, self.arrivals, self.index_id,
            lambda: self.announced.content, began, self.recovering, self.standing, self.commits_late,
        )  # fmt: skip
        self.follower.start()
        self.room.start()
        self.viewer_cache.start()

    def stop(self) -> None:
        """Record what came until now, join the thread (Orthanc would hang without), let waiting readers go."""
        self.room.stop()
        self.viewer_cache.stop()
        if self.follower:
            self.follower.stop()
        with self.journal.transaction() as transaction:
            transaction.append("stopped", clock.now(), **self.versions)
        self.journal.release_readers()

    def on_http(self, uri: str, **request: Any) -> bool:
        """Intervention: whether a request passes. Closed when it fails (Orthanc answers 403)."""
        try:
            headers = {name.lower(): value for name, value in request["headers"].items()}
            method = _METHODS.get(request["method"], str(request["method"]))
            return self.door.ask(Request(method, uri, request["ip"], headers, request.get("get", {})), clock.now())
        except Exception:  # the request's edge: whatever it was, the answer is no
            log.exception("the filter failed: refused")
            return False

    def on_received(self, content: bytes, origin: int) -> tuple[int, bytes | None]:
        """Intervention: an instance comes. Orthanc takes it; what has no room or can't be kept safe it must refuse.

        Never DISCARD: that tells the sender Success. Orthanc stores the original where a callback raises. By HTTP
        the door has asked for room already.
        """
        by_dicom = origin == _BY_DICOM
        if by_dicom and not self.room.admits(len(content), "DICOM"):
            return _MODIFY, REFUSED
        now = clock.now()
        treated = self.coercion.treat(content, by_dicom, now)
        if treated.came:
            treated = declared.compared(treated, content, self.announced.content)
        if not treated.is_listed or not self.arrivals.look(treated.content, by_dicom, now, treated.came, treated.read):
            return _MODIFY, REFUSED
        return (_KEEP_AS_IS, None) if treated.content is content else (_MODIFY, treated.content)

    def on_c_store(self, instance: Any) -> int:
        """Intervention: the status that a C-STORE is answered with; 0 where Orthanc is to store it.

        Closed when it fails: the sender sends again. Registered where the configuration asks for it alone.
        """
        try:
            return self.gate.answer(instance.GetInstanceData(), instance.GetInstanceRemoteAet(), clock.now())
        except Exception:  # the request's edge: whatever it was, nothing is told to be stored that isn't
            log.exception("what came could not be judged: it is refused")
            return PROCESSING_FAILURE

    def on_worklist(self, answers: Any, query: Any, issuer_aet: str, called_aet: str) -> None:
        """Intervention: the worklist. Fails the query when it fails."""
        WorklistAnswer(self.worklist).answer(answers, query, issuer_aet, called_aet)

    def on_rest(self, output: Any, uri: str, **request: Any) -> None:
        """Our own routes. A fault is answered 500."""
        answer = self.routes.answer(
            Call(request["method"], uri, request.get("get", {}), request.get("body", b"") or b"")
        )
        body = json.dumps(answer.body)
        for name, value in answer.headers.items():
            output.SetHttpHeader(name, value)
        if answer.status == 200:
            output.AnswerBuffer(body, "application/json")
        else:
            output.SetHttpHeader("Content-Type", "application/json")
            self.status_answer.send(output, answer.status, body)


#: Every callback: how it is registered, what it is, and what happens when it fails.
#: intervention: Orthanc waits for the answer; notification: it has happened already.
CALLBACKS: tuple[tuple[str, str, str, Callable[[Plugin], Callable[..., Any]]], ...] = (
    ("RegisterIncomingHttpRequestFilter", "intervention", "closed: the request is refused", lambda p: p.on_http),
    (
        "RegisterWorklistCallback",
        "intervention",
        "closed: the query fails, images still come in",
        lambda p: p.on_worklist,
    ),
    (
        "RegisterReceivedInstanceCallback",
        "intervention",
        "held whole, and stored; refused only without room, or where hold or journal can't be written",
        lambda p: p.on_received,
    ),
    ("RegisterOnChangeCallback", "notification", "open: /changes is read all the same", lambda p: p.on_change),
)


def main() -> Plugin:
    """Compose, then register; raises when Orthanc must not run."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    environment = Environment.read()
    try:
        plugin = Plugin(environment)
    except ConfigurationFaults as faults:
        for fault in faults.faults:
            orthanc.LogError(f"Zambezi's configuration can't be used: {fault}")
        raise
    registered = [(getattr(orthanc, register), callback(plugin)) for register, _kind, _failing, callback in CALLBACKS]
    registered.append((partial(orthanc.RegisterRestCallback, "/zambezi/(.*)"), plugin.on_rest))
    if plugin.rules.admits:
        registered.append((orthanc.RegisterIncomingCStoreInstanceFilter, plugin.on_c_store))
    registered = [(register, thread_state.kept(callback)) for register, callback in registered]
    for register, callback in registered:
        register(callback)
    # Orthanc's plugin drops its references at the end without holding Python's lock. A bound method that only it
    # knows would be freed there, which ends Orthanc with SIGSEGV (plugin 5.0 with Python 3.13): we keep them.
    plugin.kept = [callback for _, callback in registered]
    return plugin


PLUGIN = main()
