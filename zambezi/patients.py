"""Patients that turn out to be one: merging their identifiers (HL7 v2.5.1, 3.3.40), and taking that back.

A merge moves the orders to the survivor at once and asks for one correction of the images that carry the identifier
which is given up; that correction's row is also what an undo reads. Everything here works inside the caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, corrections, exceptions
from zambezi.database import generations
from zambezi.database.tables import Correction, Order, Patient, Study
from zambezi.identifiers import find as find
from zambezi.identifiers import former as former
from zambezi.identifiers import lineage
from zambezi.identifiers import survivor_of as survivor_of
from zambezi.relinking import relink as relink


class MergeRefused(ValueError):
    """These two can't be merged, or not be parted; `code` is HL7's (table 0357), the text tells a person why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class MergeOutcome:
    """What a merge did: nothing where `is_new` is false (it had been done). Ids of patients, orders, correction."""

    prior: int
    survivor: int
    is_new: bool
    orders: tuple[int, ...] = ()
    studies: tuple[str, ...] = ()  # Study Instance UIDs whose images are corrected
    correction: int | None = None


def known_or_stub(session: Session, patient_id: str, issuer: str, now: datetime) -> Patient:
    """The patient with this identifier; where nobody has it, a row that holds nothing else, to be merged away.

    So an identifier that is given up before it was ever met here (HL7 A40) still leads to the survivor later.
    """
    patient = find(session, patient_id, issuer)
    if patient is None:
        at = clock.text(now)
        patient = Patient(patient_id=patient_id, issuer=issuer, family_name="", created_at=at, updated_at=at)
        session.add(patient)
        session.flush()
    return patient


def merge(
    session: Session, *, prior: Patient, survivor: Patient, now: datetime, writer: str, who: str, reason: str = ""
) -> MergeOutcome:
    """`prior` gives its identifier up for `survivor`'s (or for whom that one has become): orders, then images follow.

    Doing it twice is doing it once. MergeRefused for a patient with itself, for the reverse of an earlier merge, and
    for a prior that was merged into somebody else.
    """
    generations.raise_(session, "worklist")  # and nobody else merges or orders until this transaction ends
    session.refresh(prior, ["merged_into"])
    session.refresh(survivor, ["merged_into"])
    final, is_done = check_merge(session, prior=prior, survivor=survivor)
    if is_done:
        return MergeOutcome(prior.id, final.id, is_new=False)
    studies, unclear = images_of(session, prior)
    moved = list(session.scalars(select(Order).where(Order.patient_key == prior.id).order_by(Order.id)))
    patients = {**named(session, prior, final), "orders": [order.id for order in moved]}
    _move(session, moved, final, now, writer, who, "merged")
    prior.merged_into, prior.updated_at = final.id, clock.text(now)
    why = reason or "two identifiers of one patient were merged"
    try:
        asked = corrections.ask(session, "merge", {"patients": patients}, why, who, now, writer)
    except corrections.CorrectionRefused as refused:
        raise MergeRefused("102", str(refused)) from refused
    if not studies:
        asked.state, asked.outcome, asked.done_at = "done", "no image carries the identifier", clock.text(now)
        audit.append(session, writer, "correction-changed", now, correction=asked.id, kind=asked.kind, state="done")
    if unclear:
        _wait_for_unclear(session, prior, unclear, asked.id, now)
    _audit(session, prior, final, now, writer, who, changed=["merged"], orders=len(moved), correction=asked.id)
    uids = tuple(study.study_uid for study in studies)
    return MergeOutcome(prior.id, final.id, True, tuple(order.id for order in moved), uids, asked.id)


def check_merge(session: Session, *, prior: Patient, survivor: Patient) -> tuple[Patient, bool]:
    """Who would survive a merge, and whether it has been done; MergeRefused (as `merge`) where it can't be."""
    if prior.id == survivor.id:
        raise MergeRefused("205", f"patient {prior.patient_id} can't be merged with itself")
    line = lineage(session, survivor)
    if prior in line:
        raise MergeRefused(
            "205", f"patient {survivor.patient_id} was merged into {prior.patient_id} before; undo that merge first"
        )
    before = survivor_of(session, prior)
    if before is not prior and before is not line[-1]:
        raise MergeRefused(
            "204", f"patient {prior.patient_id} was merged into {before.patient_id} before; undo that merge first"
        )
    return line[-1], before is line[-1]


