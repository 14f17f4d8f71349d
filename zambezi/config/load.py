"""Reading orthanc-config/: JSON with comments, environment substitution, every fault at once.

The same rules as Orthanc's own reader: every .json of the folder (not of its sub-folders) is one part of
the configuration, a key at the top level may stand in one file only, `${NAME}` and `${NAME:-default}` are
replaced from the environment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zambezi.config import safety
from zambezi.config.settings import Zambezi

#: Made by `zambezi up` in the snapshot that Orthanc is started with; no part of what an administrator writes.
SECRETS = "99-secrets.json"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: in which file, at which JSON path, what was found and what is allowed."""

    file: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.what}" if self.path else f"{self.file}: {self.what}"


class ConfigurationFaults(Exception):
    """The configuration can't be used; `faults` are all that were found, the text has one a line."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True)
class Configuration:
    """A checked configuration: the whole of it as Orthanc sees it, our typed section, and its hash (hex)."""

    orthanc: dict[str, Any]
    zambezi: Zambezi
    hash: str

    @property
    def modalities(self) -> dict[str, safety.Modality]:
        """Orthanc's DicomModalities, read: AE title, host, port and what each may do."""
        return safety.modalities(self.orthanc)


def load(folder: Path, environ: Mapping[str, str]) -> Configuration:
    """Read and check the folder; raises ConfigurationFaults with every fault that was found."""
    faults: list[Fault] = []
    merged: dict[str, Any] = {}
    where: dict[str, str] = {}
    files = sorted(file for file in folder.glob("*.json") if file.name != SECRETS)
    if not files:
        raise ConfigurationFaults(
            [Fault(str(folder), "", "no .json file here; ZAMBEZI_CONFIG names the folder of JSON")]
        )
    for file in files:
        try:
            part = json.loads(_without_comments(_substituted(file.read_text(encoding="utf-8"), environ)))
        except (OSError, ValueError) as error:
            faults.append(Fault(file.name, "", f"can't be read as JSON: {error}"))
            continue
        if not isinstance(part, dict):
            faults.append(Fault(file.name, "", "found something else than an object { ... }"))
            continue
        for key, value in part.items():
            if key in merged:
                faults.append(Fault(file.name, key, f"stands in {where[key]}, too; Orthanc allows it in one file only"))
            merged[key] = value
            where[key] = file.name
    faults += [
        Fault(where.get(path.split(".")[0].split("[")[0], "orthanc-config"), path, what)
        for path, what in safety.faults(merged)
    ]
    zambezi = Zambezi()
    try:
        zambezi = Zambezi.model_validate(merged.get("Zambezi", {}))
    except ValidationError as error:
        faults += [_typed_fault(where.get("Zambezi", "orthanc-config"), dict(e)) for e in error.errors()]
    else:
        faults += _unknown_peers(where.get("Zambezi", ""), zambezi, merged)
    if faults:
        raise ConfigurationFaults(faults)
    canonical = json.dumps(merged, sort_keys=True, separators=(",", ":")).encode()
    return Configuration(merged, zambezi, hashlib.sha256(canonical).hexdigest())


def _unknown_peers(file: str, zambezi: Zambezi, merged: dict[str, Any]) -> list[Fault]:
    known = merged.get("DicomModalities", {})
    named = [(f"Zambezi.Destinations.{name}", name) for name in zambezi.destinations]
    named += [
        (f"Zambezi.Migration.Sources.{name}.Peer", source.peer) for name, source in zambezi.migration.sources.items()
    ]
    listed = ", ".join(sorted(known)) or "none"
    return [
        Fault(file, path, f'no modality "{name}" in DicomModalities (known: {listed})')
        for path, name in named
        if name not in known
    ]


def _typed_fault(file: str, error: dict[str, Any]) -> Fault:
    path = "Zambezi"
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if error["type"] == "extra_forbidden":
        return Fault(file, path, "no such key; see orthanc-config/README.md for the keys there are")
    if error["type"] == "missing":
        return Fault(file, path, "is missing")
    shown = error.get("input")
    found = f"found {json.dumps(shown, default=str)[:80]}: " if not isinstance(shown, dict) else ""
    return Fault(file, path, found + str(error["msg"]).removeprefix("Value error, "))


def _substituted(text: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = environ.get(name, default)
        if found is None:
            raise ValueError(f"${{{name}}} is not set in the environment and has no default (${{{name}:-...}})")
        return json.dumps(found)[1:-1]

    return _VARIABLE.sub(value, text)


def _without_comments(text: str) -> str:
    return _STRING_OR_COMMENT.sub(lambda m: m.group() if m.group().startswith('"') else "", text)
