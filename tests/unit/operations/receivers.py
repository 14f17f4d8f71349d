"""Two receivers of alerts for tests, on real sockets: an HTTP server and a small SMTP server (RFC 5321, AUTH PLAIN)."""

from __future__ import annotations

import base64
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Heard:
    """What arrived, and how the receiver behaves: `status` of HTTP, `drips` one byte a time, `refuses` SMTP."""

    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    mails: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    logins: list[tuple[str, str, bool]] = field(default_factory=list)
    status: int = 204
    location: str = ""
    drips: bool = False
    tls_at_once: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None
    password: str = ""
    refuses: tuple[str, ...] = ()
    port: int = 0


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that only those trust who are given it, and a server's context with it."""
    crt, key = folder / "receiver.crt", folder / "receiver.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(crt)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    return crt, context


@contextmanager
def http_receiver(heard: Heard) -> Iterator[Heard]:
    """A web server on loopback; `heard.port` is its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.requests.append((self.path, dict(self.headers), body))
            if heard.drips:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 200:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.1)
                return
            self.send_response(heard.status)
            if heard.location:
                self.send_header("Location", heard.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", heard.port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    if heard.tls_at_once:
        server.socket = heard.tls_at_once.wrap_socket(server.socket, server_side=True)
    yield from _served(server, heard)


class _Conversation(socketserver.BaseRequestHandler):
    """One SMTP connection."""

    def handle(self) -> None:
        heard: Heard = self.server.heard  # type: ignore[attr-defined]
        try:
            if heard.tls_at_once:
                self.request = heard.tls_at_once.wrap_socket(self.request, server_side=True)
            self._talk(heard)
        except (OSError, EOFError):
            pass  # the other side hung up, as one does that trusts no certificate

    def _talk(self, heard: Heard) -> None:
        sender, to, is_secure = "", [], bool(heard.tls_at_once)
        self._say("220 receiver")
        while True:
            verb, _, rest = self._line().partition(" ")
            verb = verb.upper()
            if verb == "EHLO":
                offers = [] if is_secure or not heard.starttls else ["STARTTLS"]
                offers += ["AUTH PLAIN"] if heard.password else []
                lines = ["receiver", *offers]
                for n, line in enumerate(lines):
                    self._say(f"250{' ' if n == len(lines) - 1 else '-'}{line}")
            elif verb == "STARTTLS" and heard.starttls:
                self._say("220 go on")
                self.request = heard.starttls.wrap_socket(self.request, server_side=True)
                is_secure = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
                heard.logins.append((user, password, is_secure))
                self._say("235 ok" if password == heard.password else "535 no")
            elif verb == "MAIL":
                sender, to = rest, []
                self._say("250 ok")
            elif verb == "RCPT":
                is_refused = any(address in rest for address in heard.refuses)
                to += [] if is_refused else [rest]
                self._say("550 nobody here" if is_refused else "250 ok")
            elif verb == "DATA":
                self._say("354 go on")
                lines = []
                while (line := self._line()) != ".":
                    lines.append(line.removeprefix("."))
                heard.mails.append((sender, to, "\r\n".join(lines).encode()))
                self._say("250 kept")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok" if verb in ("RSET", "NOOP") else "500 what?")

    def _say(self, line: str) -> None:
        self.request.sendall(f"{line}\r\n".encode())

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            got = self.request.recv(1)
            if not got:
                raise EOFError
            line += got
        return line[:-2].decode()


class _Smtp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def smtp_receiver(heard: Heard) -> Iterator[Heard]:
    """A mail server on loopback; `heard.port` is its port."""
    server = _Smtp(("127.0.0.1", heard.port), _Conversation)
    server.heard = heard  # type: ignore[attr-defined]
    yield from _served(server, heard)


def _served(server: socketserver.BaseServer, heard: Heard) -> Iterator[Heard]:
    heard.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
