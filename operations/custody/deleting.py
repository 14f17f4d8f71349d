"""Carrying out deletions, and putting back what was deleted (DESIGN rules 3 and 4).

A deletion whose time has come is worked on in this order, and each step is committed before the next one begins:

1. the archive's follower has passed Orthanc's last change, so that all there is has been recorded;
2. the list of instances is made, once: those that were there when the second person confirmed, or those that were
   asked for one by one (the roll-back of a migration's batch);
3. each instance's file is in the hold, on disk, read back, and equal to what Orthanc says of it (MD5);
4. the list with its digests is in the audit trail, deliveries of the listed instances are cancelled: `deleting`;
5. each instance is deleted, after another look at its lease, at legal holds and at its copy;
6. what is still there is counted: it came after the list was made, and stays.

Death at any place leaves a row that is claimed again when its lease has run out: nothing is deleted whose copy is not
in the hold, and exactly the listed instances go.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.custody.worker import RETRY, WRITER, Desk
from zambezi import announcing, audit, clock, deletions, exceptions, hold, holding, leases
from zambezi.database.tables import Correction, CorrectionItem, Deletion, DeletionItem, Delivery
from zambezi.hold import NotHeld
from zambezi.leases import Fenced, Keeper, Lease
from zambezi.orthanc_client import OrthancError, OrthancRefused

log = logging.getLogger("zambezi.deleting")

LEASE = timedelta(seconds=60)
#: For so long a claimed deletion waits for the follower before it is given back.
FOLLOWED_S = 10.0
#: For so long a restore waits until the archive knows what comes.
KNOWN_S = 30.0
#: Instances in one audit entry.
PART = 500
#: Deliveries that may still bring something to a receiver.
UNMADE = ("due", "sending", "retrying", "parked")

_DELETIONS = leases.Look(
    Deletion, ready=("confirmed", "retrying"), working="due", also_working=("deleting", "restoring")
)


class Parked(Exception):
    """It can't go on by itself; the text says to a person why."""


class NotYet(Exception):
    """It is tried again by itself; the text says what is waited for."""


