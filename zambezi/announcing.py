"""Announcing what will be stored and why, before it is stored (DESIGN rule 2)."""

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
    """These instances will be stored for this cause; the generation under which the archive will know it."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {"cause": cause, "reference": reference, "created_at": clock.text(now)}
    for uid in sop_uids:
        row = insert(AnnouncedInstance).values(sop_uid=uid, **said)
        session.execute(row.on_conflict_do_update(index_elements=["sop_uid"], set_=said))
    return generations.raise_(session, "announced")


def wait_until_known(orthanc: OrthancClient, generation: int, seconds: float) -> bool:
    """Whether the archive has learnt of that generation within the time."""
    end = time.monotonic() + seconds
    while orthanc.get("/zambezi/status")["announced_generation"] < generation:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
