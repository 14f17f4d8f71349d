"""The central database: every table there is, on SQLite and PostgreSQL alike.

Moments are text as `zambezi.clock.text` writes it (UTC, fixed width: text order is time order, the same on
both engines). JSON columns hold plain lists and objects. What a state may be stands beside its column.
"""

from zambezi.database.tables.access import ShareLink, StudyOpening
from zambezi.database.tables.audit import AuditEntry, ChainHead, FencedEntries, FollowerLease, NodeJournal
from zambezi.database.tables.base import Base, Leased, Moment, Uid
from zambezi.database.tables.commitment import CommitmentRequest
from zambezi.database.tables.custody import Correction, CorrectionItem, Deletion, DeletionItem, Held, LegalHold
from zambezi.database.tables.deliveries import CommitmentAsked, Pseudonym, PseudonymKey
from zambezi.database.tables.exams import (
    AnnouncedInstance,
    AnnouncedStudy,
    Generation,
    Order,
    Patient,
    PerformedStep,
    Series,
    Study,
)
from zambezi.database.tables.folders import FolderFile, FolderWalk
from zambezi.database.tables.inventory import MigrationProbe, MigrationSlice, MigrationSurvey
from zambezi.database.tables.legacy import LegacyImport, LegacyReport, LegacyRow
from zambezi.database.tables.migration import Certificate, MigrationInstance, MigrationProject, MigrationStudy
from zambezi.database.tables.migration_plan import MigrationMatch, PlanVersion
from zambezi.database.tables.migration_run import MigrationPace, MigrationPass
from zambezi.database.tables.people import Revocation, User
from zambezi.database.tables.processes import ProcessState
from zambezi.database.tables.proof import CertificatePart, MigrationExtra, MigrationRollback, MigrationSample
from zambezi.database.tables.queues import (
    AlertChannel,
    AlertTold,
    Breaker,
    Delivery,
    ExceptionItem,
    ExceptionRule,
    Message,
)
from zambezi.database.tables.ready import ReadySign
from zambezi.database.tables.reports import Report
from zambezi.database.tables.trail import AuditCheckpoint, AuditCollector, AuditSegment, AuditShipment
from zambezi.database.tables.triggers import TriggerCursor

__all__ = [
    "AlertChannel",
    "AlertTold",
    "AnnouncedInstance",
    "AnnouncedStudy",
    "AuditCheckpoint",
    "AuditCollector",
    "AuditEntry",
    "AuditSegment",
    "AuditShipment",
    "Base",
    "Breaker",
    "Certificate",
    "CertificatePart",
    "ChainHead",
    "CommitmentAsked",
    "CommitmentRequest",
    "Correction",
    "CorrectionItem",
    "Deletion",
    "DeletionItem",
    "Delivery",
    "ExceptionItem",
    "ExceptionRule",
    "FencedEntries",
    "FolderFile",
    "FolderWalk",
    "FollowerLease",
    "Generation",
    "Held",
    "Leased",
    "LegacyImport",
    "LegacyReport",
    "LegacyRow",
    "LegalHold",
    "Message",
    "MigrationExtra",
    "MigrationInstance",
    "MigrationMatch",
    "MigrationPace",
    "MigrationPass",
    "MigrationProbe",
    "MigrationProject",
    "MigrationRollback",
    "MigrationSample",
    "MigrationSlice",
    "MigrationStudy",
    "MigrationSurvey",
    "Moment",
    "NodeJournal",
    "Order",
    "Patient",
    "PerformedStep",
    "PlanVersion",
    "ProcessState",
    "Pseudonym",
    "PseudonymKey",
    "ReadySign",
    "Report",
    "Revocation",
    "Series",
    "ShareLink",
    "Study",
    "StudyOpening",
    "TriggerCursor",
    "Uid",
    "User",
]
