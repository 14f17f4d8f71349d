"""Storage commitment that stations ask of Orthanc's own port: it can't be switched off there, so it is warned of.

Orthanc (each supported version) answers from its index alone, by a job that its REST shows. What is seen is kept as a
request in state *elsewhere*, so that each is told of once, whatever is started again in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from gateway.commitment.requests import ROOM, tell
from zambezi import clock, exceptions
from zambezi.database.engine import Sessions
from zambezi.database.tables import CommitmentRequest
from zambezi.orthanc_client import OrthancClient

#: Orthanc keeps its last jobs (JobsHistorySize): looking once a minute misses none.
LOOK_S = 60.0
JOB = "StorageCommitmentScp"
#: Requests that were answered are kept so long; the audit trail keeps its own.
KEPT = timedelta(days=90)
_AT_REST = ("reported", "cancelled", "elsewhere")


def seen(jobs: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(AE title, Transaction UID) of each request that Orthanc's jobs tell of."""
    contents = [job.get("Content", {}) for job in jobs if job.get("Type") == JOB]
    found = [(str(one.get("RemoteAet", ""))[:16], str(one.get("TransactionUid", ""))[:64]) for one in contents]
    return [(aet, uid) for aet, uid in found if aet and uid]


def note(session: Session, aet: str, transaction_uid: str, port: int, now: datetime) -> bool:
    """Keep it and put it before a person; False where it is known. `port`: where it should have been asked."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    at = clock.text(now)
    new = insert(CommitmentRequest).values(
        aet=aet, called_aet="", transaction_uid=transaction_uid, instances=[], failed=[], study_uids=[],
        state="elsewhere", outcome="answered by the archive's own port, from its index alone", next_at=at, asked_at=at,
        updated_at=at,
    )  # fmt: skip
    number = session.scalar(new.on_conflict_do_nothing().returning(CommitmentRequest.id))
    if number is None:
        return False
    row = session.get_one(CommitmentRequest, number)
    exceptions.wait(
        session, ROOM, f"{aet} at the archive's own port", now=now, kind="commitment-own-port",
        facts={"source": aet, "port": port},
        what=f"{aet} asks the archive's own port for storage commitment, which looks at the index alone",
        suggestion=f"Set storage commitment of {aet} to port {port}.",
    )  # fmt: skip
    tell(session, row, now, state="elsewhere", reason=row.outcome)
    return True


class Watch:
    """One Orthanc's own port."""

    def __init__(self, sessions: Sessions, orthanc: OrthancClient, port: int) -> None:
        self._sessions = sessions
        self._orthanc = orthanc
        self._port = port
        self._known: set[tuple[str, str]] = set()

    def look(self) -> float:
        """Note what is new, forget what is old; the seconds until the next look. Raises what the client raises."""
        found = set(seen(self._orthanc.get("/jobs", expand="")))
        now = clock.now()
        with self._sessions.begin() as session:
            for aet, transaction_uid in sorted(found - self._known):
                note(session, aet, transaction_uid, self._port, now)
            forget(session, now)
        self._known = found
        return LOOK_S


def forget(session: Session, now: datetime) -> None:
    """Take away requests that were answered long ago."""
    old = (CommitmentRequest.state.in_(_AT_REST), CommitmentRequest.updated_at < clock.text(now - KEPT))
    session.execute(delete(CommitmentRequest).where(*old))
