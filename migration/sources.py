"""The kinds of legacy sources there are: from a source's settings to what asks it."""

from __future__ import annotations

from migration.dicom_source import DicomSource
from migration.dicomweb_source import DicomWebSource
from migration.orthanc_source import OrthancSource
from migration.source import Source
from migration.wire import Server
from zambezi.config import Configuration
from zambezi.config.settings import MigrationSource
from zambezi.orthanc_client import OrthancClient


def opened(settings: MigrationSource, client: OrthancClient, configuration: Configuration) -> Source:
    """What asks this source; `client` is the connection to our own archive."""
    authorities = str(configuration.orthanc.get("HttpsCACertificates", ""))
    match settings.kind:
        case "orthanc":
            peer = configuration.orthanc_peers[settings.peer]
            server = Server(peer.url, peer.user, peer.password, authorities=authorities)
            return OrthancSource(server, settings.parallel)
        case "dicomweb":
            web = configuration.dicomweb_servers[settings.peer]
            server = Server(web.url, web.user, web.password, dict(web.headers), authorities)
            return DicomWebSource(server, settings.parallel)
        case "dicom":
            return DicomSource(client, configuration.modalities[settings.peer], settings)
