"""What the plugin answers from when everything else is down: pushed whole whenever its copy is older.

Worklist, announced studies, revocations, signs of completeness: each with the generation it was read under. After a
restart of Orthanc, or of us, the numbers differ and the newest is pushed again.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway import ready
from zambezi import causes, clock, worklist
from zambezi.config.settings import Zambezi
from zambezi.database import generations
from zambezi.database.engine import Sessions
from zambezi.database.tables import AnnouncedInstance, AnnouncedStudy, Order, Revocation
from zambezi.orders import OPEN
from zambezi.orthanc_client import OrthancClient

log = logging.getLogger("zambezi.pushes")

#: Which orders are on the worklist changes with time alone, too (HoursBack, HoursAhead): then a new generation is made.
WORKLIST_AGES = timedelta(minutes=15)


#: So many open orders announce their studies, the latest first.
ORDERS = 20000
#: An announced instance is told for so long: then it is stored and recorded, or was given up.
INSTANCES_FOR = timedelta(days=30)


def _because(row: AnnouncedStudy | AnnouncedInstance) -> dict[str, Any]:
    told: dict[str, Any] = {"cause": row.cause, "reference": row.reference}
    if isinstance(row, AnnouncedStudy) and row.changes:
        return told | {"changes": json.loads(row.changes)}
    return told | {"sha256": row.sha256} if isinstance(row, AnnouncedInstance) and row.sha256 else told


class Pushes:
    """Compares generations and pushes what is newer; used by one thread."""

    def __init__(self, sessions: Sessions, settings: Zambezi, orthanc: OrthancClient) -> None:
        self._sessions = sessions
        self._settings = settings
        self._orthanc = orthanc
        self._worklist_made: datetime | None = None

    def push_what_is_newer(self, now: datetime) -> list[str]:
        """Push what the plugin has an older copy of; the names of what was pushed. Raises OrthancError, DBAPIError."""
        told: dict[str, Any] = self._orthanc.get("/zambezi/status")
        self._age_worklist(now)
        pushed: list[str] = []
        there = generations.look(self._sessions)
        for name, made in self._kinds.items():
            if there.get(name, 0) == told[f"{name}_generation"]:
                continue
            with self._sessions.begin() as session:
                generation = generations.current(session, name)
                # Read under the same lock as the number: a newer number never goes with older content.
                document = made(session, now) if generation > told[f"{name}_generation"] else None
            if document is not None:
                self._orthanc.request("PUT", f"/zambezi/{name}", json={"generation": generation, **document})
                log.info("pushed %s, generation %s", name, generation)
                pushed.append(name)
            elif generation < told[f"{name}_generation"]:
                self._catch_up(name, told[f"{name}_generation"])
        return pushed

    @property
    def _kinds(self) -> dict[generations.Name, Callable[[Session, datetime], dict[str, Any]]]:
        return {
            "worklist": self.worklist, "announced": self.announced, "revocations": self.revocations,
            "ready": ready.snapshot,
        }  # fmt: skip

    def worklist(self, session: Session, now: datetime) -> dict[str, Any]:
        """The worklist of every station."""
        entries = worklist.entries(session, self._settings.worklist, self._settings.site.zone, now)
        told = [
            {
                "aets": list(entry.aets),
                "study_uid": entry.study_uid,
                "dicom": base64.b64encode(worklist.as_file(entry.item)).decode(),
            }
            for entry in entries
        ]
        return {"entries": told}

    def announced(self, session: Session, now: datetime) -> dict[str, Any]:
        """Causes by UID: studies of migrations and of open orders, instances that we are about to store ourselves."""
        orders = (
            select(Order.study_uid, Order.accession_number, Order.priority)
            .where(Order.status.in_(OPEN))
            .order_by(Order.scheduled_at.desc())
            .limit(ORDERS)
        )
        rows = session.scalars(select(AnnouncedStudy)).all()
        studies = {row.study_uid: _because(row) for row in rows if row.cause != causes.MIGRATION}
        for study_uid, accession_number, priority in session.execute(orders):
            studies[study_uid] = {"cause": causes.MODALITY, "reference": f"order {accession_number}"}
            if priority != "ROUTINE":
                studies[study_uid]["priority"] = priority
        # What is being migrated stays a migration, also where somebody ordered the exam.
        studies |= {row.study_uid: _because(row) for row in rows if row.cause == causes.MIGRATION}
        since = clock.text(now - INSTANCES_FOR)
        ours = select(AnnouncedInstance).where(AnnouncedInstance.created_at >= since)
        return {"studies": studies, "instances": {row.sop_uid: _because(row) for row in session.scalars(ours)}}

    def revocations(self, session: Session, now: datetime) -> dict[str, Any]:
        """Sign-ins that ended and whose tokens would still hold."""
        living = select(Revocation).where(Revocation.expires > int(now.timestamp()))
        return {"sessions": {row.session: row.expires for row in session.scalars(living)}}

    def _age_worklist(self, now: datetime) -> None:
        if self._worklist_made is None or now - self._worklist_made >= WORKLIST_AGES:
            with self._sessions.begin() as session:
                generations.raise_(session, "worklist")
            self._worklist_made = now

    def _catch_up(self, name: generations.Name, theirs: int) -> None:
        # A database restored from a backup counts lower than the plugin: it must be heard at once.
        log.warning("%s: the plugin has generation %s, newer than the database's; going beyond it", name, theirs)
        with self._sessions.begin() as session:
            generations.raise_beyond(session, name, theirs)
