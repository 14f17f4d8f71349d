"""States, roles and messages in words: what a person reads instead of a code, with a sign beside it.

Each is written here once, marked for translation by `_` (lazy: the language is the reader's).
"""

from __future__ import annotations

from flask_babel import lazy_gettext as _

from ris_service.languages import gettext

#: State of an order: (sign, words). A sign is never alone, and never a colour alone.
ORDER = {
    "scheduled": ("○", _("Scheduled")),
    "arrived": ("◔", _("Arrived")),
    "in-progress": ("◑", _("In progress")),
    "completed": ("●", _("Completed")),
    "discontinued": ("◌", _("Discontinued")),
    "cancelled": ("✕", _("Cancelled")),
}
PRIORITY = {
    "STAT": ("‼", _("Emergency")),
    "HIGH": ("!", _("Urgent")),
    "ROUTINE": ("", _("Routine")),
}
REPORT = {
    "none": ("–", _("No report")),
    "draft": ("✎", _("Draft")),
    "final": ("✓", _("Signed")),
}
DELIVERY = {
    "due": ("○", _("Waiting its turn")),
    "sending": ("◑", _("Being sent")),
    "delivered": ("●", _("Delivered")),
    "retrying": ("↻", _("Failed, will be tried again")),
    "parked": ("⚠", _("Stopped: a person must look")),
    "cancelled": ("✕", _("Cancelled")),
}
PROOF = {
    "found": _("the receiver answered a query with every image"),
    "acknowledged": _("the receiver acknowledged every image"),
    "committed": _("the receiver committed itself to keep every image"),
}
MESSAGE_PROOF = _("the receiver accepted the message")
SEX = {"M": _("male"), "F": _("female"), "O": _("other"), "U": _("unknown")}
CAUSE = {
    "modality": _("modality"),
    "migration": _("migration"),
    "prefetch": _("an earlier study, fetched from another archive"),
    "report": _("a report of ours"),
    "correction": _("a correction"),
    "restore": _("a restore from the hold"),
    "ourselves": _("Zambezi itself"),  # as the first version wrote it
}
#: What the gateway suggests to do about an exception (gateway.effects).
ACTION = {"Open the study": _("Open the study"), "Open the other study": _("Open the other study")}
ROOM = {
    "hl7": _("HL7 messages"),
    "mpps": _("Exam progress"),
    "delivery": _("Deliveries"),
    "archive": _("Archive"),
    "migration": _("Migration"),
    "hold": _("Hold"),
    "correction": _("Corrections"),
    "deletion": _("Deletions"),
    "neighbour": _("Neighbours"),
    "keys": _("Keys of signature"),
    "disk": _("Disk"),
    "audit": _("Audit"),
    "backup": _("Backups"),
    "commitment": _("Storage commitment"),
    "access": _("Access"),
}
#: State of a link that shares studies.
SHARE = {
    "open": _("Opens"),
    "locked": _("Locked: too many wrong PINs"),
    "expired": _("Its time is over"),
    "revoked": _("Revoked"),
}
ROLE = {
    "administrator": _("Administrator"),
    "pacs-administrator": _("PACS administrator"),
    "radiologist": _("Radiologist"),
    "radiographer": _("Radiographer"),
    "reception": _("Reception"),
    "referrer": _("Referring clinician"),
    "migration-engineer": _("Migration engineer"),
    "emergency": _("Emergency reader"),
    "guest": _("Guest"),
}
EVENT = {
    "study-began": _("first image of a study stored"),
    "stored": _("image stored"),
    "stored-again": _("image in the index again"),
    "study-completed": _("study complete"),
    "routed": _("route decided"),
    "priors-wanted": _("earlier studies asked for"),
    "hl7-triggered": _("message decided"),
    "deleted": _("images deleted"),
    "coercion-failed": _("image stored as it came"),
    "viewed": _("study opened"),
    "refused": _("access refused"),
    "archive-moved": _("archive moved to another index"),
    "associated": _("device connected"),
    "retrieve-asked": _("images asked for by a device"),
    "queried": _("query by a device"),
    "configured": _("rules loaded"),
    "started": _("process started"),
    "stopped": _("process stopped"),
    "signed-in": _("signed in"),
    "sign-in-failed": _("sign-in refused"),
    "signed-out": _("signed out"),
    "user-changed": _("user or token changed"),
    "glass-broken": _("study opened in an emergency"),
    "share-changed": _("shared link made or revoked"),
    "share-opened": _("shared link opened"),
    "patient-changed": _("patient changed"),
    "order-changed": _("order changed"),
    "exam-changed": _("exam changed its state"),
    "message-received": _("HL7 message received"),
    "delivery-changed": _("delivery changed its state"),
    "commitment-changed": _("storage commitment changed its state"),
    "pseudonym-read": _("asked whom a pseudonym stands for"),
    "neighbour-changed": _("neighbour paused or asked again"),
    "report-saved": _("report saved"),
    "report-signed": _("report signed"),
    "report-read": _("report read"),
    "migration-changed": _("migration changed its state"),
    "migration-planned": _("migration planned"),
    "migration-patient-decided": _("patient of a migration decided"),
    "migration-certified": _("migration certified"),
    "records-imported": _("records of an old system imported"),
    "records-decided": _("record of an old system decided"),
    "migration-sampled": _("migration: sample drawn"),
    "migration-rollback": _("migration: roll-back"),
    "held": _("object put into the hold"),
    "hold-changed": _("held object changed its state"),
    "conflict": _("conflicting image came"),
    "correction-changed": _("correction changed its state"),
    "deletion-changed": _("deletion changed its state"),
    "legal-hold-changed": _("legal hold set or lifted"),
    "exception-decided": _("exception decided"),
    "exception-rule-changed": _("rule for exceptions changed"),
    "key-changed": _("signing key changed"),
    "backed-up": _("backup written and verified"),
    "restored": _("everything put back from a backup"),
    "disk-changed": _("room on a disk changed"),
    "lease-taken": _("another node records"),
    "certificate-changed": _("certificate changed"),
    "audit-used": _("audit trail read"),
    "audit-segment": _("part of the audit trail sealed"),
    "alerted": _("alert sent"),
    "incident": _("incident"),
}

