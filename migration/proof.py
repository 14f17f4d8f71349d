"""How far each instance of a study is proven: 1 set, 2 arrival, 3 source.

The set is the worker's: what the source names at IMAGE level, counted before and after the move, is what is stored.
Arrival (migration.arrival) is looked at for everything. The source is asked for all, or for the drawn sample, as the
plan says; and for whatever its arrival can't prove: what nobody saw come, or was coerced without a word in the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from migration import arrival, declared, ledger, sampling
from migration.desk import Desk
from migration.ledger import Claim
from migration.source import Checked, Compared, Study
from zambezi.coercion.declared import tags
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationSample, MigrationStudy
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancRefused

SET, ARRIVAL, SOURCE = 1, 2, 3


@dataclass
class Results:
    """What is to be written of a study's instances (columns by SOP Instance UID), as seldom as may be.

    What costs much is `save`d at once; the rest goes with the study's end (`settle`). `stored`: so many are there.
    """

    held: Claim
    stored: int
    unsaved: dict[str, dict[str, Any]]
    is_begun: bool = False  # the ledger says that it is being verified

    def add(self, columns: Mapping[str, Mapping[str, Any]]) -> None:
        """More of these instances is known."""
        for uid, found in columns.items():
            self.unsaved[uid] = {**self.unsaved.get(uid, {}), **found}

    def save(self, desk: Desk) -> None:
        """Write now what isn't written."""
        with desk.sessions.begin() as session:
            self.write(session, desk.now())

    def write(self, session: Session, now: datetime) -> None:
        """The same within a transaction; leases.Fenced if the study isn't ours any more."""
        if not self.is_begun:
            ledger.verifying(session, self.held, now, self.stored)
            self.is_begun = True
        ledger.set_verdicts(session, self.held, self.unsaved)
        self.unsaved = {}


def prove(
    desk: Desk, held: Claim, study: Study, wanted: Collection[str], keeper: Keeper, results: Results
) -> Checked:  # fmt: skip
    """Bring the wanted instances (stored, not proven equal yet) as far as the plan says.

    What is in `compared` and not equal, or in `not_sent`, keeps the study from being verified.
    """
    with desk.looking.begin() as session:
        row = session.get_one(MigrationStudy, held.study_id)
        project = session.get_one(MigrationProject, row.project_id)
        drawn = session.get(MigrationSample, project.id)
        changes, of_source = row.changes, sampling.is_compared(project.plan, drawn, study.uid)
        asked_for = set(wanted)
        levels = {uid: level for uid, level in session.execute(_levels(held)) if uid in asked_for}
    checked = Checked()
    _arrivals(desk, study, levels, changes, keeper, checked, results)
    _declared(desk, study, levels, changes, keeper, checked)
    results.add({uid: found.columns for uid, found in checked.compared.items()})
    left = {uid for uid, level in levels.items() if uid not in checked.compared and (of_source or level < ARRIVAL)}
    if left:
        results.save(desk)
        _source(desk, held, replace(study, arrived=_arrived(desk, held)), left, changes, keeper, checked)
    return checked


def _levels(held: Claim) -> Any:
    return select(MigrationInstance.sop_uid, MigrationInstance.level).where(MigrationInstance.study_id == held.study_id)


def _arrived(desk: Desk, held: Claim) -> dict[str, str]:
    row = MigrationInstance
    query = select(row.orthanc_id, row.arrived_sha256).where(row.study_id == held.study_id, row.level >= ARRIVAL)
    with desk.looking.begin() as session:
        return {orthanc_id: sha256 for orthanc_id, sha256 in session.execute(query) if orthanc_id and sha256}


def _arrivals(
    desk: Desk, study: Study, levels: dict[str, int], changes: Mapping[str, str], keeper: Keeper, checked: Checked,
    results: Results,
) -> None:  # fmt: skip
    """Levels 1 and 2 into `levels` and `results`; what is not what arrived into `checked`."""
    asked = {uid: study.held[uid] for uid, level in levels.items() if level < ARRIVAL}
    levels |= dict.fromkeys(asked, SET)
    for number, piece in enumerate(arrival.look(desk, asked, tags(changes), keeper)):
        if number:  # a small study has but one
            results.save(desk)
        results.add({uid: {"level": found.level, **found.columns} for uid, found in piece.items()})
        for uid, found in piece.items():
            levels[uid] = found.level
            if found.fault:
                md5 = found.columns.get("stored_md5")
                checked.compared[uid] = Compared("different", None, None, md5, (found.fault,))


def _declared(
    desk: Desk, study: Study, levels: Mapping[str, int], changes: Mapping[str, str], keeper: Keeper, checked: Checked
) -> None:
    """What the plan declared has been carried out, on every copy."""
    for uid in sorted(levels) if changes else ():
        keeper.check()
        for orthanc_id in study.held[uid]:
            try:
                stored = desk.client.get(f"/instances/{orthanc_id}/simplified-tags")
            except OrthancRefused as refused:
                if refused.status != 404:
                    raise
                continue  # deleted in this moment: the next count tells
            lacking = declared.lacking(stored, changes)
            if lacking:
                words = tuple(f"{keyword}, which has not the declared value" for keyword in lacking)
                checked.compared[uid] = Compared("different", None, None, None, words)


def _source(
    desk: Desk, held: Claim, study: Study, wanted: set[str], changes: Mapping[str, str], keeper: Keeper,
    checked: Checked,
) -> None:  # fmt: skip
    """Level 3; the source's own way of it. Only what was declared may differ, and is listed."""
    allowed = tags(changes)

    def keep(results: dict[str, Compared]) -> None:
        columns = {}
        for uid, found in results.items():
            counts, coerced = declared.tolerated(found, allowed)
            columns[uid] = dict(counts.columns)
            if counts.verdict == "equal":
                columns[uid] |= {"level": SOURCE, "coerced": " ".join(coerced) or None}
        _keep(desk, held, columns)

    of_source = desk.source.check(desk, study, wanted, keeper, keep)
    checked.compared |= {uid: declared.tolerated(found, allowed)[0] for uid, found in of_source.compared.items()}
    checked.not_sent |= of_source.not_sent
    checked.troubles += of_source.troubles


def _keep(desk: Desk, held: Claim, columns: Mapping[str, Mapping[str, Any]]) -> None:
    if columns:
        with desk.sessions.begin() as session:
            ledger.set_verdicts(session, held, columns)


def settle(session: Session, results: Results, now: datetime) -> None:
    """With the study's end: the last results; its level is the lowest of its instances, what isn't there has none."""
    held = results.held
    of_study = MigrationInstance.study_id == held.study_id
    is_there = MigrationInstance.verdict.not_in(("missing", "expected"))
    results.write(session, now)
    session.execute(update(MigrationInstance).where(of_study, ~is_there).values(level=0))
    level, stored, size = session.execute(
        select(
            func.min(MigrationInstance.level), func.count().filter(is_there),
            func.sum(MigrationInstance.size).filter(is_there),
        ).where(of_study)
    ).one()  # fmt: skip
    values = {"level": level or 0, "stored": stored, "size": int(size or 0)}
    session.execute(update(MigrationStudy).where(MigrationStudy.id == held.study_id).values(**values))
