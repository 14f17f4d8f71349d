"""One more DICOM peer in the administrator's own file: its comments, its order and every other line stay. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

#: What a peer may be allowed (Orthanc's long form of DicomModalities), by the words that persons use.
RIGHTS = {
    "echo": "AllowEcho", "store": "AllowStore", "worklist": "AllowFindWorklist", "find": "AllowFind",
    "move": "AllowMove", "get": "AllowGet",
}  # fmt: skip
#: What a modality needs.
OF_A_MODALITY = ("echo", "store", "worklist")

SECTION = "DicomModalities"
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|[^\s"/]', re.DOTALL)


class PeersFault(ValueError):
    """The file can't be added to; the text says why and what to do."""


def entry(aet: str, host: str, port: int, allowed: Collection[str]) -> dict[str, Any]:
    """A peer in Orthanc's long form; `allowed` are keys of RIGHTS."""
    rights = {right: word in allowed for word, right in RIGHTS.items()}
    return {"AET": aet, "Host": host, "Port": port, **rights}


def shown(name: str, peer: dict[str, Any]) -> str:
    """The entry as it stands in the file, without a comma."""
    where = ", ".join(f"{json.dumps(key)}: {json.dumps(peer[key])}" for key in ("AET", "Host", "Port"))
    rights = ", ".join(f"{json.dumps(key)}: {json.dumps(peer[key])}" for key in RIGHTS.values())
    return f"    {json.dumps(name)}: {{\n      {where},\n      {rights}\n    }}"


def allowed(peer: Any) -> tuple[str, ...]:
    """What an entry of DicomModalities allows, as keys of RIGHTS; the short form allows everything."""
    if not isinstance(peer, dict):
        return tuple(RIGHTS)
    return tuple(word for word, right in RIGHTS.items() if peer.get(right, True) is True)


def added(text: str, name: str, peer: dict[str, Any]) -> str:
    """The text of a configuration file with one more entry in its DicomModalities; PeersFault where it has none."""
    last, close = _place(text)
    comma = "" if text[last - 1] == "{" else ","
    line = text.rfind("\n", 0, close) + 1
    head = text[:last] + comma
    if line > last and not text[line:close].strip():
        return f"{head}{text[last:line]}{shown(name, peer)}\n{text[line:]}"
    return f"{head}{text[last:close].rstrip()}\n{shown(name, peer)}\n  {text[close:]}"


def _place(text: str) -> tuple[int, int]:
    """Where the last thing within the section ends that is no comment, and where its closing brace stands."""
    depth, before, inside, last = 0, ["", ""], False, 0
    for word, begin, end in _words(text):
        if inside and depth == 2 and word == "}":
            return last, begin
        if word in "{[":
            depth += 1
            if depth == 2 and word == "{" and before == [f'"{SECTION}"', ":"]:
                inside = True
        elif word in "}]":
            depth -= 1
        last, before = end, [before[1], word]
    raise PeersFault(f"it has no {SECTION} object")


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    for found in _TOKEN.finditer(text):
        if not found[0].startswith(("//", "/*")):
            yield found[0], found.start(), found.end()
