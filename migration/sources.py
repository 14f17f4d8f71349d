"""The kinds of legacy sources there are: from a source's settings to what asks it."""

from __future__ import annotations

from migration.dicom_source import DicomSource
from migration.dicomweb_source import DicomWebSource
from migration.folders.source import FolderSource
from migration.orthanc_source import OrthancSource
from migration.source import Source
from migration.wire import Server
from zambezi.config import Configuration
from zambezi.database.engine import Sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient


def opened(
    name: str, client: OrthancClient, configuration: Configuration, sessions: Sessions, environment: Environment
) -> Source:
    """What asks this source; `client` is the connection to our own archive. KeyError where no source has this name."""
    settings = configuration.zambezi.migration.sources[name]
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
        case "folder":
            return FolderSource(name, settings, sessions, environment)
