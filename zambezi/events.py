"""The events that chains hold: one closed list, in words, with their place in DICOM's audit vocabulary.

`EVENTS` maps an event to (PS3.15 A.5.3 Event ID of DCM, action code C/R/U/D/E, what it says). Each sealed
entry carries the facts named in docs/architecture.md ("Journal entries").
"""

from __future__ import annotations

EVENTS: dict[str, tuple[str, str, str]] = {
    # the plugin's journal, from /changes
    "study-began": ("110103", "C", "the first instance of a study was stored"),
    "stored": ("110104", "C", "an instance was stored"),
    "stored-again": ("110104", "C", "an instance whose index row was lost is in the index again"),
    "study-completed": ("110103", "U", "no instance of the study came for the quiet period"),
    "routed": ("110102", "E", "a rule decided that instances go to a destination"),
    "hl7-triggered": ("110102", "E", "a rule decided that a peer is told by an HL7 message"),
    "deleted": ("110105", "D", "instances were deleted"),
    # the plugin's journal, from its doors
    "viewed": ("110103", "R", "a person opened a study"),
    "refused": ("110113", "E", "a request or an association was refused"),
    "archive-moved": ("110107", "E", "every instance was brought to another index and proven to be the same"),
    "queried": ("110112", "E", "a peer asked by C-FIND or for its worklist"),
    "configured": ("110100", "U", "rules were loaded"),
    "disk-changed": ("110100", "E", "the room on a disk fell below a mark or is back above it"),
    "started": ("110100", "E", "a process started"),
    "stopped": ("110100", "E", "a process stopped"),
    "lease-taken": ("110100", "E", "a node of several began to record what is stored"),
    # other writers
    "signed-in": ("110114", "E", "a person signed in"),
    "sign-in-failed": ("110114", "E", "a sign-in was refused"),
    "signed-out": ("110114", "E", "a person signed out"),
    "user-changed": ("110113", "U", "a user, role or token was changed"),
    "patient-changed": ("110110", "U", "a patient was registered or changed"),
    "order-changed": ("110109", "U", "an order was received, changed, scheduled or cancelled"),
    "exam-changed": ("110111", "U", "an exam changed its state"),
    "message-received": ("110107", "C", "an HL7 message was committed"),
    "delivery-changed": ("110104", "U", "a delivery changed its state"),
    "pseudonym-read": ("110113", "R", "a person asked whom a pseudonym stands for"),
    "neighbour-changed": ("110100", "E", "a neighbour that failed was paused, or is asked again"),
    "report-saved": ("110111", "U", "a report was saved"),
    "report-signed": ("110111", "U", "a report was signed"),
    "report-read": ("110111", "R", "a person read a report"),
    "migration-changed": ("110107", "U", "a migration or one of its studies changed its state"),
    "migration-certified": ("110107", "E", "a certificate was issued"),
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
    "alerted": ("110100", "E", "the alert channel told a person"),
    "incident": ("110113", "E", "something that a person must look at happened"),
}
