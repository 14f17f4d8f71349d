"""The ledger of a migration: who works on which study, and every change of state with its audit entry.

A worker claims a study with a lease and a fence (zambezi.leases). Nothing of a migration lives in memory only:
after a kill -9 the lease runs out, the study is claimed again and the difference to what is stored says what is
left to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select, update
from sqlalchemy.orm import Session

from migration import pace, planned
from migration.inventory import raise_exception
from migration.lanes import AT_HAND, Lane
from zambezi import audit, clock, exceptions, leases
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy
from zambezi.leases import Lease

WRITER = "migration"
LEASE = timedelta(seconds=30)
#: States in which a person decides; in each of them an exception item waits.
FOR_A_PERSON = ("divergent", "conflict", "vanished", "incomplete", "parked")
#: States in which nothing more will happen to a study by itself.
AT_REST = ("verified", *FOR_A_PERSON, "held", "skipped", "waived", "rolled-back")
#: The others, as they follow one another.
UNDER_WAY = ("ready", "retrying", "moving", "verifying")
#: From this priority on a study goes before everything else: somebody waits for it now.
URGENT = 100


@dataclass(frozen=True)
class Claim:
    """A worker's right to one study until the lease ends; `attempts` counts this one.

    `began`: when it was claimed; `used`: so many studies of its source were in work then, this one among them.
    """

    lease: Lease
    study_uid: str
    project: str
    attempts: int
    began: datetime
    used: int = 1

    @property
    def study_id(self) -> int:
        return int(self.lease.id)


def claim(
    session: Session, project: MigrationProject, *, now: datetime, owner: str, lease: timedelta = LEASE,
    ceiling: int | None = None, lane: Lane = AT_HAND,
) -> Claim | None:  # fmt: skip
    """Claim the study of this lane whose turn it is; None if none is due, or all slots of the source are in use.

    In this order: what is urgent; what a dead worker left (the audit says so); what is due again; then by priority,
    the newest first (or the oldest, where the plan says so). Each is a question that an index answers at once,
    whatever the ledger holds. A worker's death is no failed attempt of the study: what was moved is there, and the
    next one goes on. Without a `ceiling` slots aren't counted; of what is near-line the pace is nobody's measure.
    """
    used, is_decided = 0, planned.is_decided(session, project.id)
    if ceiling is not None:
        found_pace = pace.locked(session, project.source)
        used = pace.in_use(session, project.source, now, lane)
        if used >= (ceiling if lane.is_near_line else found_pace.allowed(ceiling)):
            return None
    for state, order_by, where in _turns(clock.text(now), project.plan.get("Order", ""), lane):
        found = leases.claim(
            session, MigrationStudy, ready=(state,) if state in ("ready", "retrying") else (), working="moving",
            also_working=("verifying",),
            where=[MigrationStudy.project_id == project.id, MigrationStudy.state == state, is_decided, *where], now=now,
            owner=owner, lease=lease, order_by=order_by, counts_abandoned=False,
        )  # fmt: skip
        if found is not None:
            break
    else:
        return None
    row, held = found
    made = Claim(held, row.study_uid, project.name, row.attempts, now, used + 1)
    # Whatever stage it was left in, the way begins with counting what is missing.
    if row.state != "moving":
        leases.change(session, held, {"state": "moving"})
    if held.taken_from:
        _audit(session, made, "moving", f"the lease of {held.taken_from} ran out; {owner} goes on", now)
    return made


_BY_TURN = (MigrationStudy.priority.desc(), MigrationStudy.study_date.desc(), MigrationStudy.id.desc())


_OLDEST_FIRST = (MigrationStudy.study_date, MigrationStudy.id)


def _turns(at: str, order: str, lane: Lane) -> tuple[tuple[str, tuple[Any, ...], tuple[ColumnElement[bool], ...]], ...]:
    """State, order, condition: one question each, in the order in which they are asked."""
    study = MigrationStudy
    first = (
        *(("ready", _BY_TURN, (lane.between(base, URGENT, URGENT),)) for base in lane.bases),
        ("moving", _BY_TURN, (lane.where,)),
        ("verifying", _BY_TURN, (lane.where,)),
        ("retrying", (study.next_at, study.id), (study.next_at <= at, lane.where)),
    )
    if order != "oldest":
        return (*first, *(("ready", _BY_TURN, (lane.between(base, 0, URGENT),)) for base in lane.bases))
    ranked = (("ready", _BY_TURN, (lane.between(base, 1, URGENT),)) for base in lane.bases)
    return (*first, *ranked, *(("ready", _OLDEST_FIRST, (study.priority == base,)) for base in lane.bases))


def is_due(session: Session, project_id: int, now: datetime, lane: Lane = AT_HAND) -> bool:
    """Whether somebody could claim a study of this lane now, slots and breakers left aside."""
    at = clock.text(now)
    study, mine = MigrationStudy, MigrationStudy.project_id == project_id
    late = (study.state.in_(("moving", "verifying")), study.lease_until <= at, lane.where)
    questions: tuple[tuple[ColumnElement[bool], ...], ...] = (
        *((study.state == "ready", lane.between(base, 0, URGENT)) for base in lane.bases),
        (study.state == "retrying", study.next_at <= at, lane.where), late,
    )  # fmt: skip
    return any(session.scalars(select(study.id).where(mine, *one).limit(1)).first() for one in questions)


def is_under_way(session: Session, project_id: int) -> bool:
    """Whether any study isn't at rest."""
    study = MigrationStudy
    query = select(study.id).where(study.project_id == project_id, study.state.in_(UNDER_WAY)).limit(1)
    return session.scalars(query).first() is not None


