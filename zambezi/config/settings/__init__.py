"""The typed form of the `Zambezi` section in orthanc-config/: what an administrator may write there.

Names in the JSON are CamelCase, as in Orthanc's own configuration; orthanc-config/schema/ is generated
from these classes. Each field's description is the line of the manual.
"""

from zambezi.config.settings.alerts import (
    AlertMail,
    Alerts,
    AlertWebhook,
    Disk,
    ExpectedModality,
    MailAddress,
    Watermark,
)
from zambezi.config.settings.destinations import Destination, DestinationTls
from zambezi.config.settings.hl7 import Hl7, Hl7Fields, Hl7Peer, Hl7Trigger
from zambezi.config.settings.keeping import Backup, Deletion, Hold
from zambezi.config.settings.migration import Migration, MigrationSource
from zambezi.config.settings.modalities import DicomTls, Fingerprint, Station, Worklist
from zambezi.config.settings.routing import Cause, Completeness, Route, When
from zambezi.config.settings.section import Name, NamesUnknown, Section, Window
from zambezi.config.settings.site import Session, Site
from zambezi.config.settings.zambezi import Zambezi

__all__ = [
    "AlertMail",
    "AlertWebhook",
    "Alerts",
    "Backup",
    "Cause",
    "Completeness",
    "Deletion",
    "Destination",
    "DestinationTls",
    "DicomTls",
    "Disk",
    "ExpectedModality",
    "Fingerprint",
    "Hl7",
    "Hl7Fields",
    "Hl7Peer",
    "Hl7Trigger",
    "Hold",
    "MailAddress",
    "Migration",
    "MigrationSource",
    "Name",
    "NamesUnknown",
    "Route",
    "Section",
    "Session",
    "Site",
    "Station",
    "Watermark",
    "When",
    "Window",
    "Worklist",
    "Zambezi",
]
