"""Reading orthanc-config/: JSON with comments, environment substitution, every fault at once.

The same rules as Orthanc's own reader: every .json of the folder (not of its sub-folders) is one part of
the configuration, a key at the top level may stand in one file only, `${NAME}` and `${NAME:-default}` are
replaced from the environment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zambezi.attributes import nearest
from zambezi.config import safety
from zambezi.config.settings import NamesUnknown, Zambezi

#: Orthanc's users, which `zambezi up` adds to the copy that Orthanc is started with; no part of the configuration.
SECRETS_FILE = "99-secrets.json"

#: In a fault, in place of the file: rules that are only tried.
TRIED = "the rules to try"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
#: Loopback addresses that stand for a certificate (docker/nginx/dicom-tls.conf).
_TLS_HOST = re.compile(r"127\.0\.10\.([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-4])")
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
    def authorities(self) -> str:
        """The file of certificates that neighbours' servers are checked against (PEM); "": the system's authorities."""
        return str(self.orthanc.get("HttpsCACertificates", ""))

    @property
    def index_is_postgresql(self) -> bool:
        """Whether Orthanc's index lies in PostgreSQL (else it is SQLite, in ZAMBEZI_HOME)."""
        return safety.index_is_postgresql(self.orthanc)

    @property
    def modalities(self) -> dict[str, safety.Modality]:
        """Orthanc's DicomModalities, read: AE title, host, port and what each may do."""
        return safety.modalities(self.orthanc)

    @property
    def orthanc_peers(self) -> dict[str, safety.OrthancPeer]:
        """Orthanc's OrthancPeers, read: where each is and how one signs in there."""
        return {name: safety.orthanc_peer(entry) for name, entry in self.orthanc.get("OrthancPeers", {}).items()}

    @property
    def dicomweb_servers(self) -> dict[str, safety.OrthancPeer]:
        """DicomWeb.Servers, read: where each is and how one signs in there."""
        servers = self.orthanc.get("DicomWeb", {}).get("Servers", {})
        return {name: safety.orthanc_peer(entry) for name, entry in servers.items()}


def load(folder: Path, environ: Mapping[str, str], instead: Mapping[str, Any] | None = None) -> Configuration:
    """Read and check the folder; raises ConfigurationFaults with every fault that was found.

    `instead` are keys of the Zambezi section that are to be tried in place of those in the folder.
    """
    faults: list[Fault] = []
    merged: dict[str, Any] = {}
    where: dict[str, str] = {}
    files = sorted(file for file in folder.glob("*.json") if file.name != SECRETS_FILE)
    if not files:
        raise ConfigurationFaults(
            [Fault(str(folder), "", "no .json file here; ZAMBEZI_CONFIG names the folder of JSON")]
        )
    for file in files:
        part, found = _read(file, environ)
        faults += found
        for key, value in part.items():
            if key in merged:
                faults.append(Fault(file.name, key, f"stands in {where[key]}, too; Orthanc allows it in one file only"))
            merged[key] = value
            where[key] = file.name
    if instead is not None:
        merged["Zambezi"] = {**merged.get("Zambezi", {}), **instead}
        where["Zambezi"] = TRIED
    faults += [
        Fault(where.get(path.split(".")[0].split("[")[0], "orthanc-config"), path, what)
        for path, what in safety.faults(merged)
    ]
    zambezi = Zambezi()
    try:
        # Strict, as JSON: "30" is no number and 1 is no true, here as in the schema that editors use.
        zambezi = Zambezi.model_validate_json(json.dumps(merged.get("Zambezi", {})), strict=True)
    except ValidationError as error:
        for e in error.errors():
            faults += typed_faults(where.get("Zambezi", "orthanc-config"), dict(e))
    else:
        faults += _unknown_peers(where.get("Zambezi", ""), zambezi, merged)
        faults += _tls_faults(where.get("Zambezi", ""), zambezi, merged)
    if faults:
        raise ConfigurationFaults(faults)
    canonical = json.dumps(merged, sort_keys=True, separators=(",", ":")).encode()
    return Configuration(merged, zambezi, hashlib.sha256(canonical).hexdigest())


