"""Deletions that nobody ordered: what the archive tells of as gone is compared with what custody had listed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from zambezi import audit, clock, deletions, exceptions
from zambezi.database.tables import CorrectionItem

#: Orthanc ids that an incident names; how many there were stands in its reason.
NAMED = 1000


def note_unordered(session: Session, facts: dict[str, Any], now: datetime, writer: str) -> None:
    """Of a `deleted` entry: what no deletion and no correction had listed is an incident, and waits for a person."""
    gone = {one[0] for one in facts["instances"]}
    corrected = select(CorrectionItem.old_orthanc_id, CorrectionItem.new_orthanc_id).where(
        or_(CorrectionItem.old_orthanc_id.in_(gone), CorrectionItem.new_orthanc_id.in_(gone))
    )
    gone -= deletions.ordered(session, gone, clock.parse(facts["at"]))
    gone -= {one for row in session.execute(corrected) for one in row}
    if not gone:
        return
    study_uid = facts.get("study_uid")
    why = (
        f"{len(gone)} images of study {study_uid or '(not known)'} were deleted from the archive, and no deletion "
        "of ours had ordered it: who did it is not known"
    )
    about = {"study_uid": study_uid} if study_uid else {}
    audit.append(
        session, writer, "incident", now, reason=why, orthanc_ids=sorted(gone)[:NAMED], noticed=facts.get("noticed"),
        **about,
    )  # fmt: skip
    exceptions.wait(
        session, "deletion", f"unordered {facts['journal']}/{facts['seq']}", now=now, what=why,
        kind="deletion-unordered", study_uid=study_uid,
        suggestion="Find out who reached Orthanc or its files. Bring the images back from the sender, another archive "
        "or the backup.",
    )  # fmt: skip
