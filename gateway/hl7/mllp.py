"""MLLP (HL7 v2.5.1 Implementation Guide, Appendix C): blocks of bytes on a stream.

A frame carries bytes, for only MSH-18 inside says which character set they are in. Linear in what arrives,
whatever a stranger sends; limited in size.
"""

from __future__ import annotations

START = 0x0B
END = 0x1C
CARRIAGE_RETURN = 0x0D


class FrameFault(Exception):
    """The stream holds something else than MLLP within its limits: close it. The text is for the log."""


class Framer:
    """Takes bytes as they arrive, gives back whole messages. A missing 0x0D after 0x1C is tolerated."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._inside = False

    @property
    def is_idle(self) -> bool:
        """Whether no message is half here."""
        return not self._inside

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order; FrameFault for garbage or a message over the limit."""
        self._buffer += data
        whole = []
        while self._begun():
            end = self._buffer.find(END, self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                if len(self._buffer) > self._limit:
                    raise FrameFault(f"a message of more than {self._limit} bytes")
                break
            if end > self._limit:
                raise FrameFault(f"a message of more than {self._limit} bytes")
            whole.append(bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._inside, self._searched = False, 0
        return whole

    def _begun(self) -> bool:
        if not self._inside:
            stripped = self._buffer.lstrip(b"\r\n \t")
            if not stripped:
                self._buffer.clear()
                return False
            if stripped[0] != START:
                raise FrameFault("bytes outside of an MLLP block")
            self._buffer = stripped[1:]
            self._inside, self._searched = True, 0
        return True


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return bytes([START]) + message + bytes([END, CARRIAGE_RETURN])
