"""The certificates that legacy archives over https need here: whom we believe, and what is shown of us."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from operations import certificates
from zambezi import tls
from zambezi.config import Configuration
from zambezi.config.safety import OrthancPeer


def faults(configuration: Configuration, now: datetime) -> list[str]:
    """What of them can't be used, each with source, setting and file. Nobody is asked: what a source shows is seen by
    `zambezi migrate probe`."""
    found: list[str] = []
    for source, peer in sorted(_over_https(configuration).items()):
        about = f"Migration.Sources.{source}"
        try:
            tls.to_server(configuration.authorities, peer.certificate)
        except tls.FileFault as fault:
            found.append(f"{about}: {fault}")
            continue
        named = {"HttpsCACertificates": configuration.authorities}
        if peer.certificate:
            named["CertificateFile"] = peer.certificate.file
        for key, file in named.items():
            ends = [held.until for held in certificates.held(Path(file), key)] if file else []
            if ends and max(ends) <= now:
                found.append(f"{about}: {key}: {file} ended on {max(ends):%Y-%m-%d}; put one there that is good")
    return found


def _over_https(configuration: Configuration) -> dict[str, OrthancPeer]:
    peers = {"orthanc": configuration.orthanc_peers, "dicomweb": configuration.dicomweb_servers}
    named = {
        name: peers[source.kind][source.peer]
        for name, source in configuration.zambezi.migration.sources.items()
        if source.kind in peers
    }
    return {name: peer for name, peer in named.items() if peer.url.startswith("https://")}
