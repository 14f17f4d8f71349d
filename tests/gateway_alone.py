"""The gateway as a process of its own, with a small stand-in for the plugin's routes (real HTTP)."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from sqlalchemy import func, inspect, select

from demo.neighbours import free_port
from gateway.hl7.mllp import Framer, frame
from tests.schema import upgraded
from zambezi import chain, clock, keys
from zambezi.chain import Sealed
from zambezi.database.engine import Sessions, sessions
from zambezi.environment import PORTS, REPOSITORY, Environment
from zambezi.hl7.read import Reading, read


def eventually(what: Callable[[], Any], seconds: float = 20) -> Any:
    """What `what` gives, as soon as it is true; AssertionError when the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class FakePlugin:
    """A journal, and what was pushed; answers as plugins/routes.py does."""

    port: int
    password: str
    journal: str = "orthanc-fake"
    entries: list[Sealed] = field(default_factory=list)
    pushed: dict[str, Any] = field(default_factory=dict)
    generations: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("worklist", "announced", "revocations", "ready"), 0)
    )
    asked: int = 0
    waits_s: float = 0.3  # with its answer, at most, while there is nothing new
    waiting: int = 0
    #: Held by a test that changes more than one thing at once.
    changing: Any = field(default_factory=threading.Lock)

    def add(self, event: str, **facts: Any) -> Sealed:
        last = self.entries[-1] if self.entries else Sealed(self.journal, 0, "", b"")
        self.entries.append(chain.seal(self.journal, last.seq + 1, last.hash, event, clock.now(), facts))
        return self.entries[-1]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        name = path.removeprefix("/zambezi/")
        if path == "/jobs":
            return 200, []
        if name == "status":
            return 200, {"journal": self.journal, **{f"{k}_generation": v for k, v in self.generations.items()}}
        if name == "journal":
            self.asked += 1
            since, end = int(query["since"]), time.monotonic() + min(float(query["wait"]), self.waits_s)
            self.waiting += 1
            while query["journal"] == self.journal and len(self.entries) == since and time.monotonic() < end:
                time.sleep(0.02)
            self.waiting -= 1
            with self.changing:
                if query["journal"] != self.journal:
                    return 409, {"error": "this is another journal"}
                if since and (since > len(self.entries) or self.entries[since - 1].hash != query["hash"]):
                    return 409, {"error": "another hash", "journal": self.journal, "seq": len(self.entries)}
                told = [
                    {"seq": e.seq, "hash": e.hash, "payload": e.payload.decode()}
                    for e in self.entries[since : since + int(query["limit"])]
                ]
                return 200, {"journal": self.journal, "entries": told, "head": len(self.entries)}
        if method == "PUT" and name in self.generations:
            document = json.loads(body)
            if document["generation"] > self.generations[name]:
                self.generations[name], self.pushed[name] = document["generation"], document
            return 200, {"generation": self.generations[name]}
        return 404, {}

    @contextmanager
    def serving(self) -> Iterator[None]:
        plugin = self
        expected = "Basic " + base64.b64encode(f"gateway:{self.password}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlparse(self.path)
                query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
                status, told = plugin.answer(self.command, url.path, query, body)
                if self.headers["Authorization"] != expected:
                    status, told = 401, {}
                answer = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with suppress(ConnectionError):  # a gateway that was killed doesn't wait for its answer
                    self.wfile.write(answer)

            do_GET = do_PUT = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


@dataclass
class Alone:
    """A gateway's installation: its folders, its database, its process."""

    environment: Environment
    sessions: Sessions
    plugin: FakePlugin
    environ: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        with (self.environment.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zambezi.starting", "gateway.service"],
                env=self.environ,
                cwd=REPOSITORY,
                stderr=log,
            )
        if wait:
            eventually(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        for port in (self.environment.ports.mllp, self.environment.ports.mpps):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    return False
        return True

    def kill(self) -> None:
        """kill -9, as a power cut or the OOM killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def wait_for_death(self) -> int:
        assert self.process is not None
        return self.process.wait(30)

    def die_at(self, event: int) -> None:
        """Let the process end at its n-th commit event from now (zambezi/crash.py)."""
        (Path(self.environ["ZAMBEZI_CRASH_DIR"]) / "gateway").write_text(str(event))

    @property
    def log(self) -> str:
        return (self.environment.home / "gateway.log").read_text()

    def all(self, table: Any, *conditions: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(table).where(*conditions).order_by(*inspect(table).primary_key)))

    def count(self, table: Any, *conditions: Any) -> int:
        with self.sessions() as session:
            return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0

    def line(self) -> Line:
        return Line(self.environment.ports.mllp)


class Line:
    """A sender's MLLP connection, written without our client: plain socket, plain bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._framer = Framer(1 << 24)
        self._waiting: list[bytes] = []

    def send(self, message: str | bytes, encoding: str = "utf-8") -> None:
        self.socket.sendall(frame(message.encode(encoding) if isinstance(message, str) else message))

    def answer(self) -> bytes | None:
        """The next acknowledgement; None where the connection was closed instead."""
        while not self._waiting:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._waiting += self._framer.feed(data)
        return self._waiting.pop(0)

    def ask(self, message: str | bytes, encoding: str = "utf-8") -> Reading:
        self.send(message, encoding)
        found = self.answer()
        assert found is not None, "closed without an acknowledgement"
        return read(found)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def a_gateway(
    folder: Path, settings: dict[str, Any], modalities: dict[str, Any] | None = None, start: bool = True
) -> Iterator[Alone]:
    """A gateway with these settings (the `Zambezi` section), its database empty, the plugin's stand-in running."""
    home, config = folder / "home", folder / "config"
    for made in (home, config, folder / "crash"):
        made.mkdir()
    environ = {
        **os.environ,
        **{variable: str(free_port()) for variable, _ in PORTS.values()},
        "ZAMBEZI_HOME": str(home),
        "ZAMBEZI_CONFIG": str(config),
        "ZAMBEZI_DATABASE_URL": "",
        "ZAMBEZI_CRASH_DIR": str(folder / "crash"),
        "PYTHONPATH": str(REPOSITORY),
    }
    for file in ("10-orthanc.json", "20-plugins.json"):
        (config / file).write_text((REPOSITORY / "orthanc-config" / file).read_text())
    (config / "30-zambezi.json").write_text(json.dumps({"Zambezi": settings}))
    (config / "40-peers.json").write_text(json.dumps({"DicomModalities": modalities or {}}))
    environment = Environment.read(environ)
    known = keys.load_or_create(environment.keys_file)
    engine = upgraded(environment.database_url)
    plugin = FakePlugin(environment.ports.orthanc_http, known.services["gateway"])
    alone = Alone(environment, sessions(engine, "test"), plugin, environ)
    with plugin.serving():
        try:
            if start:
                alone.start()
            yield alone
        finally:
            if alone.process is not None and alone.process.poll() is None:
                alone.process.kill()
                alone.process.wait()
            engine.dispose()
