"""Telling the archive beforehand why something will be stored (DESIGN rule 2), and waiting until it knows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import clock
from zambezi.database import generations
from zambezi.database.tables import AnnouncedInstance
from zambezi.orthanc_client import OrthancClient


def announce_instances(session: Session, sop_uids: Iterable[str], cause: str, reference: str, now: datetime) -> int:
    """Instances that we are about to store; the generation that the archive must know first (`wait_until_known`)."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {"cause": cause, "reference": reference[:200], "created_at": clock.text(now)}
    for sop_uid in sop_uids:
        row = insert(AnnouncedInstance).values(sop_uid=sop_uid, **said)
        session.execute(row.on_conflict_do_update(index_elements=["sop_uid"], set_=said))
    return generations.raise_(session, "announced")


def wait_until_known(orthanc: OrthancClient, generation: int, seconds: float) -> bool:
    """Whether the archive knows that generation within the time."""
    until = time.monotonic() + seconds
    while int(orthanc.get("/zambezi/status")["announced_generation"]) < generation:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
