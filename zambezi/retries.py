"""Errors by class, and what each class does to a queue: try again, leave to a person, pause. Pure decisions.

Every queue (images out, messages out, migration, corrections, deletions) meets the same five classes; the
tables below say which class a status belongs to, each with its source. Chance comes in as a number, so that
a decision can be taken again and gives the same.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal


class ErrorClass(StrEnum):
    """What an error is about, and so what helps against it."""

    #: The way or the neighbour, for now: the same again later. Counts against the neighbour (zambezi.breakers).
    TRANSIENT = "transient"
    #: This object or message alone: a few tries, then a person looks. The neighbour answered, so it is well.
    OBJECT = "object"
    #: Nothing will work until somebody changes a setting: parked at once, and the neighbour is paused.
    CONFIGURATION = "configuration"
    #: The same UID or key with other content, or another patient: never tried again, a person decides.
    CONFLICT = "conflict"
    #: A disk of ours is full or failing: the whole queue waits, and no attempt is counted.
    DISK = "disk"


@dataclass(frozen=True)
class Policy:
    """How patient a queue is. `jitter` is the share of a wait that chance decides: 0 none, 1 all of it.

    Without it, everything that failed together comes again together, at the moment the neighbour gets up.
    """

    first: timedelta
    multiplier: float = 2
    cap: timedelta = timedelta(hours=1)
    attempts: int = 50
    object_attempts: int = 3
    jitter: float = 0.5

    def wait(self, attempts: int, draw: float) -> timedelta:
        """The wait after so many failed attempts (1 after the first); `draw` is a chance number in [0, 1).

        Between (1 - jitter) and 1 of `first` times `multiplier` for each earlier failure, at most `cap` (or `first`,
        if that is longer). For the same draw it never shrinks from one attempt to the next.
        """
        grown = self.first.total_seconds() * self.multiplier ** min(max(attempts - 1, 0), 64)
        longest = min(grown, max(self.cap, self.first).total_seconds())
        return timedelta(seconds=longest * (1 - self.jitter * draw))


@dataclass(frozen=True)
class Decision:
    """What becomes of the work that failed, and what is paused with it."""

    state: Literal["retrying", "parked"]
    wait: timedelta = timedelta()
    counts: bool = True  # as an attempt of this work
    pauses: Literal["", "neighbour", "queue"] = ""


def decide(kind: ErrorClass, attempts: int, policy: Policy, draw: float, is_probe: bool = False) -> Decision:
    """What an error of this class does after so many attempts, this one among them.

    `is_probe`: the neighbour was paused already, and this attempt asked whether it is well again. One person who
    looks is enough then: what is tried meanwhile isn't parked, one after the other, for the same cause.
    """
    again = Decision("retrying", policy.wait(attempts, draw))
    match kind:
        case ErrorClass.TRANSIENT:
            return again if attempts < policy.attempts else Decision("parked")
        case ErrorClass.OBJECT:
            return again if attempts < min(policy.attempts, policy.object_attempts) else Decision("parked")
        case ErrorClass.CONFIGURATION if is_probe:
            return Decision("retrying", again.wait, counts=False, pauses="neighbour")
        case ErrorClass.CONFIGURATION:
            return Decision("parked", pauses="neighbour")
        case ErrorClass.CONFLICT:
            return Decision("parked")
        case ErrorClass.DISK:
            return Decision("retrying", again.wait, counts=False, pauses="queue")


# --- DIMSE ------------------------------------------------------------------------------------------

Service = Literal["store", "query"]  # C-STORE; C-FIND, C-MOVE and C-GET

_T, _O, _C, _X = ErrorClass.TRANSIENT, ErrorClass.OBJECT, ErrorClass.CONFIGURATION, ErrorClass.CONFLICT

#: PS3.7 annex C: statuses that any service may answer. Success (0000), pending (FF00, FF01) and warnings are no errors.
_ANY_SERVICE = {
    0x0105: _O,  # no such attribute
    0x0106: _O,  # invalid attribute value
    0x0110: _O,  # processing failure: most often of this very object; a few tries, then a person
    0x0111: _X,  # duplicate SOP instance
    0x0112: _O,  # no such SOP instance
    0x0115: _O,  # invalid argument value
    0x0117: _O,  # invalid object instance
    0x0118: _C,  # no such SOP class
    0x0119: _O,  # class-instance conflict
    0x0120: _O,  # missing attribute
    0x0121: _O,  # missing attribute value
    0x0122: _C,  # refused: SOP class not supported
    0x0123: _C,  # no such action
    0x0124: _C,  # refused: not authorised
    0x0210: _T,  # duplicate invocation
    0x0211: _C,  # unrecognised operation
    0x0212: _O,  # mistyped argument
    0x0213: _T,  # resource limitation
    0xA801: _C,  # PS3.4 C.4.2.1.5: move destination unknown
    0xFE00: _T,  # PS3.4 C.4: cancelled
}
#: (first, last, class) by service: PS3.4 table B.2-1 (C-STORE); tables C.4-1, C.4-2, C.4-3 (C-FIND, C-MOVE, C-GET).
_RANGES: dict[Service, tuple[tuple[int, int, ErrorClass], ...]] = {
    "store": (
        (0x0122, 0x0122, _O),  # this SOP class is not taken; others are
        (0xA700, 0xA7FF, _T),  # out of resources
        (0xA900, 0xA9FF, _O),  # data set doesn't match the SOP class
        (0xC000, 0xCFFF, _O),  # can't understand
    ),
    "query": (
        (0xA702, 0xA702, _O),  # unable to perform sub-operations: most often one bad object; smaller parts tell
        (0xA700, 0xA7FF, _T),  # out of resources, and to count matches (A701)
        (0xA900, 0xA9FF, _C),  # identifier doesn't match the SOP class: this question will never be answered
        (0xB000, 0xB000, _O),  # sub-operations complete, with failures
        (0xC000, 0xCFFF, _O),  # unable to process
    ),
}
_NO_ERRORS = {
    "store": {0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007},
    "query": {0x0000, 0x0001, 0xFF00, 0xFF01},
}


def of_dimse(service: Service, status: int) -> ErrorClass | None:
    """The class of a DIMSE status; None where it is success, pending or a warning. An unknown one is the object's."""
    if status in _NO_ERRORS[service]:
        return None
    for first, last, kind in _RANGES[service]:
        if first <= status <= last:
            return kind
    return _ANY_SERVICE.get(status, _O)


