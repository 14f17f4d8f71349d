"""Announcing: what will come by another cause than its sender tells is known to the archive before it comes."""

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
    """These SOP Instance UIDs come by this cause, whoever brings the files; the generation that says so."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {"cause": cause, "reference": reference[:200], "created_at": clock.text(now)}
    for uid in sorted(set(sop_uids)):
        statement = insert(AnnouncedInstance).values(sop_uid=uid, **said)
        session.execute(statement.on_conflict_do_update(index_elements=["sop_uid"], set_=said))
    return generations.raise_(session, "announced")


def wait_until_known(orthanc: OrthancClient, generation: int, seconds: float) -> bool:
    """Whether the plugin knows this generation within so many seconds. Raises OrthancError."""
    until = time.monotonic() + seconds
    while int(orthanc.get("/zambezi/status")["announced_generation"]) < generation:
        if time.monotonic() >= until:
            return False
        time.sleep(0.2)
    return True
