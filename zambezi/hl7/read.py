"""Reading a message as senders really write it: any line ends, a wrong character set, missing fields.

python-hl7 splits the message; what it is given is normalised first, and un-escaping is done here, because its
own drops what it can't map and writes whole fields into the log.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import hl7

#: MSH-18 as it is met in the wild (HL7 table 0211 and senders' inventions), and Python's codec.
CODECS: dict[str, str] = {
    "ASCII": "ascii", "44|ASCII": "ascii", "ISO IR6": "ascii", "ISO_IR 6": "ascii",
    "8859/1": "latin-1", "8859-1": "latin-1", "ISO-8859-1": "latin-1", "ISO8859-1": "latin-1", "ISO_IR 100": "latin-1",
    "LATIN1": "latin-1", "8859/2": "iso8859-2", "8859/9": "iso8859-9", "8859/15": "iso8859-15",
    "ISO-8859-15": "iso8859-15", "WINDOWS-1252": "cp1252", "CP1252": "cp1252", "ANSI": "cp1252",
    "UNICODE UTF-8": "utf-8", "UNICODE": "utf-8", "UTF-8": "utf-8", "UTF8": "utf-8", "ISO_IR 192": "utf-8",
}  # fmt: skip

_PATH = re.compile(r"^([A-Z][A-Z0-9]{2})-(\d+)(?:\[(\d+)\])?(?:\.(\d+))?(?:\.(\d+))?$")
_LINE_ENDS = re.compile(rb"\r\n|\n|\r")

#: python-hl7 warns with the field's text, which is a patient's; nothing of it belongs into a log.
logging.getLogger("hl7").setLevel(logging.ERROR)


class Unreadable(ValueError):
    """These bytes are no HL7 message; the text says why, without quoting them."""


@dataclass(frozen=True)
class Reading:
    """A message that was read: `encoding` is the codec that fitted, `guessed` if the sender hadn't declared it."""

    encoding: str
    declared: str
    guessed: bool
    segments: tuple[Any, ...]

    def get(self, path: str) -> str:
        """The text at `OBR-18`, `ZDS-1.1` or `PID-3[1].4.1` (all count from 1), un-escaped; "" where nothing is.

        The first segment of that name counts; a repetition, component or sub-component that isn't named is the first.
        """
        return self._unescaped(self._raw(path))

    def lines(self, path: str) -> list[str]:
        """The text at a path without [..], for every segment of that name and each of its repetitions."""
        name, number, *_ = _parts(path)
        return [
            self._unescaped(str(repetition))
            for segment in self.segments
            if str(segment[0]) == name and number < len(segment)
            for repetition in segment[number]
        ]

    def observations(self) -> list[tuple[str, list[str]]]:
        """Of every OBX: the type of its value (OBX-2), and each repetition of the value (OBX-5), un-escaped."""
        return [
            (str(segment[2]), [self._unescaped(str(repetition)) for repetition in segment[5]])
            for segment in self.segments
            if str(segment[0]) == "OBX" and len(segment) > 5
        ]

    def repetitions(self, path: str) -> int:
        """How many repetitions the field has, in the first segment of that name."""
        name, number, *_ = _parts(path)
        segment = self._segment(name)
        return len(segment[number]) if segment is not None and number < len(segment) else 0

    def is_null(self, path: str) -> bool:
        """Whether the sender wrote `""` there: take away what you have (HL7 v2.5.1, 2.5.3)."""
        return self._raw(path) == '""'

    def has(self, name: str) -> bool:
        return self._segment(name) is not None

    @cached_property
    def kind(self) -> str:
        """Message type and event, such as ORM^O01."""
        return f"{self.get('MSH-9.1')}^{self.get('MSH-9.2')}"

    @property
    def control_id(self) -> str:
        return self.get("MSH-10")

    def orders(self) -> list[Reading]:
        """One reading for each ORC (each OBR, where there is no ORC), with what stands before the first of them."""
        return self._split("ORC" if self.has("ORC") else "OBR")

    def patients(self) -> list[Reading]:
        """One reading for each PID, with what stands before the first of them (a merge message may hold several)."""
        return self._split("PID")

    def _split(self, opener: str) -> list[Reading]:
        starts = [n for n, segment in enumerate(self.segments) if str(segment[0]) == opener]
        ends = [*starts[1:], len(self.segments)]
        head = self.segments[: starts[0]] if starts else ()
        return [
            replace(self, segments=head + self.segments[begin:end]) for begin, end in zip(starts, ends, strict=False)
        ]

    def _segment(self, name: str) -> Any | None:
        return next((segment for segment in self.segments if str(segment[0]) == name), None)

    def _raw(self, path: str) -> str:
        name, number, repetition, component, part = _parts(path)
        segment = self._segment(name)
        if segment is None or number >= len(segment):
            return ""
        return str(_at(_at(_at(segment[number], repetition), component), part))

    def _unescaped(self, text: str) -> str:
        message = self.segments[0]
        separators = str(message[2])
        escape = separators[2:3] or "\\"
        names = {"F": str(message[1]), "E": escape, ".br": "\n", ".sp": "\n", ".ce": "\n", "H": "", "N": ""}
        names |= dict(zip("SRET", separators, strict=False))

        def meant(match: re.Match[str]) -> str:
            name = match.group(1)
            if name in names:
                return names[name]
            if name.startswith("X"):
                try:
                    return bytes.fromhex(name[1:]).decode(self.encoding)
                except ValueError:
                    return match.group()
            return match.group()

        mark = re.escape(escape)
        return "" if text == '""' else re.sub(f"{mark}([^{mark}]*){mark}", meant, text)


