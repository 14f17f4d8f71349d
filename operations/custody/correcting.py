"""Carrying out corrections: the old and the new bytes of every instance in the hold first, then the archive changed.

preparing   all that Orthanc has is recorded; of every instance the old and the corrected bytes are in the hold,
            on disk. A fault here parks the correction, and nothing has changed.
switching   from here only forward. An instance that gets another identity (patient ID, study or series UID) is stored
            anew, read back, and the old one is deleted; one that keeps its identity is deleted, stored and read back
            (Orthanc overwrites nothing, and must not). How far it is, is what Orthanc really holds: after a death
            the same steps find it and go on.
done        receivers that hold the old copies are sent the corrected ones, order and reports follow.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from operations.custody import planning, receivers
from operations.custody.following import wait_until_followed
from operations.custody.planning import CannotBeDone, Prepared, Target
from operations.custody.rewriting import Stamp
from operations.custody.worker import WRITER, Desk
from zambezi import announcing, audit, clock, corrections, crash, exceptions, hold, holding, leases
from zambezi.correctable import ACCESSION_NUMBER, PATIENT_ID
from zambezi.database.tables import Correction, CorrectionItem, Held, Study
from zambezi.hold import NotHeld
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.orthanc_client import OrthancError, OrthancRefused

log = logging.getLogger("zambezi.correcting")

LEASE = timedelta(seconds=60)
#: The first and the longest wait after a fault that goes away by itself, and after how many a person is told.
FIRST_WAIT, LONGEST_WAIT, PATIENCE = timedelta(seconds=5), timedelta(minutes=10), 8
#: So long a correction of the same instances is waited for at a time.
QUEUED = timedelta(seconds=5)
FOLLOWED_S, KNOWN_S = 60.0, 60.0
#: Instances in one audit entry.
PART = 500

#: Facts of a Study row, by the tag that holds them in the archive's answer, and their longest.
_STUDY_FACTS = {
    "patient_id": ("PatientID", 64), "patient_name": ("PatientName", 200), "birth_date": ("PatientBirthDate", 8),
    "sex": ("PatientSex", 16), "accession_number": ("AccessionNumber", 64), "study_date": ("StudyDate", 8),
    "study_time": ("StudyTime", 16), "description": ("StudyDescription", 200),
}  # fmt: skip
_TAGS = {
    "PatientID": PATIENT_ID, "PatientName": "00100010", "PatientBirthDate": "00100030", "PatientSex": "00100040",
    "AccessionNumber": ACCESSION_NUMBER, "StudyDate": "00080020", "StudyTime": "00080030",
    "StudyDescription": "00081030",
}  # fmt: skip


class NotYet(Exception):
    """It can't go on just now, and will by itself; `counts`: whether that is an attempt."""

    def __init__(self, why: str, counts: bool = True) -> None:
        super().__init__(why)
        self.counts = counts


class Correcting:
    """The step of the custody worker."""

    def __init__(self, desk: Desk, lease: timedelta = LEASE) -> None:
        self._desk = desk
        self._lease = lease

    def round(self) -> bool:
        """Carry out one correction, or go on with one; False where none is due."""
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
                work = _Work(self._desk, row, lease, keeper)
                if row.state == "preparing" and not work.prepare():
                    return True
                work.switch()
                work.finish()
        except Fenced as why:
            log.info("%s", why)
        except CannotBeDone as why:
            self._settle(_park, lease, why)
        except (NotYet, NotHeld, OrthancError, OSError) as why:
            log.warning("correction %s: %s", row.id, why)
            self._settle(_wait, lease, why)
        return True

    def _settle(self, act: Callable[[Session, Lease, Exception, datetime], None], lease: Lease, why: Exception) -> None:
        try:
            with self._desk.sessions.begin() as session:
                act(session, lease, why, self._desk.now())
        except Fenced as why:
            log.info("%s", why)


