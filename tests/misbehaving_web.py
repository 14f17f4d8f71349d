"""An HTTP server that answers as a test says: truthfully, never, half, or with the line cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Said:
    """One answer. `cut_after`: so many bytes of the body are sent, and the line is cut; `silent`: nothing is said."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    silent: bool = False


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: dict[str, str]


@dataclass
class Web:
    """Where it listens, and all that it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[Asked], Said]) -> Iterator[Web]:
    """Listen on loopback, until the end of the block."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _do(self) -> None:
            where = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            asked = Asked(
                self.command, where.path, dict(parse_qsl(where.query)), self.rfile.read(length), dict(self.headers)
            )
            web.asked.append(asked)
            said = answer(asked)
            if said.silent:
                over.wait(30)
                self.close_connection = True
                return
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body[: said.cut_after])
            self.close_connection = said.cut_after is not None or self.close_connection

        do_GET = do_POST = _do

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is said on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