def read(raw: bytes) -> Reading:
    """Read a message; Unreadable where there is no MSH or its delimiters make no sense."""
    start = raw.find(b"MSH")
    if start < 0:
        raise Unreadable("there is no MSH segment in it")
    # PostgreSQL keeps no NUL in text, and no sender means one.
    lines = [line.strip(b"\x0b\x1c") for line in _LINE_ENDS.split(raw[start:].replace(b"\x00", b""))]
    normal = b"\r".join(line for line in lines if line.strip())
    _check_delimiters(normal)
    declared = _declared(normal)
    text, encoding, guessed = _decoded(normal, declared)
    try:
        message = hl7.parse(text)
    except (hl7.HL7Exception, IndexError, ValueError, AssertionError) as error:
        raise Unreadable(f"its segments can't be told apart ({type(error).__name__})") from None
    segments = tuple(segment for segment in message if str(segment[0]))
    if not segments or len(segments[0]) < 3:
        raise Unreadable("its MSH segment ends before the delimiters")
    return Reading(encoding, declared, guessed, segments)


def _check_delimiters(normal: bytes) -> None:
    header = normal.split(b"\r", 1)[0]
    delimiters = header[3:4] + header[4:].split(header[3:4] or b"|")[0]
    if len(delimiters) < 2 or len(set(delimiters)) != len(delimiters) or len(delimiters) > 6:
        raise Unreadable("its delimiters (MSH-1 and MSH-2) are missing or the same")
    if not all(33 <= byte < 127 and not chr(byte).isalnum() for byte in delimiters):
        raise Unreadable("its delimiters (MSH-1 and MSH-2) are letters, digits or no characters at all")


def _declared(normal: bytes) -> str:
    header = normal.split(b"\r", 1)[0]
    separator = header[3:4]
    fields = header.split(separator) if separator else []
    first = fields[17] if len(fields) > 17 else b""
    repeat = header[5:6]
    return (first.split(repeat)[0] if repeat else first).decode("latin-1").strip()


def _decoded(normal: bytes, declared: str) -> tuple[str, str, bool]:
    """The text, the codec that fitted, and whether that is another one than the sender declared."""
    codec = CODECS.get(declared.upper())
    # Every sequence of bytes is valid in a one-byte codec, but accents in one are never valid UTF-8.
    tried = [codec] if codec in ("utf-8", "ascii") else ["utf-8", codec] if codec else ["utf-8"]
    ascii_only = normal.isascii()
    for candidate in [*tried, "utf-8", "cp1252"]:
        try:
            text = normal.decode(candidate)
        except UnicodeDecodeError:
            continue
        right = ascii_only or candidate == codec or (codec is None and candidate == "utf-8")
        return text, codec if ascii_only and codec else candidate, not right
    return normal.decode("latin-1"), "latin-1", True


def _parts(path: str) -> tuple[str, int, int, int, int]:
    match = _PATH.match(path)
    if match is None:
        raise ValueError(f"{path!r} is no HL7 path such as OBR-18, ZDS-1.1 or PID-3[1].4.1")
    name, *numbers = match.groups()
    field, repetition, component, part = (int(n) if n else 1 for n in numbers)
    return name, field, repetition, component, part


def _at(node: Any, place: int) -> Any:
    if isinstance(node, str):
        return node if place == 1 else ""
    return node[place - 1] if 0 < place <= len(node) else ""