class _Work:
    """One correction under a lease."""

    def __init__(self, desk: Desk, row: Correction, lease: Lease, keeper: Keeper) -> None:
        self._desk, self._row, self._lease, self._keeper = desk, row, lease, keeper
        self._reference = f"correction {row.id}"
        self._cause = "restore" if row.kind == "undo" else "correction"

    # -- preparing: nothing in the archive changes

    def prepare(self) -> bool:
        """Everything into the hold, and the archive told what comes; False where there is nothing to change."""
        if not wait_until_followed(self._desk.orthanc, FOLLOWED_S):
            raise NotYet("the archive's journal has not taken in the last changes yet")
        targets = self._plan()
        self._claim_instances(targets)
        becomes: dict[str, str] = {}
        sop_uids: list[str] = []
        for target in targets:
            self._keeper.check()
            prepared = planning.prepare(self._desk.orthanc, self._desk.environment.hold_dir, target, self._stamp)
            self._keep(prepared)
            if prepared.is_change:
                becomes[target.orthanc_id] = prepared.becomes.orthanc_id
                sop_uids.append(prepared.was.sop_uid)
        if not becomes:
            self._nothing_to_do()
            return False
        found = planning.collisions(self._desk.orthanc, becomes)
        if found:
            raise CannotBeDone("; ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else ""))
        self._announce(sop_uids)
        self._begin_switching()
        return True

    @property
    def _stamp(self) -> Stamp:
        reason = "COERCE" if self._row.kind == "merge" else "CORRECT"
        return Stamp(clock.parse(self._row.created_at), f"ZAMBEZI correction {self._row.id}", reason)

    def _plan(self) -> Sequence[Target]:
        with self._desk.sessions.begin() as session:
            if self._row.kind == "undo":
                why = corrections.why_not_undone(session, self._row.undo_of, self._row.id)
                if why:
                    raise CannotBeDone(why)
            wanted = planning.read(session, self._row.kind, self._row.request, self._row.undo_of)
        return planning.plan(self._desk.orthanc, wanted)

    def _claim_instances(self, targets: Sequence[Target]) -> None:
        """From here no other correction may be at these instances; one that is already goes first."""
        with self._desk.sessions.begin() as session:
            leases.write(session, self._lease, {"updated_at": self._at})
            # The entry locks the head of our chain: two workers can't look at the same moment and both see nobody.
            self._audit(session, state="preparing", instances=len(targets))
            ids = [target.orthanc_id for target in targets]
            self._wait_for_others(session, ids, ("preparing", "switching"))
            session.execute(delete(CorrectionItem).where(CorrectionItem.correction_id == self._row.id))
            for one in ids:
                session.add(
                    CorrectionItem(
                        correction_id=self._row.id, old_orthanc_id=one, sop_uid="", old_study_uid="",
                        old_series_uid="", new_study_uid="", new_series_uid="",
                    )
                )  # fmt: skip

    def _wait_for_others(self, session: Session, ids: Sequence[str], states: Sequence[str]) -> None:
        other = corrections.in_the_way(session, self._row.id, ids, states)
        if other is not None:
            raise NotYet(f"correction {other} is changing the same instances: this one comes after it", counts=False)

    def _keep(self, prepared: Prepared) -> None:
        """Old and new bytes on disk, then the rows that say so."""
        if not prepared.is_change:
            with self._desk.sessions.begin() as session:
                leases.write(session, self._lease, {"updated_at": self._at})
                session.execute(delete(CorrectionItem).where(self._item(prepared.target.orthanc_id)))
            return
        folder = self._desk.environment.hold_dir
        old_sha256, new_sha256 = hold.put(folder, prepared.old), hold.put(folder, prepared.new)
        crash.point(WRITER)
        was, becomes = prepared.was, prepared.becomes
        common: dict[str, Any] = {
            "why": "corrected", "state": "kept", "sop_uid": was.sop_uid, "now": self._desk.now(), "writer": WRITER,
        }  # fmt: skip
        with self._desk.sessions.begin() as session:
            leases.write(session, self._lease, {"updated_at": self._at})
            holding.hold(
                session, sha256=old_sha256, size=len(prepared.old), reference=self._reference,
                reason=f"the copy before {self._reference}", series_uid=was.series_uid, study_uid=was.study_uid,
                patient_id=was.patient_id, orthanc_id=was.orthanc_id, other_sha256=new_sha256, **common,
            )  # fmt: skip
            holding.hold(
                session, sha256=new_sha256, size=len(prepared.new), reference=f"{self._reference}, new copy",
                reason=f"the copy that {self._reference} makes", series_uid=becomes.series_uid,
                study_uid=becomes.study_uid, patient_id=becomes.patient_id, orthanc_id=becomes.orthanc_id,
                other_sha256=old_sha256, **common,
            )  # fmt: skip
            session.execute(
                update(CorrectionItem)
                .where(self._item(prepared.target.orthanc_id))
                .values(
                    sop_uid=was.sop_uid, old_study_uid=was.study_uid, old_series_uid=was.series_uid,
                    new_study_uid=becomes.study_uid, new_series_uid=becomes.series_uid,
                    old_study=was.study_orthanc_id, new_study=becomes.study_orthanc_id,
                    new_orthanc_id=becomes.orthanc_id, old_sha256=old_sha256, new_sha256=new_sha256, state="held",
                )
            )  # fmt: skip

    def _nothing_to_do(self) -> None:
        with self._desk.sessions.begin() as session:
            self._end(session, "nothing to change: every image has these values already, or there is none")

    def _announce(self, sop_uids: Sequence[str]) -> None:
        with self._desk.sessions.begin() as session:
            generation = announcing.announce_instances(
                session, sop_uids, self._cause, self._reference, self._desk.now()
            )
        if not announcing.wait_until_known(self._desk.orthanc, generation, KNOWN_S):
            raise NotYet("the archive was not told what comes: is the gateway running?")

    def _begin_switching(self) -> None:
        """The list with its digests, then the point of no return, in one transaction (DESIGN rule 3)."""
        with self._desk.sessions.begin() as session:
            items = corrections.items_of(session, self._row.id)
            # Locks our chain, as above: of two that would meet in the same place one goes first.
            for n in range(0, len(items), PART):
                listed = [
                    [one.sop_uid, one.old_orthanc_id, one.old_sha256, one.new_orthanc_id, one.new_sha256]
                    for one in items[n : n + PART]
                ]
                self._audit(session, state="switching", listed=listed)
            places = [one.new_orthanc_id or "" for one in items]
            self._wait_for_others(session, places, ("switching",))
            leases.write(session, self._lease, {"state": "switching", "updated_at": self._at, "attempts": 1})

    # -- switching: only forward

    def switch(self) -> None:
        """Bring every instance from old to new, whatever was done before."""
        with self._desk.sessions.begin() as session:
            left = [one for one in corrections.items_of(session, self._row.id) if one.state != "done"]
        for item in left:
            if item.old_orthanc_id == item.new_orthanc_id:
                self._exchange(item)
            else:
                self._transfer(item)

    def _exchange(self, item: CorrectionItem) -> None:
        """The instance keeps its identity: the old one goes, the new one comes."""
        there = self._look(item.old_orthanc_id)
        if there is not None and there != item.new_sha256:
            self._remove(item, item.old_orthanc_id, there, item.old_sha256)
            there = None
        if there is None:
            self._mark(item, "removed")
            self._store(item)
        self._mark(item, "done")

    def _transfer(self, item: CorrectionItem) -> None:
        """The instance gets another identity: the new one comes, then the old one goes."""
        new_id = item.new_orthanc_id or ""
        there = self._look(new_id)
        if there is not None and there != item.new_sha256:
            self._remove(item, new_id, there, None)
            there = None
        if there is None:
            self._store(item)
        self._mark(item, "stored")
        there = self._look(item.old_orthanc_id)
        if there is not None:
            self._remove(item, item.old_orthanc_id, there, item.old_sha256)
        self._mark(item, "done")

    def _look(self, orthanc_id: str) -> str | None:
        """The digest of what the archive holds there; None for nothing."""
        try:
            return hashlib.sha256(self._desk.orthanc.file(orthanc_id)).hexdigest()
        except OrthancRefused as refused:
            if refused.status == 404:
                return None
            raise

    def _store(self, item: CorrectionItem) -> None:
        content = hold.get(self._desk.environment.hold_dir, item.new_sha256 or "")
        self._keeper.check()
        crash.point(WRITER)
        answer = self._desk.orthanc.store(content)
        crash.point(WRITER)
        if answer["ID"] != item.new_orthanc_id or self._look(answer["ID"]) != item.new_sha256:
            raise NotYet(f"the archive does not give back instance {item.new_orthanc_id} as it was stored")

    def _remove(self, item: CorrectionItem, orthanc_id: str, there: str, expected: str | None) -> None:
        """Delete what the archive holds there; bytes that nobody has kept yet go to the hold first, for a person."""
        if there != expected:
            self._keep_stranger(item, orthanc_id)
        else:
            hold.get(self._desk.environment.hold_dir, there)  # whole, and there: NotHeld says if not
        self._keeper.check()
        crash.point(WRITER)
        self._delete(orthanc_id)
        crash.point(WRITER)

    def _delete(self, orthanc_id: str) -> None:
        try:
            self._desk.orthanc.request("DELETE", f"/instances/{orthanc_id}")
        except OrthancRefused as refused:
            if refused.status != 404:
                raise

    def _keep_stranger(self, item: CorrectionItem, orthanc_id: str) -> None:
        """Somebody stored other content there since the list was made: it is a conflict, and waits for a person."""
        if not wait_until_followed(self._desk.orthanc, FOLLOWED_S):
            raise NotYet("the archive's journal has not taken in the last changes yet")
        content = self._desk.orthanc.file(orthanc_id)
        sha256 = hold.put(self._desk.environment.hold_dir, content)
        with self._desk.sessions.begin() as session:
            leases.write(session, self._lease, {"updated_at": self._at})
            holding.hold(
                session, sha256=sha256, size=len(content), why="conflict", reference=self._reference,
                reason=f"it came while {self._reference} was changing this instance", sop_uid=item.sop_uid,
                study_uid=item.new_study_uid, series_uid=item.new_series_uid, orthanc_id=orthanc_id,
                other_sha256=item.new_sha256, now=self._desk.now(), writer=WRITER,
            )  # fmt: skip

    def _mark(self, item: CorrectionItem, state: str) -> None:
        with self._desk.sessions.begin() as session:
            leases.write(session, self._lease, {"updated_at": self._at})
            session.execute(update(CorrectionItem).where(self._item(item.old_orthanc_id)).values(state=state))

    # -- afterwards

    def finish(self) -> None:
        """What follows from it, in one transaction with the end."""
        with self._desk.sessions.begin() as session:
            items = corrections.items_of(session, self._row.id)
        pairs = sorted({(one.old_study_uid, one.old_study, one.new_study_uid, one.new_study) for one in items})
        facts = {new: self._facts_of(new) for new in {pair[3] for pair in pairs}}
        left = {old: self._left_in(old) for _, old, _, new in pairs if old != new}
        with self._desk.sessions.begin() as session:
            said = [f"{len(items)} instances corrected; the old copies are in the hold"]
            for old_uid, old, new_uid, new in pairs:
                parts = [pair for pair in pairs if pair[1] == old]
                whole = not left.get(old) and len(parts) == 1
                self._follow(session, old_uid, old, new_uid, new, facts[new], whole)
            said += receivers.send_corrected(session, self._row.id, items, self._desk.now(), WRITER)
            staying = sum(left.values())
            if staying and self._row.kind not in ("move", "edit", "replace", "undo"):
                said.append(f"{staying} instances that came meanwhile are still in the old study")
                self._tell_of_late_ones(session, staying)
            session.execute(
                update(Held)
                .where(Held.reference == f"{self._reference}, new copy", Held.state == "kept")
                .values(keep_until=self._at)
            )
            self._end(session, "; ".join(said))
        log.info("correction %s is done: %s instances", self._row.id, len(items))

    def _facts_of(self, study: str) -> dict[str, str]:
        """What the archive says of a study, once its answers rest on the new images.

        Where an instance was exchanged for itself, Orthanc still answers with what the first image of patient, study
        and series said when it came: it is made to read them anew.
        """
        crash.point(WRITER)
        try:
            self._desk.orthanc.request("POST", f"/studies/{study}/reconstruct", json={}, timeout_s=600)
            found = self._desk.orthanc.get(f"/studies/{study}")
        except OrthancRefused as refused:
            if refused.status == 404:  # deleted since: nothing to say of it
                return {}
            raise
        return {**found["PatientMainDicomTags"], **found["MainDicomTags"]}

    def _left_in(self, study: str) -> int:
        """How many instances the old study still has."""
        try:
            return int(self._desk.orthanc.get(f"/studies/{study}/statistics")["CountInstances"])
        except OrthancRefused as refused:
            if refused.status == 404:
                return 0
            raise

    def _follow(
        self, session: Session, old_uid: str, old: str, new_uid: str, new: str, facts: dict[str, str], whole: bool
    ) -> None:
        """The tables say of the study what its images say now; order, reports and steps go with it."""
        if not facts:
            return
        known = session.get(Study, (new_uid, new))
        if known is not None:
            for column, (keyword, longest) in _STUDY_FACTS.items():
                setattr(known, column, facts.get(keyword, "")[:longest])
            session.flush()
        if find_spec("zambezi.patients") is None:
            return
        import_module("zambezi.patients").relink(
            session, old_study_uid=old_uid, old_orthanc_id=old, new_study_uid=new_uid, new_orthanc_id=new,
            patient_id=facts.get("PatientID", ""), accession_number=facts.get("AccessionNumber", ""),
            order_id=self._row.request.get("order"), now=self._desk.now(), writer=WRITER, whole=whole,
            changes={tag: facts.get(keyword, "") for keyword, tag in _TAGS.items()},
        )  # fmt: skip

    def _tell_of_late_ones(self, session: Session, staying: int) -> None:
        exceptions.wait(
            session, corrections.ROOM, f"{self._row.id} late", now=self._desk.now(), kind="came-late",
            what=f"{staying} instances came into the old study while {self._reference} was carried out",
            suggestion="Look at them, and correct them too if they belong to it.",
        )  # fmt: skip

    def _end(self, session: Session, outcome: str) -> None:
        at = self._at
        leases.finish(session, self._lease, "done", outcome=outcome, updated_at=at, done_at=at)
        exceptions.decide(
            session, corrections.ROOM, str(self._row.id), who="zambezi", decision="done", now=self._desk.now()
        )
        self._audit(session, state="done", reason=outcome)

    @property
    def _at(self) -> str:
        return clock.text(self._desk.now())

    def _item(self, old_orthanc_id: str) -> Any:
        return (CorrectionItem.correction_id == self._row.id) & (CorrectionItem.old_orthanc_id == old_orthanc_id)

    def _audit(self, session: Session, **facts: Any) -> None:
        audit.append(
            session, WRITER, "correction-changed", self._desk.now(), correction=self._row.id, kind=self._row.kind,
            who=self._row.asked_by, **facts,
        )  # fmt: skip


def _waiting(attempts: int) -> timedelta:
    """The wait after so many attempts."""
    grown: timedelta = FIRST_WAIT * 2 ** min(max(attempts - 1, 0), 20)
    return min(grown, LONGEST_WAIT)


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
    later = clock.text(now + (_waiting(row.attempts) if counts else QUEUED))
    if row.state == "switching":
        leases.write(session, lease, {"lease_owner": None, "lease_until": later})
        if row.attempts % PATIENCE == 0:
            _tell_of_trouble(session, row, str(why), now)
    elif counts and row.attempts >= PATIENCE:
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
