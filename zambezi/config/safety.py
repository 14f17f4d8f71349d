"""What Orthanc's own configuration must say for an archive that loses nothing and is closed to strangers.

Each rule is a line in orthanc-config/README.md with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Modality:
    """A DICOM peer as Orthanc's DicomModalities names it."""

    name: str
    aet: str
    host: str
    port: int
    may_store: bool = True


@dataclass(frozen=True)
class ClientCertificate:
    """What we show of ourselves where a server asks for it: PEM files, the key's in the certificate's if not named."""

    file: str
    key_file: str = ""
    key_password: str = ""


@dataclass(frozen=True)
class OrthancPeer:
    """A server as OrthancPeers or DicomWeb.Servers names it; without a user nobody signs in there.

    `headers` go with every request.
    """

    url: str  # without a slash at its end
    user: str = ""
    password: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    certificate: ClientCertificate | None = None


#: Path (a dot leads into an object), the one value that is allowed, and why.
REQUIRED: tuple[tuple[str, Any, str], ...] = (
    (
        "SslEnabled",
        False,
        "Debian's Orthanc crashes at the first request to its own HTTPS; TLS belongs in the front door",
    ),
    ("DicomTlsEnabled", False, "Orthanc's own DICOM TLS accepts TLS 1.0; TLS ends at the front door"),
    ("RemoteAccessAllowed", False, "only the front door and our own processes, on loopback, speak HTTP with Orthanc"),
    ("AuthenticationEnabled", True, "the first of the two locks"),
    ("MaximumStorageMode", "Reject", "Recycle deletes the oldest patient when the disk limit is reached"),
    (
        "MaximumStorageSize",
        0,
        "before version 1.11.3 Orthanc deletes the oldest patient at the limit, whatever the mode",
    ),
    ("MaximumPatientCount", 0, "the same: the oldest patient would be deleted"),
    ("OverwriteInstances", False, "a second copy must never replace the first silently"),
    ("SynchronousCMove", True, "otherwise a requester is told that images arrived before they did"),
    ("StableAge", 60, "our own completeness clock decides; one known value keeps Orthanc's events comparable"),
    ("StorageCompression", False, "files stay the bytes that were received"),
    ("SyncStorageArea", True, "an image must be on disk before it is answered Success: a power cut loses it otherwise"),
    ("StoreMD5ForAttachments", True, "integrity checks rest on it"),
    ("DicomAlwaysAllowStore", False, "an unknown AE title must not store"),
    ("DicomAlwaysAllowFind", False, "an unknown AE title must not query"),
    ("DicomAlwaysAllowFindWorklist", False, "an unknown AE title must not get a worklist"),
    ("DicomAlwaysAllowGet", False, "an unknown AE title must not retrieve"),
    ("DicomAlwaysAllowMove", False, "an unknown AE title must not retrieve"),
    ("DicomAlwaysAllowEcho", False, "an unknown AE title learns nothing"),
    ("DicomCheckCalledAet", True, "a sender that meant another archive is told so"),
    ("DicomCheckModalityHost", True, "an AE title is only believed from its own address"),
    ("ExecuteLuaEnabled", False, "a script pushed over HTTP could do anything"),
    ("WebDavEnabled", False, "a way in that no check of ours covers"),
    ("HttpCompressionEnabled", False, "the front door compresses; compressing pixels here costs a factor of ten"),
    (
        "DicomWeb.EnableMetadataCache",
        False,
        "a newer DICOMweb plugin tells viewers what it kept of a series: after a correction that is the name before it",
    ),
    (
        "Python.AllowThreads",
        True,
        "a newer plugin keeps Python's lock otherwise while it waits for Orthanc, which may wait for Python",
    ),
    (
        "Gdcm.RestrictTransferSyntaxes",
        ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.5"],
        "GDCM is for JPEG 2000 and RLE; inside Orthanc its JPEG-LS calls DCMTK's, and Orthanc ends",
    ),
)

#: Keys that must not be there, and why.
ABSENT: tuple[tuple[str, str], ...] = (
    ("IngestTranscoding", "files stay the bytes that were received; and Orthanc 1.10.1 ends when it writes JPEG-LS"),
    (
        "DicomScuPreferredTransferSyntax",
        "Orthanc 1.10.1 ends when it writes 8 bit JPEG-LS; a destination's Transcode does it in a process of its own",
    ),
)