def change_identifier(
    session: Session,
    *,
    old: Patient,
    patient_id: str,
    issuer: str,
    now: datetime,
    writer: str,
    who: str,
    reason: str = "",
) -> MergeOutcome:
    """The patient has another identifier from now on (HL7 v2.5.1, 3.3.47: A47); the old one goes on leading here.

    MergeRefused where the new identifier is another patient's: that would be a merge, which has a message of its own.
    """
    new = find(session, patient_id, issuer)
    if new is not None and survivor_of(session, old) is not survivor_of(session, new) and old is not new:
        raise MergeRefused("205", f"{patient_id} is another patient's identifier; two patients are merged by A40")
    if new is None:
        at, holder = clock.text(now), survivor_of(session, old)
        new = Patient(
            patient_id=patient_id, issuer=issuer, family_name=holder.family_name, given_name=holder.given_name,
            birth_date=holder.birth_date, sex=holder.sex, created_at=at, updated_at=at,
        )  # fmt: skip
        session.add(new)
        session.flush()
        old = holder
    return merge(session, prior=old, survivor=new, now=now, writer=writer, who=who, reason=reason)


def unmerge(session: Session, *, prior: Patient, now: datetime, writer: str, who: str, reason: str) -> MergeOutcome:
    """Take a merge back: the orders that it moved go to `prior` again, and its correction is undone.

    Orders that came for the identifier since then stay with the survivor, since nobody can know whose they are.
    """
    generations.raise_(session, "worklist")
    session.refresh(prior, ["merged_into"])
    if prior.merged_into is None:
        raise MergeRefused("204", f"patient {prior.patient_id} is not merged into another")
    survivor = session.get_one(Patient, prior.merged_into)
    if survivor.merged_into is not None:
        raise MergeRefused("204", f"{survivor.patient_id} itself was merged since; undo that merge first")
    done = merge_of(session, prior)
    was = done.request["patients"] if done else {"orders": [], "studies": []}
    ours = (Order.id.in_(was["orders"]), Order.patient_key == survivor.id)
    moved = list(session.scalars(select(Order).where(*ours).order_by(Order.id)))
    _move(session, moved, prior, now, writer, who, "merge undone")
    prior.merged_into, prior.updated_at = None, clock.text(now)
    undone = [_undo_images(session, one, reason, now, writer, who) for one in [*_late(session, prior, done), done]]
    undo = undone[-1]
    _audit(session, prior, survivor, now, writer, who, changed=["merge undone"], orders=len(moved), correction=undo)
    uids = tuple(study["study_uid"] for study in was["studies"])
    return MergeOutcome(prior.id, survivor.id, True, tuple(order.id for order in moved), uids, undo)


def ask(
    session: Session, kind: str, request: Mapping[str, Any], *, reason: str, who: str, now: datetime, writer: str,
    undo_of: int | None = None,
) -> int:  # fmt: skip
    """Ask for a correction as a person does, with what goes with it: a merge merges, and its undo parts, the patients.

    The number of the correction; where a merge is parted before its images were changed, the merge's own.
    CorrectionRefused where it can't be done.
    """
    how: dict[str, Any] = {"now": now, "writer": writer, "who": who, "reason": reason}
    try:
        if kind == "merge":
            ends = [session.get_one(Patient, request["patients"][end]) for end in ("from", "into")]
            made = merge(session, prior=ends[0], survivor=ends[1], **how)
            if made.correction is None:
                raise corrections.CorrectionRefused(f"{ends[0].patient_id} is merged into {ends[1].patient_id} already")
            return made.correction
        standing = stands(session, undo_of) if undo_of is not None else None
        if standing is not None:
            return unmerge(session, prior=standing, **how).correction or undo_of or 0
    except MergeRefused as refused:
        raise corrections.CorrectionRefused(str(refused)) from refused
    return corrections.ask(session, kind, request, reason, who, now, writer, undo_of=undo_of).id


def stands(session: Session, correction: int) -> Patient | None:
    """The patient that this correction merged away, as long as that merge holds and it is the last one."""
    found = session.get(Correction, correction)
    if found is None or found.kind != "merge":
        return None
    prior = session.get(Patient, found.request["patients"]["from"])
    is_merged = prior is not None and prior.merged_into is not None
    return prior if prior is not None and is_merged and merge_of(session, prior) is found else None


def follow_merge(session: Session, study: Study, *, now: datetime, writer: str) -> int | None:
    """Images that came under an identifier which was merged away are corrected as those before them; the correction.

    None where the identifier is nobody's former one, or no order tells several patients of that number apart.
    """
    named = session.scalars(select(Patient).where(Patient.patient_id == study.patient_id).order_by(Patient.id)).all()
    gone = [patient for patient in named if patient.merged_into is not None]
    order = session.get(Order, study.order_id) if study.order_id is not None else None
    if order is not None:
        gone = [patient for patient in gone if survivor_of(session, patient) is order.patient]
    elif len(named) > 1:
        gone = []
    survivor = survivor_of(session, gone[0]) if gone else None
    asked = select(Correction.id).where(
        Correction.state.in_(corrections.OPEN),
        Correction.request["study"]["orthanc_id"].as_string() == study.orthanc_id,
    )
    if survivor is None or survivor.patient_id == study.patient_id or session.scalars(asked).first() is not None:
        return None
    request = {
        "study": {"study_uid": study.study_uid, "orthanc_id": study.orthanc_id},
        "patients": {"from": gone[0].id, "into": survivor.id, "orders": [], "studies": []},
    }  # fmt: skip
    why = "images came under an identifier that was merged away"
    return corrections.ask(session, "reassign", request, why, writer, now, writer).id


