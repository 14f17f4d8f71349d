"""What a CSV file is written in: its encoding and its delimiter, found out from the whole file in bounded memory."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 20
#: Letters beyond ASCII that Portuguese and its neighbours write; an encoding under which they appear is the likelier.
_LETTERS = frozenset("áàâãäçéèêíîóôõöúüñÁÀÂÃÄÇÉÈÊÍÎÓÔÕÖÚÜÑºª°–’“”€")
#: Old systems' encodings: Windows, DOS as it was sold in Portugal and elsewhere, Unix.
_ONE_BYTE = ("cp1252", "cp850", "latin-1")
DELIMITERS = ",;\t|"
#: Records that are looked at for the delimiter.
_LOOKED_AT = 200


@dataclass(frozen=True)
class Found:
    """What a file is written in, and why we think so. `is_sure` is False where a person should look at the accents."""

    encoding: str
    delimiter: str
    because: str
    is_sure: bool
    is_given: bool = False


def detect(path: Path, encoding: str = "", delimiter: str = "") -> Found:
    """What is not given is found out. LookupError for an encoding that Python doesn't know."""
    if encoding:
        found, because, sure = codecs.lookup(encoding).name, "as the mapping says", True
    else:
        found, because, sure = _encoding(path)
    return Found(found, delimiter or _delimiter(path, found), because, sure, is_given=bool(encoding))


def _encoding(path: Path) -> tuple[str, str, bool]:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", "its byte order mark says UTF-8", True
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "its byte order mark says UTF-16", True
    high, is_utf8 = _bytes_above_ascii(path)
    if not high:
        return "utf-8", "every byte is ASCII", True
    if is_utf8:
        return "utf-8", f"{high.total()} bytes beyond ASCII, all of them valid UTF-8", True
    scores = {name: _score(high, name) for name in _ONE_BYTE}
    best = max(_ONE_BYTE, key=lambda name: scores[name])
    said = ", ".join(f"{name} {score:.0%}" for name, score in scores.items())
    return best, f"no UTF-8; share of bytes beyond ASCII that would be letters: {said}", scores[best] > 0.9


def _bytes_above_ascii(path: Path) -> tuple[Counter[int], bool]:
    high: Counter[int] = Counter()
    decoder, is_utf8 = codecs.getincrementaldecoder("utf-8")(), True
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            high.update(piece.translate(None, bytes(range(128))))
            is_utf8 = is_utf8 and _fits(decoder, piece, final=False)
    return high, is_utf8 and _fits(decoder, b"", final=True)


def _fits(decoder: codecs.IncrementalDecoder, piece: bytes, final: bool) -> bool:
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        return False
    return True


def _score(high: Counter[int], name: str) -> float:
    good = sum(count for byte, count in high.items() if bytes([byte]).decode(name, "replace") in _LETTERS)
    return good / high.total()


def _delimiter(path: Path, encoding: str) -> str:
    """The character that cuts the first records into the most columns, the same number in nearly each."""
    with path.open("rb") as file:
        raw = file.read(_PIECE)
    text = raw.decode(encoding, "replace")
    if len(raw) == _PIECE:
        text = text.rpartition("\n")[0] or text
    best, most = ",", 0.0
    for candidate in DELIMITERS:
        try:
            rows = [row for row, _n in zip(csv.reader(io.StringIO(text, newline=""), delimiter=candidate),
                                           range(_LOOKED_AT), strict=False) if row]  # fmt: skip
        except csv.Error:
            continue
        if not rows:
            continue
        (width, often), *_ = Counter(map(len, rows)).most_common(1)
        worth = (width - 1) * often / len(rows)
        if worth > most:
            best, most = candidate, worth
    return best
