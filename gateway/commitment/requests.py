"""A storage commitment request as it comes in (N-ACTION, DICOM PS3.4 J.3.2): kept before it is answered."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.database.tables import CommitmentRequest
from zambezi.exceptions import Selection

WRITER = "gateway"
ROOM = "commitment"

#: Storage Commitment Push Model, its well-known instance, and its one action (PS3.4 J.3.2, J.3.5).
SOP_CLASS = "1.2.840.10008.1.20.1"
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1

#: Statuses of an N-ACTION (PS3.7 10.1.4.1.10, annex C).
SUCCESS = 0x0000
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213

#: Instances in one request, and requests of one station that aren't answered yet: more is refused (0213).
MOST_INSTANCES = 20_000
MOST_OPEN = 2_000
#: Nothing is looked at before: a station that waits for its answer on this association has time to get ready.
GRACE = timedelta(seconds=1)

OPEN = ("due", "working", "retrying")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Unacceptable(ValueError):
    """The request can't be taken; `status` is what it is answered with, the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """What a station wants us to answer for: instances as (SOP Class UID, SOP Instance UID), each once."""

    transaction_uid: str
    instances: tuple[tuple[str, str], ...]


def read(action: int, instance_uid: str, information: Dataset) -> Asked:
    """The request in an N-ACTION's parameters; Unacceptable where they aren't one."""
    if action != REQUEST_COMMITMENT:
        raise Unacceptable(NO_SUCH_ACTION, f"action type {action}")
    if instance_uid != SOP_INSTANCE:
        raise Unacceptable(NO_SUCH_INSTANCE, f"SOP instance {instance_uid[:64]}")
    references = information.get("ReferencedSOPSequence") or []
    if len(references) > MOST_INSTANCES:
        raise Unacceptable(RESOURCE_LIMITATION, f"{len(references)} instances, at most {MOST_INSTANCES} in one request")
    found = [(_uid(one, "ReferencedSOPClassUID"), _uid(one, "ReferencedSOPInstanceUID")) for one in references]
    if not found:
        raise Unacceptable(INVALID_ARGUMENT, "it names no instance")
    return Asked(_uid(information, "TransactionUID"), tuple(dict.fromkeys(found)))


def take(session: Session, asked: Asked, aet: str, called_aet: str, now: datetime) -> int:
    """Keep the request; the status it is answered with once that is committed.

    The same one again is looked into and answered anew; its Transaction UID with other instances is refused.
    """
    at = clock.text(now)
    instances = [list(one) for one in asked.instances]
    known = session.scalars(
        select(CommitmentRequest)
        .where(CommitmentRequest.aet == aet, CommitmentRequest.transaction_uid == asked.transaction_uid)
        .with_for_update()
    ).first()
    if known is None:
        still = (CommitmentRequest.aet == aet, CommitmentRequest.state.in_(OPEN))
        if (session.scalar(select(func.count()).select_from(CommitmentRequest).where(*still)) or 0) >= MOST_OPEN:
            return RESOURCE_LIMITATION
        known = CommitmentRequest(
            aet=aet, called_aet=called_aet, transaction_uid=asked.transaction_uid, instances=instances, state="due",
            next_at=clock.text(now + GRACE), asked_at=at, updated_at=at,
        )  # fmt: skip
        session.add(known)
        session.flush()
    elif known.instances != instances and known.state != "elsewhere":
        return INVALID_ARGUMENT
    elif known.state not in OPEN:
        known.instances, known.called_aet, known.asked_at = instances, called_aet, at
        ask_again(known, now + GRACE)
    release(session, aet, now)
    tell(session, known, now, state="asked", count=len(instances))
    return SUCCESS


def ask_again(row: CommitmentRequest, next_at: datetime) -> None:
    """Everything anew: index and files are looked at once more, then the station is told."""
    row.state, row.checked_at, row.attempts, row.fence = "due", None, 0, row.fence + 1
    row.failed, row.lease_owner, row.lease_until = [], None, None
    row.next_at = row.updated_at = clock.text(next_at)


def release(session: Session, aet: str, now: datetime) -> None:
    """The station gives a sign of life, or a person says that it is well: what waits because of a failure goes."""
    waits = (CommitmentRequest.aet == aet, CommitmentRequest.state == "retrying")
    session.execute(update(CommitmentRequest).where(*waits).values(next_at=clock.text(now)))


def tell(session: Session, row: CommitmentRequest, now: datetime, /, **facts: Any) -> None:
    """An entry of the audit trail about this request."""
    if len(row.study_uids or ()) == 1:
        facts = {"study_uid": row.study_uids[0], **facts}
    audit.append(
        session, WRITER, "commitment-changed", now, commitment=row.id, aet=row.aet, transaction=row.transaction_uid,
        **facts,
    )  # fmt: skip


def retry(session: Session, number: int, *, now: datetime, who: str) -> bool:
    """A person says: look again and tell the station now. False where it is unknown, or is being worked on."""
    row = session.get(CommitmentRequest, number, with_for_update=True)
    if row is None or row.state in ("working", "elsewhere"):
        return False
    ask_again(row, now)
    release(session, row.aet, now)
    decided(session, row, who=who, decision="try again", now=now)
    tell(session, row, now, state="due", who=who)
    return True


def cancel(session: Session, number: int, *, now: datetime, who: str) -> bool:
    """A person says: the station needn't be told any more. False where it was told, or the request is unknown."""
    row = session.get(CommitmentRequest, number, with_for_update=True)
    if row is None or row.state not in (*OPEN, "parked"):
        return False
    row.state, row.fence, row.updated_at = "cancelled", row.fence + 1, clock.text(now)
    row.lease_owner = row.lease_until = None
    decided(session, row, who=who, decision="cancelled", now=now)
    tell(session, row, now, state="cancelled", who=who)
    return True


def decided(session: Session, row: CommitmentRequest, *, who: str, decision: str, now: datetime) -> None:
    """That this one's answer can't be brought waits for nobody any more."""
    exceptions.decide(session, ROOM, parked_reference(row), who=who, decision=decision, now=now, writer=WRITER)


def parked_reference(row: CommitmentRequest) -> str:
    return f"{row.id} untold"


def failed_reference(row: CommitmentRequest) -> str:
    return f"{row.id} not safe"


def safe_now(session: Session, row: CommitmentRequest, safe: Collection[str], now: datetime) -> None:
    """What waited for a person because these very instances of the station's weren't safe waits no longer."""
    waiting = Selection(room=ROOM, kind="commitment-failed", source=row.aet)
    for item in exceptions.found(session, waiting, now, exceptions.BATCH)[0]:
        earlier = session.get(CommitmentRequest, int(item.facts["number"]))
        if earlier is not None and {one[1] for one in earlier.failed} <= set(safe):
            exceptions.decide(
                session, ROOM, item.reference, who="the archive itself", now=now, writer=WRITER,
                decision=f"safe now, by request {row.id}",
            )  # fmt: skip


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = str(dataset.get(keyword, "") or "")
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise Unacceptable(INVALID_ARGUMENT, f"{keyword}: found {uid[:64]!r}, allowed is a UID")
    return uid
