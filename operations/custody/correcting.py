"""Carrying out corrections: the old and the new bytes of every instance in the hold first, then the archive changed.

preparing   all that Orthanc has is recorded; of every instance the old and the corrected bytes are in the hold,
            on disk. A fault here parks the correction, and nothing has changed.
switching   from here only forward. An instance that gets another identity (patient ID, study or series UID) is stored
            anew, read back, and the old one is deleted; one that keeps its identity is deleted, stored and read back
            (Orthanc overwrites nothing, and must not). How far it is, is what Orthanc really holds: after a death
            the same steps find it and go on. It is done when a look at everything, once the index is on disk, too,
            finds nothing left to do: a power cut takes back what was younger.
done        receivers that hold the old copies are sent the corrected ones, order and reports follow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from operations.custody import concluding, gathering, switching
from operations.custody.correction_work import NotYet, Work
from operations.custody.planning import CannotBeDone
from operations.custody.worker import RETRY, WRITER, Desk
from zambezi import audit, clock, corrections, exceptions, leases
from zambezi.database.tables import Correction, CorrectionItem
from zambezi.hold import NotHeld
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.orthanc_client import OrthancError

log = logging.getLogger("zambezi.correcting")

LEASE = timedelta(seconds=60)
#: On SQLite Orthanc's index is on disk only after ten seconds: what was changed is looked at again after these.
SETTLE = timedelta(seconds=12)
#: Of a correction that was begun and does not end a person is told after every so many attempts.
TOLD_EVERY = 8
#: So long a correction of the same instances is waited for at a time.
QUEUED = timedelta(seconds=5)

_CORRECTIONS = leases.Look(Correction, ready=("due", "retrying"), working="preparing", also_working=("switching",))


class Correcting:
    """The step of the custody worker."""

    def __init__(self, desk: Desk, lease: timedelta = LEASE, settle: timedelta = SETTLE) -> None:
        self._desk = desk
        self._lease = lease
        self._settle_time = settle

    def round(self) -> bool:
        """Carry out one correction, or go on with one; False where none is due."""
        if not _CORRECTIONS(self._desk.sessions, self._desk.now()):
            return False
        with self._desk.sessions.begin() as session:
            claimed = leases.claim(
                session, Correction, ready=("due", "retrying"), working="preparing", also_working=("switching",),
                now=self._desk.now(), owner=self._desk.owner, lease=self._lease,
            )  # fmt: skip
        if claimed is None:
            return False
        row, lease = claimed
        try:
            with Keeper(self._desk.sessions, lease, self._desk.now, self._lease) as keeper:
                if row.state == "preparing" and row.attempts > RETRY.attempts:
                    raise CannotBeDone(
                        f"{row.attempts} workers ended in the middle of it; the log of operations says why"
                    )
                work = Work(self._desk, row, lease, keeper)
                if row.state == "preparing" and not gathering.prepare(work):
                    return True
                if switching.switch(work):
                    self._settle(self._look_again, lease, NotYet("changed; looked at once more before it is done"))
                else:
                    concluding.finish(work)
        except Fenced as why:
            log.info("%s", why)
        except CannotBeDone as why:
            self._settle(_park, lease, why)
        except (NotYet, NotHeld, OrthancError, OSError) as why:
            log.warning("correction %s: %s", row.id, why)
            self._settle(_wait, lease, why)
        return True

    def _look_again(self, session: Session, lease: Lease, why: Exception, now: datetime) -> None:
        until = clock.text(now + self._settle_time)
        said = {"outcome": str(why), "updated_at": clock.text(now)}
        leases.write(session, lease, {**said, "lease_owner": None, "lease_until": until})

    def _settle(self, act: Callable[[Session, Lease, Exception, datetime], None], lease: Lease, why: Exception) -> None:
        try:
            with self._desk.sessions.begin() as session:
                act(session, lease, why, self._desk.now())
        except Fenced as why:
            log.info("%s", why)


def _park(session: Session, lease: Lease, why: Exception, now: datetime) -> None:
    """A person must look; nothing has changed, so the instances are free for others."""
    session.execute(delete(CorrectionItem).where(CorrectionItem.correction_id == lease.id))
    row = leases.finish(session, lease, "parked", outcome=str(why), updated_at=clock.text(now))
    exceptions.wait(
        session, corrections.ROOM, str(row.id), now=now, kind="parked",
        what=f"correction {row.id} ({row.kind}) can't be carried out, nothing was changed: {why}",
        suggestion=f"zambezi correct retry {row.id}, once the cause is gone, or zambezi correct cancel {row.id}",
        actions=[{"label": "Correction", "href": f"/corrections/{row.id}"}],
    )  # fmt: skip
    audit.append(
        session, WRITER, "correction-changed", now, correction=row.id, kind=row.kind, state="parked", reason=str(why)
    )


def _wait(session: Session, lease: Lease, why: Exception, now: datetime) -> None:
    """Try again later: from the beginning, or, once the archive is being changed, from where it is."""
    counts = not isinstance(why, NotYet) or why.counts
    row = leases.write(session, lease, {"outcome": str(why), "updated_at": clock.text(now)})
    later = clock.text(now + (RETRY.wait(row.attempts, 0) if counts else QUEUED))
    if row.state == "switching":
        leases.write(session, lease, {"lease_owner": None, "lease_until": later})
        if row.attempts % TOLD_EVERY == 0:
            _tell_of_trouble(session, row, str(why), now)
    elif counts and row.attempts >= RETRY.attempts:
        _park(session, lease, CannotBeDone(f"{row.attempts} attempts failed, the last one: {why}"), now)
    else:
        leases.finish(session, lease, "retrying", next_at=later, attempts=row.attempts - (0 if counts else 1))


def _tell_of_trouble(session: Session, row: Correction, why: str, now: datetime) -> None:
    exceptions.wait(
        session, corrections.ROOM, str(row.id), now=now, kind="stuck",
        what=f"correction {row.id} ({row.kind}) is half done and can't go on: {why}. All old and new images are in "
        "the hold; it is tried again by itself until it is done",
        suggestion="See that the archive runs, has room on its disk and takes images; zambezi status says more.",
        actions=[{"label": "Correction", "href": f"/corrections/{row.id}"}],
    )  # fmt: skip