#: What the facts of an audit entry are called; the others bear their own names.
FACT = {
    "accession_number": _("accession number"),
    "patient_id": _("patient ID"),
    "reason": _("reason"),
    "destination": _("destination"),
    "rule": _("rule"),
    "because": _("because"),
    "state": _("state"),
    "status": _("state of the exam"),
    "change": _("change"),
    "changed": _("what changed"),
    "ip": _("address"),
    "remote_ip": _("sender's address"),
    "aet": _("AE title"),
    "remote_aet": _("sender"),
    "called_aet": _("called AE title"),
    "modality": _("modality"),
    "cause": _("came by"),
    "series_uid": _("series"),
    "sop_uid": _("image"),
    "size": _("octets"),
    "role": _("role"),
    "user": _("account"),
    "peer": _("neighbour"),
    "message": _("message"),
    "order": _("order number"),
    "delivery": _("delivery"),
    "proof": _("proof"),
    "version": _("version"),
    "decision": _("decision"),
    "method": _("method"),
    "path": _("path"),
    "count": _("how many"),
    "how": _("how"),
    "search": _("looked for"),
    "format": _("format"),
    "digest": _("digest"),
    "configuration": _("configuration"),
    "file": _("file"),
    "kind": _("kind"),
    "attempts": _("attempts"),
    "before": _("before"),
    "source": _("source"),
    "error": _("error"),
}
#: Whose values have words of their own.
_FACT_WORDS = {"status": ORDER, "before": ORDER, "state": DELIVERY, "cause": CAUSE, "role": ROLE, "proof": PROOF}

_SAID = {
    "saved": _("Saved."),
    "signed": _("The report is signed. The PDF goes to the archive and the report to those who wait for it."),
    "signed-out": _("You are signed out."),
    "placed": _("The order is placed; the modality gets it with its next worklist."),
    "state": _("The exam's state was changed."),
    "cancelled": _("Cancelled."),
    "retry": _("It will be tried again at once."),
    "resumed": _("It is asked again at once."),
    "decided": _("Your decision is recorded."),
    "rule-made": _("The rule counts from now on."),
    "rule-ended": _("The rule is switched off."),
    "password": _("Your new password counts from now on. Other sign-ins of yours were ended."),
    "second-factor": _("The second factor is set up."),
    "second-factor-removed": _("The second factor is removed."),
    "language": _("The language was changed."),
    "share-revoked": _("The link opens nothing any more."),
    "scope": _("The part of the site was changed, and the account's sign-ins are ended."),
    "disabled": _("The account is disabled and its sign-ins are ended."),
    "enabled": _("The account may be used again."),
    "addendum": _("This is a new version. The signed one stays as it is."),
}


def said(code: str) -> str:
    """The message that a redirect's `said` names; empty for anything else."""
    return str(_SAID.get(code, ""))


def state(table: dict[str, tuple[str, str]], code: str) -> tuple[str, str]:
    """Sign and words of a state; the bare code for one we don't know."""
    return table.get(code, ("", code))


def of(table: dict[str, str], code: str | None) -> str:
    """The words for a code; the bare code where there are none."""
    return str(table.get(code or "", code or ""))


def fact(name: str) -> str:
    """What a fact of an audit entry is called; its bare name for one we don't know."""
    return of(FACT, name)


def fact_value(name: str, value: object) -> str:
    """What a fact of an audit entry says: its words where it has some, lists and searches as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    known = _FACT_WORDS.get(name, {}).get(str(value), value)
    return str(known[1] if isinstance(known, tuple) else known)


def proof(kind: str, level: str | None) -> str:
    """What shows that a delivery arrived: a message was accepted, images were found, acknowledged or committed."""
    return of(PROOF, level) if kind == "dicom" else str(MESSAGE_PROOF)


def problem(status: int) -> tuple[str, str]:
    """Title and explanation of an error page: what happened and what to do."""
    if status == 401:
        return gettext("Please sign in"), gettext("Nothing here is shown to strangers. Sign in and try again.")
    if status == 403:
        return gettext("Not with your role"), gettext(
            "Your account may not do this. If your work needs it, ask the administrator for the right role."
        )
    if status == 404:
        return gettext("Nothing here"), gettext(
            "There is no such page, or it is not for you. Check the address, or start again from the first page."
        )
    if status == 405:
        return gettext("Not in this way"), gettext("Use the buttons of the page instead of typing its address.")
    if status == 409:
        return gettext("Somebody was faster"), gettext(
            "It was changed meanwhile. Load the page again and look before you repeat what you did."
        )
    if status == 413:
        return gettext("Too large"), gettext("More was sent than this page takes. Shorten the text and try again.")
    if status == 503:
        return gettext("The database does not answer"), gettext(
            "Nothing was changed. Try again in a minute. If it lasts, call the administrator. "
            "Modalities go on storing meanwhile."
        )
    if status >= 500:
        return gettext("Something went wrong here"), gettext(
            "It is not your fault. It was noted for the administrator. Try again; if it happens twice, call them."
        )
    return gettext("This can't be done"), gettext("What was sent can't be understood. Go back and try again.")
