"""The first phase of a correction: all that will be needed is in the hold, and nothing in the archive changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from operations.custody import concluding, planning
from operations.custody.correction_work import NotYet, Work
from operations.custody.following import wait_until_followed
from operations.custody.planning import CannotBeDone, Prepared, Target
from operations.custody.worker import WRITER
from zambezi import announcing, clock, corrections, crash, hold, holding, leases
from zambezi.database.tables import CorrectionItem, Deletion, DeletionItem
from zambezi.rewriting import Stamp

#: So long the neighbours are waited for at a time: other work of custody waits, too.
FOLLOWED_S, KNOWN_S = 15.0, 30.0
#: Instances in one audit entry.
PART = 500


def prepare(work: Work) -> bool:
    """Everything into the hold, and the archive told what comes; False where there is nothing to change."""
    if not wait_until_followed(work.desk.orthanc, FOLLOWED_S):
        raise NotYet("the archive's journal has not taken in the last changes yet")
    targets = _plan(work)
    _claim_instances(work, targets)
    becomes: dict[str, str] = {}
    studies: set[tuple[str, str]] = set()
    for target in targets:
        work.keeper.check()
        prepared = planning.prepare(work.desk.orthanc, work.desk.environment.hold_dir, target, _stamp(work))
        _keep(work, prepared)
        studies.add((prepared.was.study_uid, prepared.was.study_orthanc_id))
        if prepared.is_change:
            becomes[target.orthanc_id] = prepared.becomes.orthanc_id
    if not becomes:
        concluding.finish_unchanged(work, sorted(studies))
        return False
    found = planning.collisions(work.desk.orthanc, becomes)
    if found:
        raise CannotBeDone("; ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else ""))
    _announce(work)
    _begin_switching(work)
    return True


def _stamp(work: Work) -> Stamp:
    reason = "COERCE" if work.row.kind == "merge" else "CORRECT"
    return Stamp(clock.parse(work.row.created_at), f"ZAMBEZI correction {work.row.id}", reason)


def _plan(work: Work) -> Sequence[Target]:
    with work.desk.sessions.begin() as session:
        if work.row.kind == "undo":
            why = corrections.why_not_undone(session, work.row.undo_of, work.row.id)
            if why:
                raise CannotBeDone(why)
        wanted = planning.read(session, work.row.kind, work.row.request, work.row.undo_of)
    return planning.plan(work.desk.orthanc, wanted)


def _claim_instances(work: Work, targets: Sequence[Target]) -> None:
    """From here no other correction may be at these instances; one that is already goes first."""
    with work.desk.sessions.begin() as session:
        leases.write(session, work.lease, {"updated_at": work.at})
        # The entry locks the head of our chain: two workers can't look at the same moment and both see nobody.
        work.audit(session, state="preparing", instances=len(targets))
        ids = [target.orthanc_id for target in targets]
        _wait_for_others(work, session, ids, ("preparing", "switching"))
        _wait_for_deletions(session, ids)
        session.execute(delete(CorrectionItem).where(CorrectionItem.correction_id == work.row.id))
        for one in ids:
            session.add(
                CorrectionItem(
                    correction_id=work.row.id, old_orthanc_id=one, sop_uid="", old_study_uid="",
                    old_series_uid="", new_study_uid="", new_series_uid="",
                )
            )  # fmt: skip


def _wait_for_others(work: Work, session: Session, ids: Sequence[str], states: Sequence[str]) -> None:
    other = corrections.in_the_way(session, work.row.id, ids, states)
    if other is not None:
        raise NotYet(f"correction {other} is changing the same instances: this one comes after it", counts=False)


def _wait_for_deletions(session: Session, ids: Sequence[str]) -> None:
    """What is just leaving the archive isn't corrected under the deletion's hands."""
    leaving = session.execute(
        select(Deletion.id, DeletionItem.orthanc_id)
        .join(DeletionItem, DeletionItem.deletion_id == Deletion.id)
        .where(Deletion.state == "deleting")
    )
    wanted = set(ids)
    found = next((row[0] for row in leaving if row[1] in wanted), None)
    if found is not None:
        raise NotYet(f"deletion {found} of the same instances is under way", counts=False)


def _keep(work: Work, prepared: Prepared) -> None:
    """Old and new bytes on disk, then the rows that say so."""
    if not prepared.is_change:
        with work.desk.sessions.begin() as session:
            leases.write(session, work.lease, {"updated_at": work.at})
            session.execute(delete(CorrectionItem).where(work.item(prepared.target.orthanc_id)))
        return
    folder = work.desk.environment.hold_dir
    old_sha256, new_sha256 = hold.put(folder, prepared.old), hold.put(folder, prepared.new)
    crash.point(WRITER)
    was, becomes = prepared.was, prepared.becomes
    common: dict[str, Any] = {
        "why": "corrected", "state": "kept", "sop_uid": was.sop_uid, "now": work.desk.now(), "writer": WRITER,
    }  # fmt: skip
    with work.desk.sessions.begin() as session:
        leases.write(session, work.lease, {"updated_at": work.at})
        holding.hold(
            session, sha256=old_sha256, size=len(prepared.old), reference=work.reference,
            reason=f"the copy before {work.reference}", series_uid=was.series_uid, study_uid=was.study_uid,
            patient_id=was.patient_id, orthanc_id=was.orthanc_id, other_sha256=new_sha256, **common,
        )  # fmt: skip
        holding.hold(
            session, sha256=new_sha256, size=len(prepared.new), reference=f"{work.reference}, new copy",
            reason=f"the copy that {work.reference} makes", series_uid=becomes.series_uid,
            study_uid=becomes.study_uid, patient_id=becomes.patient_id, orthanc_id=becomes.orthanc_id,
            other_sha256=old_sha256, **common,
        )  # fmt: skip
        session.execute(
            update(CorrectionItem)
            .where(work.item(prepared.target.orthanc_id))
            .values(
                sop_uid=was.sop_uid, old_study_uid=was.study_uid, old_series_uid=was.series_uid,
                new_study_uid=becomes.study_uid, new_series_uid=becomes.series_uid,
                old_study=was.study_orthanc_id, new_study=becomes.study_orthanc_id,
                new_orthanc_id=becomes.orthanc_id, old_sha256=old_sha256, new_sha256=new_sha256, state="held",
            )
        )  # fmt: skip


def _announce(work: Work) -> None:
    with work.desk.sessions.begin() as session:
        items = select(CorrectionItem).where(CorrectionItem.correction_id == work.row.id)
        coming = {one.sop_uid: one.new_sha256 or "" for one in session.scalars(items)}
        generation = announcing.announce_instances(session, coming, work.cause, work.reference, work.desk.now())
    if not announcing.wait_until_known(work.desk.orthanc, generation, KNOWN_S):
        raise NotYet("the archive was not told what comes: is the gateway running?")


def _begin_switching(work: Work) -> None:
    """The list with its digests, then the point of no return, in one transaction (DESIGN rule 3)."""
    with work.desk.sessions.begin() as session:
        items = corrections.items_of(session, work.row.id)
        # Locks our chain, as above: of two that would meet in the same place one goes first.
        for n in range(0, len(items), PART):
            listed = [
                [one.sop_uid, one.old_orthanc_id, one.old_sha256, one.new_orthanc_id, one.new_sha256]
                for one in items[n : n + PART]
            ]
            work.audit(session, state="switching", listed=listed)
        places = [one.new_orthanc_id or "" for one in items]
        _wait_for_others(work, session, places, ("switching",))
        leases.write(session, work.lease, {"state": "switching", "updated_at": work.at, "attempts": 1})
