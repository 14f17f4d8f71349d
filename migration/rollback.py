"""Taking a batch back: out of the archive goes exactly what the migration stored, by the one path of deletion.

What the migration stored is what the archive's journal says so of: cause, project, and who sent it. What was there
before, came from elsewhere, or was corrected since, stays. Two persons must want it; custody makes copies into the hold
before anything goes, and can put all of it back (zambezi.deletions). Nothing is deleted here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from migration import ledger
from zambezi import audit, causes, clock, deletions
from zambezi.database.tables import (
    AuditEntry,
    Deletion,
    MigrationExtra,
    MigrationInstance,
    MigrationProject,
    MigrationRollback,
    MigrationStudy,
)
from zambezi.deletions import Listed, Refused
from zambezi.orthanc_client import OrthancClient

ROLLED_BACK = "rolled-back"
_UNDER_WAY = ("moving", "verifying")


@dataclass
class Taken:
    """One study of a batch: what would go (by Orthanc's id of the study), what stays and why, or why not at all."""

    study_id: int
    study_uid: str
    going: dict[str, list[Listed]] = field(default_factory=lambda: defaultdict(list))
    staying: list[tuple[str, str]] = field(default_factory=list)
    refused: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """For programs."""
        return {
            "study_uid": self.study_uid, "going": sum(map(len, self.going.values())),
            "staying": [{"sop_uid": uid, "why": why} for uid, why in self.staying], "refused": self.refused,
        }  # fmt: skip


def source_aet(client: OrthancClient, peer: str) -> str:
    """The AE title of a source, by its name in DicomModalities; "" where it speaks no DICOM."""
    return str(client.get("/modalities", expand="").get(peer, {}).get("AET", ""))


def preview(
    session: Session, client: OrthancClient, project: MigrationProject, batch: int, aet: str
) -> Iterator[Taken]:
    """What a roll-back of this batch would take; nothing is changed. `aet`: the source's (`source_aet`)."""
    studies = session.scalars(
        select(MigrationStudy)
        .where(MigrationStudy.project_id == project.id, MigrationStudy.batch == batch)
        .where(MigrationStudy.state.not_in(("skipped", ROLLED_BACK)))
        .order_by(MigrationStudy.study_uid)
    ).all()
    for study in studies:
        found = Taken(study.id, study.study_uid)
        if study.state in _UNDER_WAY:
            found.refused = f"it is being worked on (state {study.state}); pause the migration first"
        elif _open(session, study.id):
            found.refused = "it is being taken back already"
        else:
            _fill(session, client, project, study, aet, found)
        yield found


def _open(session: Session, study_id: int) -> bool:
    query = select(MigrationRollback).where(
        MigrationRollback.study_id == study_id, MigrationRollback.settled_at.is_(None)
    )
    return session.scalars(query).first() is not None


def _fill(
    session: Session, client: OrthancClient, project: MigrationProject, study: MigrationStudy, aet: str, found: Taken
) -> None:
    entries = _stored(session, study.study_uid)
    named = set(session.scalars(select(MigrationInstance.sop_uid).where(MigrationInstance.study_id == study.id)).all())
    for one in client.find("Instance", {"StudyInstanceUID": study.study_uid}, expand=True):
        sop_uid = str(one["MainDicomTags"]["SOPInstanceUID"])
        facts = entries.get(str(one["ID"]))
        why = why_it_stays(facts, project.name, aet, sop_uid in named)
        if why or facts is None:
            found.staying.append((sop_uid, why))
        else:
            listed = Listed(str(one["ID"]), facts["series_uid"], sop_uid, facts["sha256"])
            found.going[facts["study_orthanc_id"]].append(listed)


def _stored(session: Session, study_uid: str) -> dict[str, dict[str, Any]]:
    """Of each instance the journal's newest word on how it was stored, by Orthanc id."""
    rows = session.scalars(
        select(AuditEntry.payload)
        .where(AuditEntry.study_uid == study_uid, AuditEntry.event == "stored")
        .order_by(AuditEntry.at, AuditEntry.journal, AuditEntry.seq)
    )
    return {facts["orthanc_id"]: facts for facts in map(json.loads, rows)}


def why_it_stays(facts: dict[str, Any] | None, project: str, aet: str, is_named: bool) -> str:
    """Why an instance is not the migration's to take back; "" if it is. `facts`: of the journal's `stored` entry."""
    if facts is None:
        return "the journal does not say how it came"
    if facts["cause"] != causes.MIGRATION or facts.get("reference") != project:
        of = f" ({facts['reference']})" if facts.get("reference") else ""
        return f"it was stored by another cause: {facts['cause']}{of}"
    if facts["http_user"] != "migration" and facts["remote_aet"] != aet:
        whence = facts["remote_aet"] or "somebody unknown"
        if not aet:  # a source that doesn't speak DICOM: what it has comes by the migration's own account alone
            return f"it came from {whence}, not by this migration"
        return f"it came from {whence}, not from the source {aet}"
    return "" if is_named else "the source never named it"


def ask(session: Session, project: MigrationProject, taken: Taken, because: str, who: str, now: datetime) -> list[int]:
    """Ask for what goes of one study; another person must confirm it. The deletions' numbers; Refused as theirs."""
    made = []
    for study_orthanc_id, listed in taken.going.items():
        deletion = deletions.ask(
            session, study_uid=taken.study_uid, study_orthanc_id=study_orthanc_id, code="other",
            reason=f"roll-back of migration {project.name}: {because}", who=who, now=now, writer=ledger.WRITER,
            listed=listed,
        )  # fmt: skip
        session.add(
            MigrationRollback(
                study_id=taken.study_id, deletion_id=deletion.id, asked_by=who, asked_at=clock.text(now),
                because=because,
            )
        )  # fmt: skip
        made.append(deletion.id)
    if made:
        _audit(session, project, taken.study_uid, "asked", now, who=who, reason=because, count=taken.told["going"])
    return made


def batches(session: Session, project_id: int) -> dict[int, dict[str, int]]:
    """How many studies of each batch are in which state."""
    rows = session.execute(
        select(MigrationStudy.batch, MigrationStudy.state, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(MigrationStudy.batch, MigrationStudy.state)
        .order_by(MigrationStudy.batch)
    )
    found: dict[int, dict[str, int]] = {}
    for batch, state, count in rows:
        found.setdefault(batch, {})[state] = count
    return found


def of_batch(session: Session, project_id: int, batch: int) -> Sequence[Deletion]:
    """The deletions by which this batch is, or was, taken back; those that wait for the second person first."""
    return session.scalars(
        select(Deletion)
        .join(MigrationRollback, MigrationRollback.deletion_id == Deletion.id)
        .join(MigrationStudy, MigrationStudy.id == MigrationRollback.study_id)
        .where(MigrationStudy.project_id == project_id, MigrationStudy.batch == batch)
        .order_by(Deletion.state != "asked", Deletion.id)
    ).all()


def confirm(
    session: Session, project: MigrationProject, batch: int, who: str, now: datetime, waiting: timedelta
) -> tuple[list[int], list[str]]:
    """As the second person, confirm what was asked for of this batch: the deletions' numbers, and what was refused."""
    rows = [one for one in of_batch(session, project.id, batch) if one.state == "asked"]
    done, refused = [], []
    for row in rows:
        try:
            deletions.confirm(session, row, who, now, ledger.WRITER, waiting)
            done.append(row.id)
        except Refused as why:
            refused.append(f"deletion {row.id} of study {row.study_uid}: {why}")
    return done, refused


def settle(session: Session, now: datetime) -> int:
    """Bring into the ledger what custody has done since the last time; how many studies changed."""
    rows = session.execute(
        select(MigrationRollback, Deletion, MigrationStudy)
        .join(Deletion, Deletion.id == MigrationRollback.deletion_id)
        .join(MigrationStudy, MigrationStudy.id == MigrationRollback.study_id)
        .where(
            (MigrationRollback.settled_at.is_(None) & Deletion.state.in_(("done", "withdrawn")))
            | ((Deletion.state == "restored") & (MigrationStudy.state == ROLLED_BACK))
        )
        .order_by(Deletion.id)
    ).all()
    for rolled, deletion, study in rows:
        rolled.settled_at = clock.text(now)
        project = session.get_one(MigrationProject, study.project_id)
        if deletion.state == "done":
            _taken_back(session, deletion, study)
        elif deletion.state == "restored":
            study.state, study.reason, study.attempts = "ready", f"deletion {deletion.id} was put back", 0
        _audit(session, project, study.study_uid, deletion.state, now, who=deletion.asked_by, deletion=deletion.id)
    return len(rows)


def _taken_back(session: Session, deletion: Deletion, study: MigrationStudy) -> None:
    study.state, study.level, study.verified_at = ROLLED_BACK, 0, None
    study.reason = f"taken back by {deletion.asked_by} and {deletion.confirmed_by}: {deletion.reason}"
    uids = [one.sop_uid for one in deletions.items(session, deletion, ("deleted", "gone"))]
    for first in range(0, len(uids), 500):
        session.execute(
            update(MigrationInstance)
            .where(MigrationInstance.study_id == study.id, MigrationInstance.sop_uid.in_(uids[first : first + 500]))
            .values(verdict=ROLLED_BACK, level=0)
        )
    # They went with their images; where the images of others keep a study, what was put beside it stays.
    of_study = (MigrationExtra.study_id == study.id, MigrationExtra.state == "carried")
    session.execute(update(MigrationExtra).where(*of_study).values(state=ROLLED_BACK))


def _audit(
    session: Session, project: MigrationProject, study_uid: str, state: str, now: datetime, /, **facts: Any
) -> None:
    audit.append(
        session, ledger.WRITER, "migration-rollback", now, project=project.name, study_uid=study_uid, state=state,
        **facts,
    )  # fmt: skip
