"""The kinds of legacy sources there are: from a source's settings to what asks it."""

from __future__ import annotations

from migration.dicom_source import DicomSource
from migration.dicomweb_source import DicomWebSource
from migration.folders.source import FolderSource
from migration.orthanc_source import OrthancSource
from migration.source import Source
from migration.wire import SILENCE_S, Server
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
    # What lies on tape is not there at once, whatever is asked for.
    silence_s = settings.silence_seconds if settings.near_line else SILENCE_S
    match settings.kind:
        case "orthanc":
            server = _server(configuration.orthanc_peers[settings.peer], configuration)
            return OrthancSource(server, settings.parallel, silence_s)
        case "dicomweb":
            server = _server(configuration.dicomweb_servers[settings.peer], configuration)
            return DicomWebSource(server, settings.parallel, silence_s)
        case "dicom":
            return DicomSource(client, configuration.modalities[settings.peer], settings)
        case "folder":
            return FolderSource(name, settings, sessions, environment)


def _server(peer: OrthancPeer, configuration: Configuration) -> Server:
    return Server(
        peer.url, peer.user, peer.password, dict(peer.headers), configuration.authorities, peer.certificate
    )  # fmt: skip