def faults(orthanc: dict[str, Any]) -> list[tuple[str, str]]:
    """Every fault in Orthanc's own part, as (JSON path, what was found and what is allowed)."""
    found = [
        (path, f"found {_at(orthanc, path)!r}, allowed is {value!r} only: {why}")
        for path, value, why in REQUIRED
        if _at(orthanc, path) != value or type(_at(orthanc, path)) is not type(value)
    ]
    found += [(path, f"take it out: {why}") for path, why in ABSENT if path in orthanc]
    if not str(orthanc.get("PythonScript", "")).endswith("/plugins/zambezi_plugin.py"):
        found.append(("PythonScript", "must name plugins/zambezi_plugin.py: it guards and records what Orthanc does"))
    if "RegisteredUsers" in orthanc:
        found.append(("RegisteredUsers", "is made by `zambezi up` (random passwords in ZAMBEZI_HOME); take it out"))
    found += _index_faults(orthanc) + _authority_faults(orthanc)
    peers = orthanc.get("DicomModalities", {})
    if not isinstance(peers, dict):
        return [*found, ("DicomModalities", "found something else than an object { name: peer }")]
    for name, peer in peers.items():
        try:
            modality(name, peer)
        except ValueError as error:
            found.append((f"DicomModalities.{name}", str(error)))
    others = orthanc.get("OrthancPeers", {})
    for name, entry in others.items() if isinstance(others, dict) else ():
        try:
            orthanc_peer(entry)
        except ValueError as error:
            found.append((f"OrthancPeers.{name}", str(error)))
    web = orthanc.get("DicomWeb", {})
    servers = web.get("Servers", {}) if isinstance(web, dict) else {}
    for name, entry in servers.items() if isinstance(servers, dict) else ():
        try:
            orthanc_peer(entry)
        except ValueError as error:
            found.append((f"DicomWeb.Servers.{name}", str(error)))
    aets: dict[str, str] = {}
    for name, peer in peers.items():
        aet = peer[0] if isinstance(peer, list) and peer else peer.get("AET") if isinstance(peer, dict) else None
        if isinstance(aet, str) and aet in aets:
            found.append((f"DicomModalities.{name}", f"AE title {aet} belongs to {aets[aet]} already"))
        elif isinstance(aet, str):
            aets[aet] = name
    return found


#: The plugin that keeps the index in PostgreSQL, and the one that would keep the files there, too.
INDEX_PLUGIN, FILES_PLUGIN = "libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so"


def index_is_postgresql(orthanc: dict[str, Any]) -> bool:
    """Whether Orthanc's index lies in PostgreSQL (else it is SQLite, in ZAMBEZI_HOME)."""
    section = orthanc.get("PostgreSQL")
    return isinstance(section, dict) and section.get("EnableIndex") is True


def _index_faults(orthanc: dict[str, Any]) -> list[tuple[str, str]]:
    """Section and plugin must agree: with one of them alone Orthanc would begin with an empty index on SQLite."""
    plugins = [str(name).rpartition("/")[2] for name in orthanc.get("Plugins", [])]
    section = orthanc.get("PostgreSQL", {})
    if not isinstance(section, dict):
        return [("PostgreSQL", "found something else than an object { ... }")]
    found = []
    if section.get("EnableStorage") or FILES_PLUGIN in plugins:
        found.append(("PostgreSQL.EnableStorage", "the images stay files: recovery, backup and checks rest on it"))
    if index_is_postgresql(orthanc) and INDEX_PLUGIN not in plugins:
        found.append(("PostgreSQL", f"the index is to lie in PostgreSQL, but Plugins doesn't name {INDEX_PLUGIN}"))
    if not index_is_postgresql(orthanc) and INDEX_PLUGIN in plugins:
        found.append(("Plugins", f"{INDEX_PLUGIN} is named, but no section PostgreSQL has EnableIndex true"))
    return found