def read_part(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """One file of JSON with comments, as it would count in the folder; raises ConfigurationFaults."""
    part, faults = _read(file, environ)
    if faults:
        raise ConfigurationFaults(faults)
    return part


def _unknown_peers(file: str, zambezi: Zambezi, merged: dict[str, Any]) -> list[Fault]:
    known = merged.get("DicomModalities", {})
    others = sorted(merged.get("OrthancPeers", {}))
    faults = [
        Fault(file, f"Zambezi.Destinations.{name}", f'no Orthanc "{name}" in OrthancPeers (known: {_listed(others)})')
        for name, one in zambezi.destinations.items()
        if one.kind == "peer" and name not in others
    ]
    named = [
        (f"Zambezi.Destinations.{name}", name) for name, one in zambezi.destinations.items() if one.kind == "dicom"
    ]
    named += [(f"Zambezi.PriorSources.{name}", name) for name in zambezi.prior_sources]
    faults += _unknown_sources(file, zambezi, merged)
    named += [(f"Zambezi.DicomTls.Certificates.{name}", name) for name in zambezi.dicom_tls.certificates]
    named += [(f"Zambezi.Admission.Peers.{name}", name) for name in zambezi.admission.peers]
    faults += [
        Fault(
            file, f"Zambezi.PriorSources.{name}",
            "its entry in DicomModalities has AllowStore false, so it could not send here what is fetched",
        )
        for name, source in zambezi.prior_sources.items()
        if source.retrieve == "move"
        and isinstance(peer := known.get(name), dict)
        and peer.get("AllowStore") is False
    ]  # fmt: skip
    listed = _listed(known)
    return faults + [
        Fault(file, path, f'no modality "{name}" in DicomModalities (known: {listed}){nearest(name, known)}')
        for path, name in named
        if name not in known
    ]


#: Where the peer of a migration's source is written, by the source's kind, and what it is there.
_WRITTEN = {
    "dicom": (("DicomModalities",), "modality"),
    "orthanc": (("OrthancPeers",), "Orthanc"),
    "dicomweb": (("DicomWeb", "Servers"), "server"),
}


def _unknown_sources(file: str, zambezi: Zambezi, merged: dict[str, Any]) -> list[Fault]:
    faults = []
    for name, source in zambezi.migration.sources.items():
        if source.kind == "folder":
            continue
        sections, what = _WRITTEN[source.kind]
        known: Any = merged
        for section in sections:
            known = known.get(section, {}) if isinstance(known, dict) else {}
        if source.peer not in known:
            words = f'no {what} "{source.peer}" in {".".join(sections)} (known: {_listed(known)})'
            path = f"Zambezi.Migration.Sources.{name}.Peer"
            faults.append(Fault(file, path, words + nearest(source.peer, known)))
        elif isinstance(known[source.peer], dict) and known[source.peer].get("Pkcs11"):
            path, words = f"{'.'.join(sections)}.{source.peer}.Pkcs11", "found true; a source is shown a certificate "
            faults.append(Fault(file, path, words + "from files: CertificateFile and CertificateKeyFile"))
    return faults


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _tls_faults(file: str, zambezi: Zambezi, merged: dict[str, Any]) -> list[Fault]:
    """Each peer with a certificate has an address of its own, which nobody but the front door comes from."""
    faults: list[Fault] = []
    hosts: dict[str, list[str]] = {}
    prints: dict[str, list[str]] = {}
    for name, peer in merged.get("DicomModalities", {}).items():
        host = peer.get("Host") if isinstance(peer, dict) else peer[1] if len(peer) > 1 else None
        hosts.setdefault(str(host), []).append(name)
    for name, fingerprint in zambezi.dicom_tls.certificates.items():
        prints.setdefault(fingerprint.replace(":", "").lower(), []).append(name)
        host = next((host for host, names in hosts.items() if name in names), "")
        if host and not _TLS_HOST.fullmatch(host):
            what = f"found Host {host!r} in DicomModalities, allowed is 127.0.10.1 to 127.0.10.254: it stands for the "
            faults.append(Fault(file, f"Zambezi.DicomTls.Certificates.{name}", what + "certificate"))
        elif len(hosts.get(host, [])) > 1:
            what = f"its Host {host} in DicomModalities belongs to {', '.join(hosts[host])}; each needs its own"
            faults.append(Fault(file, f"Zambezi.DicomTls.Certificates.{name}", what))
    for names in prints.values():
        if len(names) > 1:
            what = f"{', '.join(names)} have the same certificate; each needs its own"
            faults.append(Fault(file, "Zambezi.DicomTls.Certificates", what))
    return faults


def typed_faults(file: str, error: dict[str, Any], root: str = "Zambezi") -> list[Fault]:
    """What pydantic found wrong, by JSON path, with what was found and what is allowed."""
    path = root
    for step in error["loc"]:
        if step != "[key]":
            path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if error["type"] == "extra_forbidden":
        return [Fault(file, path, "no such key; see orthanc-config/README.md for the keys there are")]
    if error["type"] == "missing":
        return [Fault(file, path, "is missing")]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, NamesUnknown):
        return [Fault(file, f"{path}.{where}", what) for where, what in cause.faults]
    shown = error.get("input")
    found = f"found {json.dumps(shown, default=str)[:80]}: " if not isinstance(shown, dict) else ""
    said = str(error["msg"]).removeprefix("Value error, ").replace("Tuple", "List").replace(" after validation", "")
    return [Fault(file, path, found + said)]


def _read(file: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """One file's object, and what is wrong with it as JSON."""
    faults: list[Fault] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in sorted({name for name in names if names.count(name) > 1}):
            faults.append(Fault(file.name, name, "stands twice in one object; only one of them would count"))
        return dict(pairs)

    try:
        text = _without_comments(file.read_text(encoding="utf-8"))
        for name in sorted({m.group(1) for m in _VARIABLE.finditer(text) if m.group(2) is None} - environ.keys()):
            faults.append(
                Fault(file.name, "", f"${{{name}}} is not set in the environment and has no default (${{{name}:-...}})")
            )
        part = json.loads(_substituted(text, environ), object_pairs_hook=once)
    except (OSError, ValueError) as error:
        return {}, [*faults, Fault(file.name, "", f"can't be read as JSON: {error}")]
    if not isinstance(part, dict):
        return {}, [*faults, Fault(file.name, "", "found something else than an object { ... }")]
    return part, faults


def _substituted(text: str, environ: Mapping[str, str]) -> str:
    # Orthanc puts nothing where a variable is missing; we have said so above and go on to find the other faults.
    return _VARIABLE.sub(lambda m: json.dumps(environ.get(m.group(1), m.group(2) or ""))[1:-1], text)


def _without_comments(text: str) -> str:
    """Comments become blanks, their line ends stay: an error's line is the file's line."""

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _STRING_OR_COMMENT.sub(blank, text)