class Deleting:
    """Custody's step for deletions and their restores."""

    def __init__(self, desk: Desk, lease: timedelta = LEASE) -> None:
        self._desk = desk
        self._lease = lease

    def round(self) -> bool:
        """Work on one deletion; True if there was one."""
        claimed = self._claim()
        if claimed is None:
            return False
        deletion, held = claimed
        with Keeper(self._desk.sessions, held, self._desk.now, self._lease) as keeper:
            try:
                if deletion.state == "restoring":
                    self._restore(deletion, held, keeper)
                else:
                    self._carry_out(deletion, held, keeper)
            except Fenced as why:
                log.info("%s", why)
            except (Parked, NotHeld) as why:
                self._park(held, str(why))
            except (NotYet, OrthancError, OSError) as trouble:
                self._later(deletion, held, trouble)
        return True

    # -- deleting

    def _carry_out(self, deletion: Deletion, held: Lease, keeper: Keeper) -> None:
        if deletion.state == "due":
            self._await_follower()
            self._await_corrections(deletion)
            listed = self._listed(deletion, held)
            for item in listed:
                if item.state in ("planned", "restored"):
                    keeper.check()
                    self._copy(deletion, held, item)
            if not self._begin(deletion, held):
                return
        self._delete(deletion, held, keeper)
        self._finish(deletion, held)

    def _await_follower(self) -> None:
        """Until all that Orthanc has taken in is in the archive's journal."""
        last = int(self._desk.orthanc.get("/changes", last="")["Last"])
        end = time.monotonic() + FOLLOWED_S
        while True:
            told = self._desk.orthanc.get("/zambezi/status")["follower"]
            if told["change"] >= last and not told["error"]:
                return
            if time.monotonic() > end:
                raise NotYet(
                    f"the archive's journal has come to change {told['change']} of {last}"
                    + (f": {told['error']}" if told["error"] else "")
                )
            time.sleep(0.2)

    def _await_corrections(self, deletion: Deletion) -> None:
        """What a correction is changing just now is not deleted under its hands."""
        about = (CorrectionItem.old_study_uid == deletion.study_uid) | (
            CorrectionItem.new_study_uid == deletion.study_uid
        )
        query = (
            select(Correction.id)
            .join(CorrectionItem, CorrectionItem.correction_id == Correction.id)
            .where(about, Correction.state.not_in(("done", "cancelled")))
        )
        with self._desk.sessions.begin() as session:
            unfinished = session.scalars(query.limit(1)).first()
        if unfinished is not None:
            raise NotYet(f"correction {unfinished} of the same study is not finished")

    def _listed(self, deletion: Deletion, held: Lease) -> Sequence[DeletionItem]:
        """The list, made at the first attempt and kept from then on."""
        with self._desk.sessions.begin() as session:
            known = deletions.items(session, deletion)
        if known:
            return known
        confirmed = clock.parse(deletion.confirmed_at or "")
        there = self._there(deletion)
        chosen = [one for one in there if _received(one) <= confirmed]
        if not chosen:
            raise Parked("the archive has none of these images, so there is nothing to delete")
        with self._desk.sessions.begin() as session:
            self._renew(session, held)
            for one in chosen:
                session.add(
                    DeletionItem(
                        deletion_id=deletion.id, orthanc_id=one["ID"], series_uid=one["series_uid"],
                        sop_uid=one["MainDicomTags"].get("SOPInstanceUID", ""), state="planned",
                    )
                )  # fmt: skip
            session.flush()
            return deletions.items(session, deletion)

    def _there(self, deletion: Deletion) -> list[dict[str, Any]]:
        """The instances that the deletion is about and that the archive has now, with their metadata."""
        orthanc = self._desk.orthanc
        try:
            series = orthanc.get(f"/studies/{deletion.study_orthanc_id}/series", expand="true")
        except OrthancRefused as refused:
            if refused.status != 404:
                raise
            return []
        found: list[dict[str, Any]] = []
        for one in series:
            uid = one["MainDicomTags"].get("SeriesInstanceUID", "")
            if deletion.series_uid and uid != deletion.series_uid:
                continue
            contents = orthanc.post("/tools/bulk-content", {"Resources": one["Instances"], "Metadata": True})
            found += [{**instance, "series_uid": uid} for instance in contents]
        if deletion.sop_uid:
            found = [one for one in found if one["MainDicomTags"].get("SOPInstanceUID") == deletion.sop_uid]
        return found

    def _copy(self, deletion: Deletion, held: Lease, item: DeletionItem) -> None:
        """One instance's file is in the hold, and is what Orthanc has."""
        desk = self._desk
        try:
            content = desk.orthanc.file(item.orthanc_id)
            md5 = desk.orthanc.md5(item.orthanc_id)
        except OrthancRefused as refused:
            if refused.status != 404:
                raise
            raise Parked(f"image {item.sop_uid} left the archive before it was copied, and not by us") from refused
        if _md5(content) != md5:
            raise Parked(f"image {item.sop_uid} was read from the archive with another digest (MD5) than it stored")
        if item.sha256 and item.state == "planned" and hashlib.sha256(content).hexdigest() != item.sha256:
            raise Parked(f"image {item.sop_uid} is no longer the one whose deletion was asked for")
        sha256 = hold.put(desk.environment.hold_dir, content)
        if hold.get(desk.environment.hold_dir, sha256) != content:
            raise Parked(f"image {item.sop_uid} is not in the hold as it was put there")
        with desk.sessions.begin() as session:
            self._renew(session, held)
            holding.hold(
                session, sha256=sha256, size=len(content), why="deleted", reason=deletion.reason, state="kept",
                reference=deletions.reference(deletion), now=desk.now(), writer=WRITER, sop_uid=item.sop_uid,
                series_uid=item.series_uid, study_uid=deletion.study_uid, orthanc_id=item.orthanc_id,
                keep_until=desk.now() + timedelta(days=desk.settings.deletion.keep_days),
            )  # fmt: skip
            row = session.get_one(DeletionItem, (deletion.id, item.orthanc_id))
            row.state, row.sha256 = "held", sha256

    def _begin(self, deletion: Deletion, held: Lease) -> bool:
        """Record what goes, and that from here on it goes; False where it may not."""
        patient_id = self._patient_id(deletion)
        now = self._desk.now()
        with self._desk.sessions.begin() as session:
            self._renew(session, held)
            row = deletions.locked(session, deletion.id)
            forbids = deletions.hold_on(session, row, patient_id)
            refusal = deletions.refusal_of_beginning(
                row.state, row.asked_by, row.confirmed_by, row.not_before, now, forbids
            )
            if refusal and refusal.why == "legal-hold":
                deletions.stop(session, row, forbids, now, WRITER)
                return False
            if refusal:
                raise Parked(str(refusal))
            listed = deletions.items(session, row)
            if [one for one in listed if one.state not in ("held", "deleted", "gone")]:
                raise Parked("not every listed image has its copy in the hold")
            row.state = "deleting"
            deletions.note(
                session, row, WRITER, now, who=row.asked_by, confirmed_by=row.confirmed_by, reason=row.reason,
                code=row.code, count=len(listed),
            )  # fmt: skip
            for number, first in enumerate(range(0, len(listed), PART), 1):
                part = [
                    [one.orthanc_id, one.series_uid, one.sop_uid, one.sha256] for one in listed[first : first + PART]
                ]
                deletions.note(session, row, WRITER, now, state="listed", part=number, instances=part)
            cancel_deliveries(session, row, {one.orthanc_id for one in listed}, now)
        return True

    def _patient_id(self, deletion: Deletion) -> str:
        """As the images themselves say it; the database may not have heard of them."""
        try:
            study = self._desk.orthanc.get(f"/studies/{deletion.study_orthanc_id}")
        except OrthancRefused as refused:
            if refused.status != 404:
                raise
            return ""
        return str(study.get("PatientMainDicomTags", {}).get("PatientID", ""))

    def _delete(self, deletion: Deletion, held: Lease, keeper: Keeper) -> None:
        orthanc, folder = self._desk.orthanc, self._desk.environment.hold_dir
        patient_id = self._patient_id(deletion)
        with self._desk.sessions.begin() as session:
            left = deletions.items(session, deletion, ("held",))
        for item in left:
            keeper.check()
            if not self._still_may(deletion, held, patient_id):
                raise Fenced("a legal hold stopped it")
            copy = hold.get(folder, item.sha256 or "")
            try:
                if orthanc.md5(item.orthanc_id) != _md5(copy):
                    raise Parked(f"image {item.sop_uid} was replaced by other content after its copy was made")
                orthanc.request("DELETE", f"/instances/{item.orthanc_id}")
            except OrthancRefused as refused:
                if refused.status != 404:  # it is gone: the attempt before this one died after it
                    raise
            with self._desk.sessions.begin() as session:
                row = session.get_one(DeletionItem, (deletion.id, item.orthanc_id), with_for_update=True)
                if row.state == "held":  # else the archive's journal has told of it already
                    row.state = "deleted"

    def _still_may(self, deletion: Deletion, held: Lease, patient_id: str) -> bool:
        with self._desk.sessions.begin() as session:
            self._renew(session, held)
            forbids = deletions.hold_on(session, deletion, patient_id)
            if forbids:
                row = deletions.locked(session, deletion.id)
                deletions.stop(session, row, forbids, self._desk.now(), WRITER)
            return not forbids

    def _finish(self, deletion: Deletion, held: Lease) -> None:
        there = self._there(deletion)
        self._doubt(deletion, held, there)
        confirmed = clock.parse(deletion.confirmed_at or "")
        stayed = [one for one in there if _received(one) > confirmed]  # others, of a list, were never to go
        now = self._desk.now()
        with self._desk.sessions.begin() as session:
            gone = {one.orthanc_id for one in deletions.items(session, deletion, ("deleted", "gone"))}
            outcome = outcome_of(len(gone), len(stayed), deletions.receivers(session, deletion.study_uid, gone))
            row = leases.finish(session, held, "done", done_at=clock.text(now), outcome=outcome)
            row.updated_at = clock.text(now)
            exceptions.decide(
                session, "deletion", deletions.reference(row), who="the deletion itself", decision="done", now=now
            )
            deletions.note(session, row, WRITER, now, count=len(gone), stayed=len(stayed))
            if stayed:
                exceptions.wait(
                    session, "deletion", f"{deletions.reference(row)} stayed", now=now, kind="deletion-newcomers",
                    study_uid=row.study_uid,
                    what=f"deletion {row.id} is done, but {len(stayed)} images of study {row.study_uid} came after two "
                    "people had decided it; they stay in the archive",
                    suggestion="Look at them; if they are to go, too, ask for it anew.",
                    actions=deletions.actions(row),
                )  # fmt: skip
        log.info("deletion %s is done: %s", deletion.id, outcome)

    def _doubt(self, deletion: Deletion, held: Lease, stayed: Sequence[dict[str, Any]]) -> None:
        """Deleted images that are there again by no sender's doing: a power cut undid it, or recovery found a file."""
        confirmed = clock.parse(deletion.confirmed_at or "")
        undone = [
            one["ID"]
            for one in stayed
            if _received(one) <= confirmed or one["Metadata"].get("HttpUsername") == "recovery"
        ]
        with self._desk.sessions.begin() as session:
            self._renew(session, held)
            rows = [one for one in deletions.items(session, deletion, ("deleted", "gone")) if one.orthanc_id in undone]
            for row in rows:
                row.state = "held"
        if rows:
            raise NotYet(f"{len(rows)} deleted images are there again after a power cut; they are deleted once more")

    # -- putting back

    def _restore(self, deletion: Deletion, held: Lease, keeper: Keeper) -> None:
        desk = self._desk
        with desk.sessions.begin() as session:
            left = deletions.items(session, deletion, ("deleted", "gone"))
            generation = announcing.announce_instances(
                session, {one.sop_uid: one.sha256 or "" for one in left}, "restore", deletions.reference(deletion),
                desk.now(),
            )  # fmt: skip
        if not announcing.wait_until_known(desk.orthanc, generation, KNOWN_S):
            raise NotYet("the archive was not told what comes; is the gateway running?")
        for item in left:
            keeper.check()
            content = hold.get(desk.environment.hold_dir, item.sha256 or "")
            stored = desk.orthanc.store(content)
            if stored["ID"] != item.orthanc_id or desk.orthanc.file(item.orthanc_id) != content:
                raise Parked(f"image {item.sop_uid} can't be put back: the archive has another image under this number")
            with desk.sessions.begin() as session:
                self._renew(session, held)
                session.get_one(DeletionItem, (deletion.id, item.orthanc_id)).state = "restored"
        now = desk.now()
        with desk.sessions.begin() as session:
            count = len(deletions.items(session, deletion, ("restored",)))
            outcome = f"{count} images are back in the archive, byte for byte what they were"
            row = leases.finish(
                session, held, "restored", restored_at=clock.text(now), outcome=outcome, updated_at=clock.text(now)
            )
            exceptions.decide(
                session, "deletion", deletions.reference(row), who="the deletion itself", decision="restored", now=now
            )
            deletions.note(session, row, WRITER, now, who=row.restored_by, count=count)
        log.info("deletion %s is restored: %s images", deletion.id, count)

    # -- the row

    def _claim(self) -> tuple[Deletion, Lease] | None:
        if not _DELETIONS(self._desk.sessions, self._desk.now()):
            return None
        with self._desk.sessions.begin() as session:
            return leases.claim(
                session, Deletion, ready=("confirmed", "retrying"), working="due",
                also_working=("deleting", "restoring"), now=self._desk.now(), owner=self._desk.owner,
                lease=self._lease,
            )  # fmt: skip

    def _renew(self, session: Session, held: Lease) -> None:
        leases.renew(session, held, now=self._desk.now(), lease=self._lease)

    def _later(self, deletion: Deletion, held: Lease, trouble: Exception) -> None:
        """Let go of it until the next attempt; where deleting or restoring has begun it stays there."""
        why = str(trouble).splitlines()[0] if not isinstance(trouble, OSError) else f"the hold: {trouble.strerror}"
        now = self._desk.now()
        with self._desk.sessions.begin() as session:
            try:
                row = leases.write(session, held, {"outcome": why, "updated_at": clock.text(now)})
                if row.attempts >= RETRY.attempts:
                    return self._parked(session, held, why, now)
                until = clock.text(now + RETRY.wait(row.attempts, 0))
                if row.state in ("deleting", "restoring"):
                    leases.finish(session, held, row.state, lease_until=until)
                else:
                    leases.finish(session, held, "retrying", next_at=until)
            except Fenced as fenced:
                log.info("%s", fenced)
        log.warning("deletion %s: %s; trying again", deletion.id, why)
        return None

    def _park(self, held: Lease, why: str) -> None:
        with self._desk.sessions.begin() as session:
            try:
                self._parked(session, held, why, self._desk.now())
            except Fenced as fenced:
                log.info("%s", fenced)

    def _parked(self, session: Session, held: Lease, why: str, now: datetime) -> None:
        row = leases.finish(session, held, "parked", outcome=why, updated_at=clock.text(now))
        if row.restored_by is not None:
            row.confirmed_by = None  # it was to come back: deleting the rest takes two people anew
        exceptions.wait(
            session, "deletion", deletions.reference(row), now=now, kind="deletion-parked", study_uid=row.study_uid,
            what=f"deletion {row.id} of study {row.study_uid} has stopped: {why}",
            suggestion="Look at the study. Then try the deletion again, withdraw it, or restore what is gone.",
            actions=deletions.actions(row),
        )  # fmt: skip
        deletions.note(session, row, WRITER, now, reason=why)
        log.warning("deletion %s has stopped: %s", row.id, why)


