"""The kinds of legacy sources there are: from a source's settings to what asks it."""

from __future__ import annotations

from migration.dicom_source import DicomSource
from migration.dicomweb_source import DicomWebSource
from migration.folders.source import FolderSource
from migration.orthanc_source import OrthancSource
from migration.source import Source
from migration.wire import Server
from zambezi.config import Configuration
from zambezi.config.safety import OrthancPeer
from zambezi.database.engine import Sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient


def opened(
    name: str, client: OrthancClient, configuration: Configuration, sessions: Sessions, environment: Environment
) -> Source:
    """What asks this source; `client` is the connection to our own archive. KeyError where no source has this name."""
    settings = configuration.zambezi.migration.sources[name]
    match settings.kind:
        case "orthanc":
            return OrthancSource(_server(configuration.orthanc_peers[settings.peer], configuration), settings.parallel)
        case "dicomweb":
            return DicomWebSource(
                _server(configuration.dicomweb_servers[settings.peer], configuration), settings.parallel
            )
        case "dicom":
            return DicomSource(client, configuration.modalities[settings.peer], settings)
        case "folder":
            return FolderSource(name, settings, sessions, environment)


def _server(peer: OrthancPeer, configuration: Configuration) -> Server:
    return Server(
        peer.url, peer.user, peer.password, dict(peer.headers), configuration.authorities, peer.certificate
    )  # fmt: skip