def coming(session: Session, project: MigrationProject, many: int) -> list[str]:
    """Study UIDs among those whose turn comes next, as far as the plan's order says it; none that the plan changes."""
    study, order = MigrationStudy, _OLDEST_FIRST if project.plan.get("Order") == "oldest" else _BY_TURN
    query = select(study.study_uid, study.changes).where(study.project_id == project.id, study.state == "ready")
    return [uid for uid, changes in session.execute(query.order_by(*order).limit(many)) if not changes]


def look(session: Session, held: Claim, there: Collection[str], now: datetime) -> None:
    """Before the first move, once: which of the study's instances the archive has already."""
    row = session.get_one(MigrationStudy, held.study_id)
    if row.looked_at is not None:
        return
    leases.change(session, held.lease, {"looked_at": clock.text(now)})
    for some in _pieces(sorted(there)):
        session.execute(
            update(MigrationInstance)
            .where(MigrationInstance.study_id == held.study_id, MigrationInstance.sop_uid.in_(some))
            .values(was_there=1)
        )


def was_there(session: Session, held: Claim) -> set[str]:
    """Which instances of the study the archive had before anything of it was moved."""
    row = MigrationInstance
    query = select(row.sop_uid).where(row.study_id == held.study_id, row.was_there == 1)
    return set(session.scalars(query))


def _pieces(uids: list[str]) -> Iterator[list[str]]:
    for n in range(0, len(uids), 500):
        yield uids[n : n + 500]


def verifying(session: Session, held: Claim, now: datetime, stored: int = 0) -> None:
    """What could be had is there, so many instances of it; now each is compared."""
    leases.change(session, held.lease, {"state": "verifying", "stored": stored})
    _audit(session, held, "verifying", "", now)


def finish(
    session: Session, held: Claim, state: str, reason: str, now: datetime, *, wait: timedelta | None = None,
    counts: bool = True, suggestion: str = "",
) -> None:  # fmt: skip
    """Let go of the study in a state: at rest, or due again after `wait`; leases.Fenced if it isn't ours any more.

    Unless it `counts`, this was no attempt of the study (the window closed, the configuration is wrong).
    """
    leases.change(session, held.lease, {
        "state": state, "lease_owner": None, "lease_until": None, "reason": reason,
        "next_at": clock.text(now + (wait or timedelta())),
        "verified_at": clock.text(now) if state == "verified" else None,
        "attempts": held.attempts if counts else held.attempts - 1,
    })  # fmt: skip
    if state in FOR_A_PERSON:
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
        raise_exception(session, project, f"study-{state}", reason, suggestion, now, held.study_uid)
    elif state == "verified":
        who = "the migration itself"
        exceptions.decide(session, "migration", held.study_uid, who=who, decision=state, now=now, writer=WRITER)
    _audit(session, held, state, reason, now)


def set_verdicts(session: Session, held: Claim, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write columns of instances (by SOP Instance UID), if the study is still ours."""
    leases.change(session, held.lease, {"fence": held.lease.fence})
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for sop_uid, values in verdicts.items():
        row = {"of_study": held.study_id, "of_instance": sop_uid, **{f"new_{name}": v for name, v in values.items()}}
        by_columns.setdefault(tuple(values), []).append(row)
    table = MigrationInstance.__table__
    for names, rows in by_columns.items():
        if names:
            change = table.update().where(  # type: ignore[attr-defined]  # a Table, which the base class calls less
                table.c.study_id == bindparam("of_study"), table.c.sop_uid == bindparam("of_instance")
            )
            session.connection().execute(change.values({name: bindparam(f"new_{name}") for name in names}), rows)


def set_project(session: Session, project: MigrationProject, state: str, note: str, now: datetime) -> None:
    """Change a project's state, with the reason in words."""
    project.state, project.note, project.updated_at = state, note, clock.text(now)
    audit.append(session, WRITER, "migration-changed", now, project=project.name, state=state, reason=note)
    if state == "running":
        who, about = "the migration itself", f"project {project.name}"
        exceptions.decide(session, "migration", about, who=who, decision="it runs again", now=now, writer=WRITER)


def states(session: Session, project_id: int) -> dict[str, int]:
    """How many studies of a project are in which state."""
    query = (
        select(MigrationStudy.state, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(MigrationStudy.state)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def _audit(session: Session, held: Claim, state: str, reason: str, now: datetime) -> None:
    audit.append(
        session, WRITER, "migration-changed", now, project=held.project, study_uid=held.study_uid, state=state,
        reason=reason,
    )  # fmt: skip
