"""The kinds of legacy sources there are: from a source's settings to what asks it."""

from __future__ import annotations

from migration.dicom_source import DicomSource
from migration.source import Source
from zambezi.config import Configuration
from zambezi.config.settings import MigrationSource
from zambezi.orthanc_client import OrthancClient


def opened(settings: MigrationSource, client: OrthancClient, configuration: Configuration) -> Source:
    """What asks this source; `client` is the connection to our own archive."""
    return DicomSource(client, configuration.modalities[settings.peer], settings)
