"""Requests to the front door exactly as they are written: no library tidies the path, and the answer is shown bare."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from zambezi.access.tokens import COOKIE, HEADER


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


@dataclass(frozen=True)
class Asker:
    """Somebody at `url`: a token in the cookie or in the header, or none; `address` is where the request comes from."""

    url: str
    cookie: str = ""
    header: str = ""
    address: str = "127.0.0.1"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = self.connection()
        try:
            return self.ask_on(connection, path, method, body, headers)
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        """A connection for several requests."""
        split = urlsplit(self.url)
        return http.client.HTTPConnection(
            split.hostname or "", split.port, timeout=60, source_address=(self.address, 0)
        )

    def ask_on(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One of several requests on one connection."""
        shown = {COOKIE: self.cookie}
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in shown.items() if value), HEADER: self.header}
        connection.request(method, path, body, {**{n: v for n, v in given.items() if v}, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