def merge_of(session: Session, prior: Patient) -> Correction | None:
    """The correction by which `prior` was merged away last."""
    of_prior = Correction.request["patients"]["from"].as_integer() == prior.id
    query = select(Correction).where(Correction.kind == "merge", of_prior).order_by(Correction.id.desc()).limit(1)
    return session.scalars(query).first()


def named(session: Session, prior: Patient, survivor: Patient) -> dict[str, Any]:
    """The two of a merge and the studies whose images change, as its correction names them."""
    studies, _unclear = images_of(session, prior)
    listed = [{"study_uid": study.study_uid, "orthanc_id": study.orthanc_id} for study in studies]
    return {"from": prior.id, "into": survivor.id, "studies": listed}


def images_of(session: Session, prior: Patient) -> tuple[list[Study], list[Study]]:
    """Studies whose images carry the prior's identifier, and those that may be somebody else's with the same number."""
    rows = session.execute(
        select(Study, Order.patient_key)
        .outerjoin(Order, Order.id == Study.order_id)
        .where(Study.patient_id == prior.patient_id, Study.instances > 0)
        .order_by(Study.study_uid, Study.orthanc_id)
    ).all()
    # Images name no issuer that we keep: with two patients of the same number, only an order tells them apart.
    same_number = select(Patient.id).where(Patient.patient_id == prior.patient_id, Patient.id != prior.id)
    is_shared = session.scalars(same_number.limit(1)).first() is not None
    mine = [study for study, owner in rows if owner == prior.id or (owner is None and not is_shared)]
    unclear = [study for study, owner in rows if owner is None and is_shared]
    return mine, unclear


def _move(
    session: Session, moved: Sequence[Order], to: Patient, now: datetime, writer: str, who: str, change: str
) -> None:
    for order in moved:
        before, order.patient_key, order.patient = order.patient_key, to.id, to
        order.updated_at = clock.text(now)
        session.flush()
        audit.append(
            session, writer, "order-changed", now, order=order.id, accession_number=order.accession_number,
            study_uid=order.study_uid, who=who, changed=["patient"], reason=change, patient_before=before,
            patient=to.id,
        )  # fmt: skip


def _late(session: Session, prior: Patient, done: Correction | None) -> Sequence[Correction]:
    """Corrections of images that came under the identifier after its merge, newest first (follow_merge)."""
    of_prior = Correction.request["patients"]["from"].as_integer() == prior.id
    query = select(Correction).where(Correction.kind == "reassign", of_prior, Correction.id > (done.id if done else 0))
    return session.scalars(query.order_by(Correction.id.desc())).all()


def _undo_images(
    session: Session, done: Correction | None, reason: str, now: datetime, writer: str, who: str
) -> int | None:
    if done is None or done.state == "cancelled":
        return None
    if "study" not in done.request and not done.request["patients"]["studies"]:
        return None
    try:
        if done.state == "done":
            return corrections.ask(session, "undo", {}, reason, who, now, writer, undo_of=done.id).id
        corrections.cancel(session, done.id, who, now, writer)
    except corrections.CorrectionRefused as refused:
        raise MergeRefused("204", str(refused)) from refused
    return None


def _wait_for_unclear(session: Session, prior: Patient, unclear: list[Study], correction: int, now: datetime) -> None:
    exceptions.wait(
        session, "correction", f"correction {correction}: images of unclear patients", now=now, kind="unclear-patient",
        what=f"{len(unclear)} studies carry the patient ID {prior.patient_id}, which several issuers gave out; they "
        "have no order that says whose they are, so the merge left them alone",
        suggestion="Look at each of them and reassign those that belong to the merged patient.",
        actions=[{"label": "Studies", "href": f"/studies?q={prior.patient_id}"}],
    )  # fmt: skip


def _audit(
    session: Session, prior: Patient, survivor: Patient, now: datetime, writer: str, who: str, **facts: Any
) -> None:
    session.flush()
    audit.append(
        session, writer, "patient-changed", now, patient=prior.id, patient_id=prior.patient_id, issuer=prior.issuer,
        other=survivor.id, other_id=survivor.patient_id, other_issuer=survivor.issuer, who=who, **facts,
    )  # fmt: skip