# --- Orthanc ----------------------------------------------------------------------------------------

#: HTTP statuses (RFC 9110, RFC 4918 for 507) as Orthanc's REST gives them.
_HTTP = {
    400: _O, 401: _C, 403: _C, 404: _O, 405: _C, 406: _O, 408: _T, 409: _X, 411: _O, 413: _O, 415: _O, 429: _T,
    507: ErrorClass.DISK,
}  # fmt: skip

#: `OrthancStatus` and a job's `ErrorCode` (OrthancPluginErrorCode): full storage, and can't write to a file.
_DISK_CODES = {14, 19}
_STATUS = re.compile(r"(?:DIMSE status|[Ss]tatus:?) 0x([0-9A-Fa-f]{4})")
_CODE = re.compile(r'"OrthancStatus"\s*:\s*(\d+)')
#: As zambezi.orthanc_client puts a refusal.
_REFUSED = re.compile(r": HTTP (\d{3}):")
#: How Orthanc and DCMTK put it in words (1.10.1 to 1.13.0); the first that is found decides.
_WORDS = (
    (ErrorClass.DISK, r"file storage is full|[Cc]annot write to file|No space left"),
    (_C, r"symbolic name|Not Recognized"),
    (_O, r"(?i)no (valid|accept).*presentation context|negotiate a presentation context|inexistent"),
    (_T, r"(?i)connect|rejected|time-?out|abort|peer|network protocol"),
)


def of_http(status: int) -> ErrorClass | None:
    """The class of an HTTP status; None below 400."""
    if status < 400:
        return None
    return _HTTP.get(status, _T if status >= 500 else _O)


def dimse_status(details: str) -> int | None:
    """The DIMSE status in Orthanc's words, such as 0xA702; None where there is none."""
    found = _STATUS.search(details)
    return int(found.group(1), 16) if found else None


def of_orthanc(details: str, service: Service, code: int | None = None) -> ErrorClass:
    """The class of an error in Orthanc's words: a refusal's text, or a job's ErrorDetails and ErrorCode.

    Orthanc answers 500 to whatever a peer did; the DIMSE status and the words inside say more.
    """
    found = _CODE.search(details)
    if code in _DISK_CODES or (found and int(found.group(1)) in _DISK_CODES):
        return ErrorClass.DISK
    status = dimse_status(details)
    if status is not None:
        return of_dimse(service, status) or _O
    if service == "query" and "Unknown resource" in details:  # the modality itself: a query names nothing else
        return _C
    said = next((kind for kind, words in _WORDS if re.search(words, details)), None)
    http = _REFUSED.search(details)
    return said or (of_http(int(http.group(1))) if http else None) or _O


# --- the machine, the database, HL7 ---------------------------------------------------------------------

#: errno(3). What isn't here is the way, for now.
_ERRNO = {
    errno.ENOSPC: ErrorClass.DISK, errno.EDQUOT: ErrorClass.DISK, errno.EIO: ErrorClass.DISK,
    errno.EROFS: ErrorClass.DISK, errno.EACCES: _C, errno.EPERM: _C, errno.ENOENT: _C, errno.EFBIG: _O,
}  # fmt: skip


def of_os(error: OSError) -> ErrorClass:
    """The class of an error of the operating system: files, sockets (and `requests`, whose errors are OSErrors)."""
    if error.errno is not None:
        return _ERRNO.get(error.errno, _T)
    # requests and ssl say in the type what they don't say in errno; time-outs and lost lines come again.
    lasting = ("SSLCertVerificationError", "SSLError", "InvalidURL", "MissingSchema", "InvalidSchema")
    return _C if type(error).__name__ in lasting else _T


def of_database(words: str) -> ErrorClass:
    """The class of a database's error, by its words: SQLITE_FULL and SQLITE_IOERR, PostgreSQL 53100."""
    full = re.search(r"disk is full|disk I/O error|No space left|could not extend file|53100", words)
    return ErrorClass.DISK if full else _T


#: ERR-3 or MSA-6 (HL7 table 0357): where the code says more than "not this message".
_ACK_ERRORS = {
    "202": _C,  # unsupported processing id: of every message of ours
    "203": _C,  # unsupported version id
    "205": _X,  # duplicate key identifier
    "206": _T,  # application record locked
    "207": _T,  # application internal error
}


def of_ack(code: str, error: str = "") -> ErrorClass | None:
    """The class of an acknowledgement (HL7 2.5.1 table 0008, 2.9.2): MSA-1, and the error code where there is one.

    None where the message was accepted. AE, AR, CE and CR are about this message: the peer has read it. What
    isn't an acknowledgement at all comes from something in between, which may be gone next time.
    """
    if code in ("AA", "CA"):
        return None
    if code not in ("AE", "AR", "CE", "CR"):
        return _T
    return _ACK_ERRORS.get(error, _O)
