"""The hold's rows: why each object lies there (DESIGN rule 4); its bytes are on disk before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.database.tables import Held


def hold(
    session: Session, *, sha256: str, size: int, why: str, reason: str, reference: str, now: datetime, writer: str,
    state: str = "waiting", sop_uid: str | None = None, series_uid: str | None = None, study_uid: str | None = None,
    patient_id: str = "", orthanc_id: str | None = None, other_sha256: str | None = None, sender: str = "",
    keep_until: datetime | None = None,
) -> Held:  # fmt: skip
    """The row of bytes that are in the hold already; once for each (sha256, why, reference), however often it comes."""
    at = clock.text(now)
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Held).values(
        sha256=sha256, size=size, why=why, reason=reason, reference=reference[:200], state=state, sop_uid=sop_uid,
        series_uid=series_uid, study_uid=study_uid, patient_id=patient_id[:64], orthanc_id=orthanc_id,
        other_sha256=other_sha256, sender=sender[:200], held_at=at, next_at=at,
        keep_until=clock.text(keep_until) if keep_until else None,
        times=1, differs=[], is_intact=True, attempts=0, fence=0,
    )  # fmt: skip
    statement = statement.on_conflict_do_update(
        index_elements=["sha256", "why", "reference"], set_={"times": Held.times + 1}
    )
    found = session.execute(statement.returning(Held.id)).scalar_one()
    held = session.get_one(Held, found, populate_existing=True)
    audit.append(session, writer, "held", now, sha256=sha256, why=why, reason=reason, sop_uid=sop_uid)
    if state == "waiting":
        exceptions.wait(session, "hold", str(held.id), what=reason, suggestion="", now=now, kind=why)
    return held