def outcome_of(gone: int, stayed: int, copies: Sequence[str]) -> str:
    """What a finished deletion came to, in words."""
    told = [f"{gone} images left the archive; their copies are in the hold"]
    if stayed:
        told.append(f"{stayed} images that came after the decision stay")
    if copies:
        told.append(f"{', '.join(copies)} may still hold copies")
    return "; ".join(told)


def cancel_deliveries(session: Session, deletion: Deletion, orthanc_ids: set[str], now: datetime) -> None:
    """What was not delivered yet and goes: its deliveries are cancelled, or go on with what stays."""
    rows = session.scalars(
        select(Delivery)
        .where(Delivery.study_uid == deletion.study_uid, Delivery.kind == "dicom", Delivery.state.in_(UNMADE))
        .with_for_update()
    ).all()
    for row in rows:
        stays = [one for one in row.instances if one[0] not in orthanc_ids]
        if len(stays) == len(row.instances):
            continue
        why = f"{len(row.instances) - len(stays)} of its images leave the archive ({deletions.reference(deletion)})"
        row.fence, row.lease_owner, row.lease_until = row.fence + 1, None, None
        row.instances, row.outcome, row.updated_at = stays or row.instances, why, clock.text(now)
        if not stays:
            row.state = "cancelled"
            exceptions.decide(session, "delivery", row.id, who=WRITER, decision="cancelled", now=now)
        elif row.state == "sending":
            row.state, row.next_at = "due", clock.text(now)
        audit.append(
            session, WRITER, "delivery-changed", now, delivery=row.id, destination=row.destination,
            study_uid=deletion.study_uid, state=row.state, reason=why,
        )  # fmt: skip


def _md5(content: bytes) -> str:
    """As Orthanc keeps it of each file; a comparison with Orthanc's own word, not a protection."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _received(instance: dict[str, Any]) -> datetime:
    """When Orthanc took the instance in (its metadata, UTC, whole seconds)."""
    return datetime.strptime(f"{instance['Metadata']['ReceptionDate']}+0000", "%Y%m%dT%H%M%S%z")
