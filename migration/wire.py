"""HTTP connections that stay open, to a source or to the archive: bytes as they are, an end to every wait.

By http.client, which costs a fifth of what requests does for each object. Proxies and redirects are not followed: a
source is where the configuration says. Answers are asked for uncompressed: Orthanc before 1.12.2 gzips every file
for whoever accepts that, which makes it ten times slower.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from migration import handshakes
from zambezi import tls
from zambezi.config.safety import ClientCertificate

#: No word from the server for so long: it is given up.
SILENCE_S = 60.0
#: Nothing longer is taken for one answer.
MOST_BYTES = 4 << 30
_CHUNK = 1 << 20
#: What a server does with a connection that it thought idle, just when we ask again.
_STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class NoAnswer(Exception):
    """No whole answer came.

    `lasting`: nor will one before an administrator changes something (a certificate). `began`: the server answered,
    but not to the end.
    """

    def __init__(self, text: str, lasting: bool = False, began: bool = False) -> None:
        super().__init__(text)
        self.lasting, self.began = lasting, began


@dataclass(frozen=True)
class Server:
    """Where a server is and how one signs in there; `authorities`: a PEM file of certificates to trust.

    `certificate`: what is shown of us where the server asks for it.
    """

    url: str
    user: str = ""
    password: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    authorities: str = ""
    certificate: ClientCertificate | None = None

    def sent(self) -> dict[str, str]:
        """The headers of every request."""
        if not self.user:
            return dict(self.headers)
        words = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {words}", **self.headers}

    def trust(self) -> ssl.SSLContext:
        """Who is believed to be this server, and who we say we are; NoAnswer (lasting) where a file is no use.

        The files are read for each connection: what was renewed counts without a restart.
        """
        try:
            return tls.to_server(self.authorities, self.certificate)
        except tls.FileFault as fault:
            raise NoAnswer(str(fault), lasting=True) from fault


@dataclass(frozen=True)
class Answer:
    """A whole answer; `headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Wire:
    """One connection, for one thread at a time."""

    def __init__(self, server: Server, silence_s: float = SILENCE_S) -> None:
        where = urlsplit(server.url)
        self._base = where.path.rstrip("/")
        self._headers = server.sent()
        host, port = where.hostname or "", where.port
        self._connection: http.client.HTTPConnection
        if where.scheme == "https":
            self._connection = http.client.HTTPSConnection(host, port, timeout=silence_s, context=server.trust())
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=silence_s)
        self._used = False

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        seconds: float = 3600, most: int = MOST_BYTES,
    ) -> Answer:  # fmt: skip
        """The whole answer to one request, within so many seconds and bytes; NoAnswer otherwise."""
        with self.opened(method, path, body, headers) as response:
            until, pieces, size = time.monotonic() + seconds, list[bytes](), 0
            for piece in chunks(response):
                size += len(piece)
                if size > most:
                    raise NoAnswer(f"{method} {path}: the answer is longer than {most} bytes", began=True)
                if time.monotonic() > until:
                    raise NoAnswer(f"{method} {path}: not answered in full within {seconds:g} s", began=True)
                pieces.append(piece)
            found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, found)

    @contextmanager
    def opened(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is still to be read (`chunks`); what is left unread ends the connection."""
        began = False
        try:
            response = self._request(method, path, body, headers or {})
            began = True
            try:
                if response.getheader("Content-Encoding", "identity") != "identity":
                    raise NoAnswer(f"{method} {path}: the server compresses what was asked for as it is", lasting=True)
                yield response
            finally:
                if not response.isclosed() or response.will_close:
                    self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if why := handshakes.why(error):  # whatever is asked for
                raise NoAnswer(why, lasting=True, began=began) from error
            raise NoAnswer(f"{method} {path}: {_words(error)}", began=began) from error

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        for is_last in (not self._used, True):
            try:
                self._connection.request(method, self._base + path, body, {**self._headers, **headers})
                response = self._connection.getresponse()
                self._used = True
                return response
            except _STALE:
                self.close()
                if is_last:
                    raise
        raise AssertionError("the second time is the last")

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        self._connection.close()
        self._used = False


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body piece by piece; http.client.IncompleteRead where it ends too early (read(n) alone doesn't say so)."""
    left = response.length
    while piece := response.read(_CHUNK):
        left = None if left is None else left - len(piece)
        yield piece
    if left:
        raise http.client.IncompleteRead(b"", left)


class Pool:
    """Connections to one server that wait to be used again, by whichever thread comes next."""

    def __init__(self, server: Server, silence_s: float = SILENCE_S) -> None:
        self.server = server
        self._silence_s = silence_s
        self._idle: SimpleQueue[Wire] = SimpleQueue()

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        """A connection for as long as one needs it."""
        try:
            wire = self._idle.get_nowait()
        except Empty:
            wire = Wire(self.server, self._silence_s)
        try:
            yield wire
        except BaseException:
            wire.close()  # nobody knows how far it got
            raise
        finally:
            self._idle.put(wire)


def _words(error: Exception) -> str:
    """What went wrong, in a few words; an OSError's own may name addresses that the reader knows already."""
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__
