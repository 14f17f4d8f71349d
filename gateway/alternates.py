"""Another destination for what waits while one fails."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import breakers, outbox
from zambezi.config.settings import Destination
from zambezi.database.tables import Delivery

log = logging.getLogger("zambezi.deliveries")

#: So many deliveries are given to the alternate in one transaction.
LOT = 50


def divert(session: Session, name: str, destination: Destination, *, now: datetime, writer: str) -> int:
    """Give what waits for a paused destination to its alternate, if it has failed often enough; how many.

    The next probe of the pause still goes to the destination itself, so that it is found well again.
    """
    failures = breakers.failures(session, f"dicom:{name}") if destination.alternate else 0
    if failures < destination.alternate_after or not destination.alternate:
        return 0
    waiting = session.scalars(
        select(Delivery)
        .where(Delivery.kind == "dicom", Delivery.destination == name, Delivery.state.in_(("due", "retrying")))
        .order_by(Delivery.priority.desc(), Delivery.created_at)
        .limit(LOT)
        .with_for_update(skip_locked=True)
    ).all()
    for row in waiting:
        why = f"{name} failed {failures} times in a row"
        # The attempts are part of the cause: a delivery that a person tries again may have to be diverted again.
        id = outbox.delivery_id("alternate", row.id, row.fence, destination.alternate)
        outbox.add(
            session, id=id, kind="dicom", rule=row.rule, destination=destination.alternate, now=now, writer=writer,
            because=f"{row.because}; {why}, so it goes to {destination.alternate}", study_uid=row.study_uid,
            order_id=row.order_id, instances=row.instances,
        )  # fmt: skip
        session.get_one(Delivery, id).priority = row.priority
        outbox.cancel(session, row.id, now=now, writer=writer, who=f"{name}'s alternate")
        row.outcome = f"goes to {destination.alternate} instead, because {why}"
    if waiting:
        log.warning("%s: %d deliveries go to %s instead", name, len(waiting), destination.alternate)
    return len(waiting)
