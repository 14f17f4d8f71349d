"""Rows of HL7 v2 files: batches (FHS, BHS, BTS, FTS; HL7 v2.5.1, 2.10.3) or messages one after the other.

A message may hold several rows: one for each order (ORC/OBR group), one for its patient. A row's columns are the
paths that the mapping names, and for reports `text` (OBX-5 of text types, in order) and `document` (encapsulated data).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from migration.records.mapping import Kind
from migration.records.rows import Raw, Value
from zambezi.hl7.read import Reading, Unreadable, read

_PIECE = 1 << 20
#: A message that is longer is no message: its begin is kept, and it is listed.
LONGEST_MESSAGE = 64 << 20
#: Where something else begins: a message, or an envelope's segment.
_BEGINS = re.compile(rb"(?:^|[\r\n\x0b\x1c]+)(?=(?:MSH|FHS|BHS|BTS|FTS)[^A-Za-z0-9\s])")
_TEXT = ("TX", "FT", "ST", "CE", "CWE")
_MESSAGES = {"patient": ("ADT", "ORM", "ORU", "OMG", "OMI", "SIU"), "exam": ("ORM", "ORU", "OMG", "OMI"),
             "report": ("ORU", "MDM")}  # fmt: skip


def rows(file: Path, kind: Kind, columns: Sequence[str], facts: dict[str, Any]) -> Iterator[Raw]:
    """Each row of this kind, in the order of the file; what is no message, and a wrong count, is told as well."""
    counted = announced = 0
    for number, (offset, raw) in enumerate(_pieces(file), 1):
        place = f"{file.name}: message {number} at byte {offset}"
        if raw[:3] == b"BTS":
            announced += _number(raw)
        if raw[:3] in (b"FHS", b"BHS", b"BTS", b"FTS"):
            continue
        counted += 1
        try:
            reading = read(raw)
        except Unreadable as error:
            yield Raw(place, {"message": raw.replace(b"\0", b"").decode("latin-1")}, f"it is no HL7 message: {error}")
            continue
        if reading.get("MSH-9.1") in _MESSAGES[kind]:
            yield from _of_message(reading, kind, columns, place, raw)
        _note(facts, file.name, reading)
    facts.setdefault("messages", {})[file.name] = counted
    if announced and announced != counted:
        facts.setdefault("doubts", []).append(
            f"{file.name}: its batches announce {announced} messages (BTS-1), {counted} are there"
        )


def _of_message(reading: Reading, kind: Kind, columns: Sequence[str], place: str, raw: bytes) -> Iterator[Raw]:
    if kind == "patient":
        parts = reading.patients()
    else:
        parts = [part for part in reading.orders() if part.has("OBR")]
    if kind == "report":
        parts = [part for part in parts if part.has("OBX")]
    for n, part in enumerate(parts, 1):
        values: dict[str, Value] = {name: _column(part, name) for name in columns}
        values["message"] = raw.decode(reading.encoding, "replace")
        yield Raw(f"{place}, part {n}" if len(parts) > 1 else place, values)


def _column(part: Reading, name: str) -> Value:
    if name == "text":
        return _text(part)
    if name == "document":
        return _document(part)
    return part.get(name)


def _text(part: Reading) -> str:
    """Every line of every observation that is text, in order; formatted text's line ends are meant (2.7.6)."""
    lines = []
    for kind, values in part.observations():
        if kind in _TEXT:
            coded = kind in ("CE", "CWE")
            lines += [value.split("^")[1] if coded and "^" in value else value for value in values]
    return "\n".join(lines).strip("\n")


def _document(part: Reading) -> bytes:
    """The first encapsulated data (ED, 2A.24) that is base64."""
    for kind, values in part.observations():
        parts = values[0].split("^") if kind == "ED" and values else []
        if len(parts) >= 5 and parts[3].strip().casefold() == "base64":
            try:
                return base64.b64decode("".join(parts[4].split()), validate=True)
            except (binascii.Error, ValueError):
                return b""
    return b""


def _pieces(file: Path) -> Iterator[tuple[int, bytes]]:
    """What stands between one begin and the next, with its offset."""
    rest, offset = b"", 0
    with file.open("rb") as opened:
        while True:
            piece = opened.read(_PIECE)
            rest += piece
            starts = [match.end() for match in _BEGINS.finditer(rest)]
            is_last = not piece
            # The last begin may be of a message that goes on in the next piece.
            for begin, end in zip(starts, [*starts[1:], len(rest)] if is_last else starts[1:], strict=False):
                yield offset + begin, rest[begin:end].strip(b"\r\n\x0b\x1c")
            if is_last:
                if not starts and rest.strip():
                    yield offset, rest
                return
            if starts:
                # Kept with the line end before it: what begins in the midst of a line is no begin.
                offset, rest = offset + starts[-1], rest[starts[-1] :]
            if len(rest) > LONGEST_MESSAGE:
                yield offset, rest[:_PIECE]
                offset, rest = offset + len(rest), b""


def _number(raw: bytes) -> int:
    field = raw[4:].split(raw[3:4])[0] if len(raw) > 4 else b""
    return int(field) if field.isdigit() else 0


def _note(facts: dict[str, Any], name: str, reading: Reading) -> None:
    seen = facts.setdefault("files", {}).setdefault(name, {"encodings": {}})["encodings"]
    word = reading.encoding + (" (not what it declares)" if reading.guessed else "")
    seen[word] = seen.get(word, 0) + 1