def _authority_faults(orthanc: dict[str, Any]) -> list[tuple[str, str]]:
    """Whoever answers in the place of a neighbour is found out: neither Orthanc nor we speak with them unchecked."""
    found = []
    if orthanc.get("HttpsVerifyPeers", True) is not True:
        what = f"found {orthanc['HttpsVerifyPeers']!r}, allowed is true only: write the authority of the neighbours' "
        found.append(("HttpsVerifyPeers", what + "certificates into a file (PEM) that HttpsCACertificates names"))
    authorities = orthanc.get("HttpsCACertificates", "")
    if not isinstance(authorities, str) or (authorities and not authorities.startswith("/")):
        found.append(("HttpsCACertificates", f"found {authorities!r}, allowed is the name of a file, beginning with /"))
    return found


def _at(orthanc: dict[str, Any], path: str) -> Any:
    found: Any = orthanc
    for key in path.split("."):
        found = found.get(key, "nothing") if isinstance(found, dict) else "nothing"
    return found


def modality(name: str, peer: Any) -> Modality:
    """Read one DicomModalities entry, in Orthanc's short form [aet, host, port] or its long one {AET, Host, Port}."""
    if isinstance(peer, dict):
        aet, host, port = peer.get("AET"), peer.get("Host"), peer.get("Port")
    elif isinstance(peer, list) and len(peer) >= 3:
        aet, host, port = peer[0], peer[1], peer[2]
    else:
        raise ValueError('found neither ["AET", "host", port] nor {"AET": ..., "Host": ..., "Port": ...}')
    if not isinstance(aet, str) or not 0 < len(aet) <= 16:
        raise ValueError(f"AET: found {aet!r}, allowed are 1 to 16 characters")
    if not isinstance(host, str) or not host:
        raise ValueError(f"Host: found {host!r}, allowed is an IP address")
    number = int(port) if str(port).isdigit() else 0  # type: ignore[arg-type]  # digits only
    if not 0 < number < 65536:
        raise ValueError(f"Port: found {port!r}, allowed is a number from 1 to 65535")
    return Modality(name, aet, host, number, not isinstance(peer, dict) or peer.get("AllowStore", True) is not False)


def modalities(orthanc: dict[str, Any]) -> dict[str, Modality]:
    """All peers by name; the configuration has been checked."""
    return {name: modality(name, peer) for name, peer in orthanc.get("DicomModalities", {}).items()}


def orthanc_peer(entry: Any) -> OrthancPeer:
    """Read one entry of OrthancPeers or DicomWeb.Servers, in the short form [url, user, password] or the long one."""
    long = entry if isinstance(entry, dict) else {}
    if isinstance(entry, dict):
        words = [entry.get("Url"), entry.get("Username", ""), entry.get("Password", "")]
    elif isinstance(entry, list) and len(entry) in (1, 3):
        words = [*entry, "", ""][:3]
    else:
        raise ValueError('found neither ["URL", "user", "password"] nor {"Url": ..., "Username": ..., "Password": ...}')
    if not all(isinstance(word, str) for word in words) or not words[0].startswith(("http://", "https://")):
        raise ValueError("Url: allowed is http://HOST:PORT/ or https://HOST/")
    headers = long.get("HttpHeaders", {})
    said = [*headers, *headers.values()] if isinstance(headers, dict) else [None]
    if not all(isinstance(word, str) and word.isascii() and word.isprintable() for word in said):
        raise ValueError('HttpHeaders: allowed is {"NAME": "value"}')
    certificate = _client_certificate(long)
    if certificate and not words[0].startswith("https://"):
        raise ValueError(f"Url: found {words[0]!r}, but CertificateFile is shown over https:// only")
    return OrthancPeer(words[0].rstrip("/"), words[1], words[2], tuple(sorted(headers.items())), certificate)


def _client_certificate(entry: dict[str, Any]) -> ClientCertificate | None:
    named = {key: entry.get(key, "") for key in ("CertificateFile", "CertificateKeyFile", "CertificateKeyPassword")}
    for key, value in named.items():
        if not isinstance(value, str) or (key.endswith("File") and value and not value.startswith("/")):
            raise ValueError(f"{key}: found {value!r}, allowed is a text; a file begins with /")
    file, key_file, password = named.values()
    if not file and (key_file or password):
        raise ValueError("CertificateKeyFile and CertificateKeyPassword go with CertificateFile")
    return ClientCertificate(file, key_file, password) if file else None
