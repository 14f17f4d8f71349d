"""Who has had the old copies of corrected instances: they are sent the corrected ones, and a person is told.

That a receiver takes the new copy isn't said by its answer to a query: it knows the SOP Instance UID already, and many
archives keep the copy they have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions, outbox
from zambezi.database.tables import CorrectionItem, Delivery


def holding_old_copies(session: Session, study_uids: Iterable[str], sop_uids: set[str]) -> dict[str, set[str]]:
    """Which destinations were sent which of these instances (SOP Instance UIDs), as far as our deliveries tell."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in _deliveries(session, study_uids):
        if row.state == "delivered":
            found[row.destination] |= sop_uids & {one[2] for one in row.instances}
    return {destination: sops for destination, sops in sorted(found.items()) if sops}


def send_corrected(
    session: Session, correction_id: int, items: Sequence[CorrectionItem], now: datetime, writer: str
) -> list[str]:
    """Put the deliveries of the corrected instances into the outbox; what is to be said about it, a sentence each.

    What was on its way and names instances that are no more is taken out of its delivery, and goes with the new one.
    """
    changed = {one.old_orthanc_id: one for one in items}
    held = holding_old_copies(session, {one.old_study_uid for one in items}, {one.sop_uid for one in items})
    to_send: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
    for row in _deliveries(session, {one.old_study_uid for one in items}):
        concerned = [changed[one[0]] for one in row.instances if one[0] in changed]
        gone = {one.old_orthanc_id for one in concerned if one.old_orthanc_id != one.new_orthanc_id}
        if row.state not in outbox.AT_REST or row.state == "parked":
            _take_out(session, row, gone, correction_id, now, writer)
        for one in concerned:
            # Of what was only due, nothing has been sent yet: it goes out as it is now.
            if row.state != "due" or row.acknowledged or one.old_orthanc_id in gone:
                place = to_send[row.destination, one.new_study_uid]
                place[one.sop_uid] = [one.new_orthanc_id or "", one.new_series_uid, one.sop_uid]
    for (destination, study_uid), instances in to_send.items():
        outbox.add(
            session, id=outbox.delivery_id("correction", correction_id, destination, study_uid), kind="dicom",
            rule=f"correction {correction_id}", destination=destination, now=now, writer=writer, study_uid=study_uid,
            because=f"correction {correction_id} changed {len(instances)} instances that {destination} was to have",
            instances=sorted(instances.values()),
        )  # fmt: skip
    return [
        f"{destination} has the old copy of {len(sops)} instances and is sent the corrected one; an archive may keep "
        "the copy it had, and a query can't tell: ask there that the old one goes"
        for destination, sops in held.items()
    ]


def _deliveries(session: Session, study_uids: Iterable[str]) -> Sequence[Delivery]:
    query = select(Delivery).where(
        Delivery.kind == "dicom", Delivery.study_uid.in_(sorted(study_uids)), Delivery.state != "cancelled"
    )
    return session.scalars(query.order_by(Delivery.created_at, Delivery.id)).all()


def _take_out(session: Session, row: Delivery, gone: set[str], correction_id: int, now: datetime, writer: str) -> None:
    """The delivery no longer names what the archive has no more; a sender at work on it is fenced off."""
    left = [one for one in row.instances if one[0] not in gone]
    if len(left) == len(row.instances):
        return
    row.instances, row.fence, row.updated_at = left, row.fence + 1, clock.text(now)
    row.lease_owner = row.lease_until = None
    if not left:
        row.state, row.outcome = "cancelled", f"correction {correction_id} sends these instances"
        exceptions.decide(session, "delivery", row.id, who="zambezi", decision=row.outcome, now=now)
    elif row.state == "sending":
        row.state, row.next_at = "due", row.updated_at
    session.flush()
    audit.append(
        session, writer, "delivery-changed", now, delivery=row.id, destination=row.destination,
        study_uid=row.study_uid, state=row.state, reason=f"correction {correction_id}", instances=len(left),
    )  # fmt: skip
