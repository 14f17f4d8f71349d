"""The typed form of the `Zambezi` section in orthanc-config/: what an administrator may write there.

Names in the JSON are CamelCase, as in Orthanc's own configuration; orthanc-config/schema/ is generated
from these classes. Each field's description is the line of the manual.
"""

from zambezi.config.settings.access import Access, AccessSite
from zambezi.config.settings.admission import Admission, PeerAdmission
from zambezi.config.settings.alerts import (
    AlertMail,
    Alerts,
    AlertWebhook,
    Disk,
    ExpectedModality,
    MailAddress,
    Watermark,
)
from zambezi.config.settings.audit import Audit, AuditCollector
from zambezi.config.settings.coercion import Coercion, FromWorklist, Wanted
from zambezi.config.settings.commitment import StorageCommitment
from zambezi.config.settings.destinations import Destination, DestinationTls
from zambezi.config.settings.hl7 import Hl7, Hl7Fields, Hl7Peer
from zambezi.config.settings.keeping import Backup, Deletion, Hold
from zambezi.config.settings.migration import Migration, MigrationSource
from zambezi.config.settings.modalities import DicomTls, Fingerprint, Station, Worklist
from zambezi.config.settings.priors import Priors, PriorSource
from zambezi.config.settings.routing import Cause, Completeness, Route, Signal
from zambezi.config.settings.section import Name, NamesUnknown, Section, Window
from zambezi.config.settings.site import Session, Site
from zambezi.config.settings.triggers import Hl7Template, Hl7Trigger, TriggerWhen
from zambezi.config.settings.when import Test, When
from zambezi.config.settings.zambezi import Zambezi

__all__ = [
    "Access",
    "AccessSite",
    "Admission",
    "AlertMail",
    "AlertWebhook",
    "Alerts",
    "Audit",
    "AuditCollector",
    "Backup",
    "Cause",
    "Coercion",
    "Completeness",
    "Deletion",
    "Destination",
    "DestinationTls",
    "DicomTls",
    "Disk",
    "ExpectedModality",
    "Fingerprint",
    "FromWorklist",
    "Hl7",
    "Hl7Fields",
    "Hl7Peer",
    "Hl7Template",
    "Hl7Trigger",
    "Hold",
    "MailAddress",
    "Migration",
    "MigrationSource",
    "Name",
    "NamesUnknown",
    "PeerAdmission",
    "PriorSource",
    "Priors",
    "Route",
    "Section",
    "Session",
    "Signal",
    "Site",
    "Station",
    "StorageCommitment",
    "Test",
    "TriggerWhen",
    "Wanted",
    "Watermark",
    "When",
    "Window",
    "Worklist",
    "Zambezi",
]
