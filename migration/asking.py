"""Asking a source over HTTP: an answer, or Trouble of the kind that says what helps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from migration.source import Trouble
from migration.wire import MOST_BYTES, SILENCE_S, Answer, NoAnswer, Pool, Server
from zambezi import retries
from zambezi.retries import ErrorClass

#: No list of a page's length, nor any other JSON, is longer.
MOST_JSON = 256 << 20
_WELL_S = 10.0

#: What a web server says with 400 (nginx, Apache) of how it is spoken with, and what that means for us.
_OF_TLS = (
    (re.compile("plain http request|speaking plain http", re.IGNORECASE),
     "it speaks TLS at this port: write https:// in the Url"),
    (re.compile("no required ssl certificate", re.IGNORECASE),
     "it asks for a certificate of ours: write one into CertificateFile"),
    (re.compile("ssl certificate error", re.IGNORECASE),
     "it does not take our certificate: look at CertificateFile, until when it is good, and whom the source believes"),
)  # fmt: skip


class Refused(Trouble):
    """The source answered with an HTTP error."""

    def __init__(self, kind: ErrorClass, text: str, status: int) -> None:
        # Busy, or a proxy waited in vain (RFC 9110 15.6): what is being fetched from tape there looks like that.
        super().__init__(kind, text, took_long=status in (503, 504))
        self.status = status


class Asking:
    """One source's HTTP server, asked from several threads; `well` is a path that it answers quickly if it is well."""

    def __init__(self, server: Server, well: str, silence_s: float = SILENCE_S) -> None:
        self._pool = Pool(server, silence_s)
        self._well = well
        self.queries = 0

    def answer(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
        of_object: bool = False, most: int = MOST_BYTES,
    ) -> Answer:  # fmt: skip
        """An answer of 2xx; Trouble otherwise. What isn't bytes goes as JSON.

        `of_object`: a fault of the server is that object's, if it is well otherwise, and others may come.
        """
        self.queries += 1
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with self._pool.wire() as wire:
                found = wire.ask(method, path, sent, headers, most=most)
        except NoAnswer as error:
            raise self._trouble(error, of_object) from error
        if not 200 <= found.status < 300:
            raise refused(method, path, found.status, found.text, of_object)
        return found

    def json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON of an answer; None where there is none (204)."""
        found = self.answer(method, path, body, headers, most=MOST_JSON)
        if not found.body.strip():
            return None
        try:
            return json.loads(found.body)
        except ValueError as error:
            words = f"{method} {path}: the source answers with something else than JSON: {found.text[:100]!r}"
            raise Trouble(ErrorClass.CONFIGURATION, words) from error

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[HTTPResponse]:
        """A long answer to GET, read as it comes; Trouble of kind object where it ends too early."""
        self.queries += 1
        try:
            with self._pool.wire() as wire, wire.opened("GET", path, None, headers) as response:
                if response.status not in (200, 206):  # 206: not all of it; what is missing shows
                    text = response.read(1000).decode("utf-8", "replace")
                    raise refused("GET", path, response.status, text, of_object=True)
                yield response
        except NoAnswer as error:
            raise self._trouble(error, of_object=True) from error

    def _trouble(self, error: NoAnswer, of_object: bool) -> Trouble:
        if error.lasting:
            return Trouble(ErrorClass.CONFIGURATION, str(error))
        is_objects = of_object and (error.began or self._is_well())
        return Trouble(ErrorClass.OBJECT if is_objects else ErrorClass.TRANSIENT, str(error))

    def _is_well(self) -> bool:
        """Whether the server answers another question: one object on which it hangs must not stop the rest."""
        try:
            with self._pool.wire() as wire:
                return wire.ask("GET", self._well, seconds=_WELL_S).status == 200
        except NoAnswer:
            return False


def refused(method: str, path: str, status: int, text: str, of_object: bool = False) -> Refused:
    """What an answer other than 2xx means."""
    words = f"{method} {path}: HTTP {status}: {' '.join(text.split())[:200]}"
    kind = retries.of_http(status) or ErrorClass.OBJECT
    if status in (401, 403):
        words += "; the source doesn't let us in: look at its user and password, and at CertificateFile"
    elif status == 400 and (of_tls := [said for found, said in _OF_TLS if found.search(text)]):
        kind, words = ErrorClass.CONFIGURATION, of_tls[0]
    elif 300 <= status < 400:
        kind, words = ErrorClass.CONFIGURATION, f"{words}; it answers from another place: write that one's address"
    elif status == 500 and of_object:
        kind = ErrorClass.OBJECT
    elif kind in (
        ErrorClass.DISK,
        ErrorClass.CONFLICT,
    ):  # a full disk there is not ours; a conflict over reading passes
        kind = ErrorClass.TRANSIENT
    return Refused(kind, words, status)
