"""Reading multipart/related as it comes (RFC 2046 5.1, PS3.18 8.6.1.2): one part at a time in memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message

#: No object is larger.
MOST_BYTES = 2 << 30
_LONGEST_HEADERS = 64 << 10


class Broken(ValueError):
    """The body is not, or not to its end, what its Content-Type says."""


def parts(pieces: Iterator[bytes], content_type: str) -> Iterator[bytes]:
    """The bodies of the parts; a body that isn't multipart is its own only part. Raises Broken."""
    said = Message()
    said["Content-Type"] = content_type
    if said.get_content_maintype() != "multipart":
        yield _Body(pieces).rest()
        return
    boundary = said.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise Broken(f"the answer names no boundary: {content_type[:100]}")
    body, delimiter = _Body(pieces, b"\r\n"), b"\r\n--" + boundary.encode("latin-1", "replace")
    body.until(delimiter, MOST_BYTES)
    while body.exactly(2) != b"--":
        headers = _headers(b"\r\n" + body.until(b"\r\n\r\n", _LONGEST_HEADERS))
        length = headers.get("content-length", "")
        # A length that was said is believed where the next boundary stands behind it.
        said_bytes = int(length) if length.isdecimal() and int(length) <= MOST_BYTES else 0
        yield body.until(delimiter, MOST_BYTES, said_bytes if body.has(delimiter, said_bytes) else 0)


def _headers(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode("latin-1").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines if name.strip()}


class _Body:
    """What has come and wasn't taken yet."""

    def __init__(self, pieces: Iterator[bytes], begin: bytes = b"") -> None:
        self._pieces = pieces
        self._buffer = bytearray(begin)

    def _more(self) -> None:
        if not self._came():
            raise Broken("the answer ends before its last boundary")

    def _came(self) -> bool:
        piece = next(self._pieces, b"")
        self._buffer += piece
        return bool(piece)

    def has(self, expected: bytes, at: int) -> bool:
        """Whether this stands there."""
        while len(self._buffer) < at + len(expected):
            if not self._came():
                return False
        return self._buffer[at : at + len(expected)] == expected

    def _take(self, length: int, and_drop: int = 0) -> bytes:
        taken = bytes(memoryview(self._buffer)[:length])
        del self._buffer[: length + and_drop]
        return taken

    def exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        return self._take(length)

    def until(self, end: bytes, most: int, looked: int = 0) -> bytes:
        """What stands before `end`, which is dropped; it is not within the first `looked` bytes."""
        while (at := self._buffer.find(end, looked)) < 0:
            if len(self._buffer) > most:
                raise Broken(f"a part is longer than {most} bytes")
            looked = max(0, len(self._buffer) - len(end) + 1)
            self._more()
        return self._take(at, len(end))

    def rest(self) -> bytes:
        for piece in self._pieces:
            self._buffer += piece
            if len(self._buffer) > MOST_BYTES:
                raise Broken(f"the answer is longer than {MOST_BYTES} bytes")
        return bytes(self._buffer)
