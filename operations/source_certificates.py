"""The certificates that legacy archives over https need here: whom we believe, and what is shown of us."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from operations import certificates
from operations.certificates import CertificateFault, Held
from zambezi import tls
from zambezi.config import Configuration
from zambezi.config.safety import OrthancPeer


def known(configuration: Configuration) -> list[Held]:
    """What is shown of us to each source that wants to know us; CertificateFault where one can't be read."""
    shown = {name: peer.certificate for name, peer in _over_https(configuration).items()}
    return [
        held
        for source, own in sorted(shown.items())
        if own is not None
        for held in certificates.held(Path(own.file), f"the certificate that the legacy archive {source} is shown")[:1]
    ]


def faults(configuration: Configuration, now: datetime) -> list[str]:
    """What of them can't be used, each with source, setting and file. Nobody is asked: what a source shows is seen by
    `zambezi migrate probe`."""
    found: list[str] = []
    for source, peer in sorted(_over_https(configuration).items()):
        about = f"Migration.Sources.{source}"
        named = {"CertificateFile": peer.certificate.file if peer.certificate else ""}
        named["HttpsCACertificates"] = configuration.authorities
        try:
            tls.to_server(configuration.authorities, peer.certificate)
            # Of several authorities in one file some may have ended.
            ends = {key: _last_end(Path(file), key) for key, file in named.items() if file}
        except (tls.FileFault, CertificateFault) as fault:
            found.append(f"{about}: {fault}")
            continue
        found += [
            f"{about}: {key}: {named[key]} ended on {end:%Y-%m-%d}; put one there that is good"
            for key, end in ends.items()
            if end <= now
        ]
    return found


def _last_end(file: Path, what: str) -> datetime:
    return max(held.until for held in certificates.held(file, what))


def _over_https(configuration: Configuration) -> dict[str, OrthancPeer]:
    peers = {"orthanc": configuration.orthanc_peers, "dicomweb": configuration.dicomweb_servers}
    named = {
        name: peers[source.kind][source.peer]
        for name, source in configuration.zambezi.migration.sources.items()
        if source.kind in peers
    }
    return {name: peer for name, peer in named.items() if peer.url.startswith("https://")}
