"""The events that chains hold: one closed list, in words, with their place in DICOM's audit vocabulary.

`EVENTS` maps an event to (PS3.15 A.5.3 Event ID of DCM, action code C/R/U/D/E, what it says). Each sealed
entry carries the facts named in docs/architecture.md ("Journal entries").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVENTS: dict[str, tuple[str, str, str]] = {
    # the plugin's journal, from /changes
    "study-began": ("110103", "C", "the first instance of a study was stored"),
    "stored": ("110104", "C", "an instance was stored"),
    "stored-again": ("110104", "C", "an instance whose index row was lost is in the index again"),
    "study-completed": ("110103", "U", "no instance of the study came for the quiet period"),
    "routed": ("110102", "E", "a rule decided that instances go to a destination"),
    "priors-wanted": ("110102", "E", "a rule decided that a patient's earlier studies are fetched from an archive"),
    "hl7-triggered": ("110102", "E", "a rule decided that a peer is told by an HL7 message"),
    "deleted": ("110105", "D", "instances were deleted"),
    "coercion-failed": ("110104", "E", "an image was stored as it came: a coercion rule could not be carried out"),
    # the plugin's journal, from its doors
    "viewed": ("110103", "R", "a person opened a study"),
    "refused": ("110113", "E", "a request or an association was refused"),
    "archive-moved": ("110107", "E", "every instance was brought to another index and proven to be the same"),
    "associated": ("110108", "E", "a DICOM peer was let in, counted over ten minutes"),
    "retrieve-asked": ("110102", "R", "a DICOM peer asked by C-MOVE or C-GET for images"),
    "queried": ("110112", "E", "a peer asked by C-FIND or for its worklist"),
    "configured": ("110100", "U", "rules were loaded"),
    "disk-changed": ("110100", "E", "the room on a disk fell below a mark or is back above it"),
    "started": ("110100", "E", "a process started"),
    "stopped": ("110100", "E", "a process stopped"),
    "lease-taken": ("110100", "E", "a node of several began to record what is stored"),
    # other writers
    "glass-broken": ("110113", "R", "a person opened a study outside of their part of the site, in an emergency"),
    "share-changed": ("110106", "U", "a link that shares studies was made or revoked"),
    "share-opened": ("110106", "R", "a link that shares studies was opened"),
    "signed-in": ("110114", "E", "a person signed in"),
    "sign-in-failed": ("110114", "E", "a sign-in was refused"),
    "signed-out": ("110114", "E", "a person signed out"),
    "user-changed": ("110113", "U", "a user, role or token was changed"),
    "patient-changed": ("110110", "U", "a patient was registered or changed"),
    "order-changed": ("110109", "U", "an order was received, changed, scheduled or cancelled"),
    "exam-changed": ("110111", "U", "an exam changed its state"),
    "message-received": ("110107", "C", "an HL7 message was committed"),
    "delivery-changed": ("110104", "U", "a delivery changed its state"),
    "commitment-changed": ("110104", "E", "a storage commitment was asked for, looked into, answered or given up"),
    "pseudonym-read": ("110113", "R", "a person asked whom a pseudonym stands for"),
    "neighbour-changed": ("110100", "E", "a neighbour that failed was paused, or is asked again"),
    "report-saved": ("110111", "U", "a report was saved"),
    "report-signed": ("110111", "U", "a report was signed"),
    "report-read": ("110111", "R", "a person read a report"),
    "migration-changed": ("110107", "U", "a migration or one of its studies changed its state"),
    "migration-planned": ("110107", "U", "a version of a migration's plan was taken"),
    "migration-patient-decided": ("110113", "U", "a person decided whose a migration's studies are"),
    "migration-certified": ("110107", "E", "a certificate was issued"),
    "records-imported": ("110107", "C", "records of an old system were read, and taken or listed with the reason"),
    "records-decided": ("110113", "U", "a person decided on a record of an old system"),
    "migration-sampled": ("110107", "E", "the studies that are compared with the source were drawn"),
    "migration-rollback": ("110107", "U", "studies of a migration are to be taken back, or were"),
    # custody: the hold, corrections, deletions, keys, what persons decide
    "held": ("110104", "C", "an object was put into the hold"),
    "hold-changed": ("110104", "U", "a held object was compared, checked, released or discarded"),
    "conflict": ("110113", "E", "an instance came again with other content, or under another patient"),
    "correction-changed": ("110103", "U", "a correction was asked for, carried out or undone"),
    "deletion-changed": ("110105", "E", "a deletion was asked for, confirmed, withdrawn or carried out"),
    "legal-hold-changed": ("110113", "U", "a legal hold was set or lifted"),
    "exception-decided": ("110113", "U", "a person decided what had waited for one"),
    "exception-rule-changed": ("110113", "U", "a rule that decides exceptions was made or switched off"),
    "key-changed": ("110113", "U", "a signing key was made or retired"),
    "backed-up": ("110106", "R", "a backup of everything was written and verified"),
    "restored": ("110107", "C", "everything was put back from a backup; what came after it is not in this trail"),
    "certificate-changed": ("110113", "U", "the front door's certificate or its authority was made or renewed"),
    # the audit trail itself
    "audit-used": ("110101", "R", "a person searched, read or exported the audit trail"),
    "audit-segment": ("110106", "R", "a part of the audit trail was sealed into a file, or left the table after that"),
    "alerted": ("110100", "E", "the alert channel told a person"),
    "incident": ("110113", "E", "something that a person must look at happened"),
}

#: Events that tell of a failure whatever their facts say, and states of others that do.
_FAILURES = {"refused": 4, "sign-in-failed": 4, "conflict": 4, "coercion-failed": 4, "incident": 8}
_FAILED_STATES = {"retrying": 4, "rejected": 4, "refused": 4, "waiting": 4, "open": 4, "parked": 8, "failed": 8}
#: Events in whose states these words mean a failure; an exception that waits or a hold is none.
_WITH_STATES = frozenset({
    "delivery-changed", "message-received", "neighbour-changed", "migration-changed", "correction-changed",
    "deletion-changed", "commitment-changed",
})  # fmt: skip


def outcome(facts: Mapping[str, Any]) -> int:
    """How what an entry tells of ended, as PS3.15 A.5.2 counts: 0 success, 4 minor, 8 serious failure."""
    event = facts.get("event", "")
    if event in _WITH_STATES:
        return _FAILED_STATES.get(str(facts.get("state")), 0)
    return _FAILURES.get(event, 0)
