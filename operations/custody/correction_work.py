"""One correction under a lease: what its phases share."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import ColumnElement, and_, update
from sqlalchemy.orm import Session

from operations.custody.worker import WRITER, Desk
from zambezi import audit, clock, corrections, exceptions, leases
from zambezi.database.tables import Correction, CorrectionItem
from zambezi.leases import Keeper, Lease
from zambezi.orthanc_client import OrthancRefused

#: What `Work.look` says of an instance that the archive has in its index, but whose file is gone.
UNREADABLE = "unreadable"
#: How Orthanc (1.10.1 to 1.13.0) says that the file is gone, with HTTP status 500.
_NO_FILE = ("does not point to a regular file", "Inexistent file")


class NotYet(Exception):
    """It can't go on just now, and will by itself; `counts`: whether that is an attempt."""

    def __init__(self, why: str, counts: bool = True) -> None:
        super().__init__(why)
        self.counts = counts


class Work:
    """A correction that this worker has claimed."""

    def __init__(self, desk: Desk, row: Correction, lease: Lease, keeper: Keeper) -> None:
        self.desk, self.row, self.lease, self.keeper = desk, row, lease, keeper
        self.reference = f"correction {row.id}"
        self.cause = "restore" if row.kind == "undo" else "correction"

    @property
    def at(self) -> str:
        """This moment, as the tables hold it."""
        return clock.text(self.desk.now())

    def item(self, old_orthanc_id: str) -> ColumnElement[bool]:
        """The row of this instance."""
        return and_(CorrectionItem.correction_id == self.row.id, CorrectionItem.old_orthanc_id == old_orthanc_id)

    def audit(self, session: Session, **facts: Any) -> None:
        """An entry about this correction in our chain."""
        audit.append(
            session, WRITER, "correction-changed", self.desk.now(), correction=self.row.id, kind=self.row.kind,
            who=self.row.asked_by, **facts,
        )  # fmt: skip

    def look(self, orthanc_id: str) -> str | None:
        """The digest of what the archive holds there; None for nothing, UNREADABLE for a row without its file."""
        try:
            return hashlib.sha256(self.desk.orthanc.file(orthanc_id)).hexdigest()
        except OrthancRefused as refused:
            if refused.status == 404 or any(words in str(refused) for words in _NO_FILE):
                return self._row_without_file(orthanc_id)
            raise

    def _row_without_file(self, orthanc_id: str) -> str | None:
        # After a power cut the index may say what was so ten seconds before: a deleted instance is there, its file not.
        try:
            self.desk.orthanc.get(f"/instances/{orthanc_id}")
        except OrthancRefused as refused:
            if refused.status == 404:
                return None
            raise
        return UNREADABLE

    def mark(self, item: CorrectionItem, state: str) -> None:
        """Commit how far an instance is, if the correction is still ours."""
        with self.desk.sessions.begin() as session:
            leases.write(session, self.lease, {"updated_at": self.at})
            session.execute(update(CorrectionItem).where(self.item(item.old_orthanc_id)).values(state=state))

    def end(self, session: Session, outcome: str) -> None:
        """It is done."""
        at = self.at
        leases.finish(session, self.lease, "done", outcome=outcome, updated_at=at, done_at=at)
        exceptions.decide(
            session, corrections.ROOM, str(self.row.id), who="zambezi", decision="done", now=self.desk.now()
        )
        self.audit(session, state="done", reason=outcome)
