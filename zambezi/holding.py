"""Rows of the hold: why each object lies there (the files are zambezi.hold's)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock
from zambezi.database.tables import Held


def hold(
    session: Session, *, sha256: str, size: int, why: str, reason: str, reference: str, now: datetime, writer: str,
    state: str = "waiting", sop_uid: str | None = None, series_uid: str | None = None, study_uid: str | None = None,
    patient_id: str = "", orthanc_id: str | None = None, other_sha256: str | None = None, sender: str = "",
    keep_until: datetime | None = None,
) -> Held:  # fmt: skip
    """The object is in the hold for this reason; said twice it is one row with `times` 2."""
    same = select(Held).where(Held.sha256 == sha256, Held.why == why, Held.reference == reference)
    row = session.scalars(same.with_for_update()).first()
    if row is not None:
        row.times += 1
        return row
    at = clock.text(now)
    row = Held(
        sha256=sha256, size=size, why=why, reason=reason, reference=reference, state=state, sop_uid=sop_uid,
        series_uid=series_uid, study_uid=study_uid, patient_id=patient_id, orthanc_id=orthanc_id,
        other_sha256=other_sha256, sender=sender, keep_until=clock.text(keep_until) if keep_until else None,
        held_at=at, next_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    audit.append(
        session, writer, "held", now, sha256=sha256, size=size, why=why, reason=reason, sop_uid=sop_uid,
        series_uid=series_uid, study_uid=study_uid, orthanc_id=orthanc_id, other_sha256=other_sha256, sender=sender,
        reference=reference,
    )  # fmt: skip
    return row
