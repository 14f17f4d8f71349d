"""What the gateway pushes into the plugin: whole snapshots with a generation number, each in a file of its own.

The plugin answers from these copies: with RIS, gateway and database gone, worklist, announced studies and
revocations are what they were. An older generation than the one at hand is ignored. A snapshot is on disk
before it counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from plugins.readiness import Sign
from zambezi import causes, durable
from zambezi.causes import Because

Content = TypeVar("Content")


class SnapshotRefused(ValueError):
    """The snapshot can't be used; the one at hand stays. The text says what is wrong."""


class Pushed(Generic[Content]):
    """The last snapshot of one kind. `read` checks a pushed document and makes of it what is asked for later."""

    def __init__(self, file: Path, empty: Content, read: Callable[[dict[str, Any]], Content]) -> None:
        self._file = file
        self._read = read
        self._lock = threading.Lock()
        self.generation = 0
        self.content = empty
        if file.exists():
            self.generation, self.content = self._checked(json.loads(file.read_bytes()))

    def put(self, document: Any) -> int:
        """Take a snapshot unless it is older than the one at hand; the generation that holds now."""
        generation, content = self._checked(document)
        with self._lock:
            if generation > self.generation:
                durable.replace(self._file, json.dumps(document).encode())
                self.generation, self.content = generation, content
            return self.generation

    def _checked(self, document: Any) -> tuple[int, Content]:
        if not isinstance(document, dict) or not isinstance(document.get("generation"), int):
            raise SnapshotRefused('found something else than {"generation": number, ...}')
        return document["generation"], self._read(document)


@dataclass(frozen=True)
class Announced:
    """Causes that were announced, by Study Instance UID and by SOP Instance UID."""

    studies: Mapping[str, Because] = field(default_factory=dict)
    instances: Mapping[str, Because] = field(default_factory=dict)
    #: Whether images of any of these studies are changed as they come: without that nobody reads what comes.
    is_changing: bool = False


def announced(document: dict[str, Any]) -> Announced:
    """Causes by UID: {"studies": {uid: {"cause", "reference"}}, "instances": {...}}."""
    if not isinstance(document.get("studies"), dict):
        raise SnapshotRefused('"studies" is missing')
    studies = _announced(document, "studies")
    return Announced(studies, _announced(document, "instances"), any(one.changes for one in studies.values()))


def _announced(document: dict[str, Any], kind: str) -> dict[str, Because]:
    told: dict[str, Because] = {}
    for uid, one in document.get(kind, {}).items():
        # A file of the first version has the cause alone, and no instances.
        said = {"cause": one} if isinstance(one, str) else one
        if not isinstance(said, dict) or said.get("cause") not in causes.ALL:
            raise SnapshotRefused(f"{kind}, {uid}: found {one!r}, allowed causes: {', '.join(causes.ALL)}")
        reference = str(said.get("reference", ""))
        # An order that says nothing of its priority is one of many: the gateway leaves it out.
        usual = "ROUTINE" if reference.startswith("order ") else ""
        told[uid] = Because(
            said["cause"], reference, str(said.get("sha256", "")), str(said.get("priority", usual)), _changes(uid, said)
        )
    return told


def _changes(uid: str, said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    changes = said.get("changes", {})
    if not isinstance(changes, dict) or not all(isinstance(value, str) for value in changes.values()):
        raise SnapshotRefused(f'studies, {uid}: "changes" must be texts by DICOM keyword')
    return tuple(sorted(changes.items()))


def ready(document: dict[str, Any]) -> Mapping[str, Mapping[str, Sign]]:
    """Signs that a study is complete: {"studies": {uid: {"mpps": {"at", "instances"}, "commitment": ...}}}."""
    studies = document.get("studies")
    if not isinstance(studies, dict):
        raise SnapshotRefused('"studies" is missing')
    try:
        return {
            uid: {by: Sign(str(one["at"]), one.get("instances")) for by, one in signs.items()}
            for uid, signs in studies.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise SnapshotRefused(f"studies: {type(error).__name__}: {error}") from error


def revocations(document: dict[str, Any]) -> frozenset[str]:
    """Sessions whose tokens are refused although they have not expired."""
    sessions = document.get("sessions")
    if not isinstance(sessions, dict):
        raise SnapshotRefused('"sessions" is missing')
    return frozenset(sessions)


def worklist(document: dict[str, Any]) -> dict[str, list[bytes]]:
    """Worklist items (DICOM files) by the AE title that may see them."""
    entries = document.get("entries")
    if not isinstance(entries, list):
        raise SnapshotRefused('"entries" is missing')
    items: dict[str, list[bytes]] = {}
    for n, entry in enumerate(entries):
        try:
            item = base64.b64decode(entry["dicom"], validate=True)
            aets = [str(aet) for aet in entry["aets"]]
        except (KeyError, TypeError, binascii.Error) as error:
            raise SnapshotRefused(f"entries[{n}]: {type(error).__name__}: {error}") from error
        if item[128:132] != b"DICM":
            raise SnapshotRefused(f"entries[{n}].dicom is not a DICOM file")
        for aet in aets:
            items.setdefault(aet, []).append(item)
    return items
