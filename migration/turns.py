"""Whose turn it is: what somebody waits for now, then the priors of patients who are expected, then the newest.

Priors of a patient with an open order come before all others, the sooner the exam the earlier, so that a radiologist
who reads it next finds them. Priorities are written to the ledger now and then by one worker (`prioritise`); claiming
only reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from migration import lanes, ledger
from zambezi import announcing, causes, clock
from zambezi.database.tables import (
    AnnouncedStudy,
    MigrationMatch,
    MigrationProject,
    MigrationStudy,
    Order,
    Patient,
    Study,
)
from zambezi.orders import OPEN

#: Exams so far ahead draw priors before others.
AHEAD = timedelta(days=14)
#: An open order of so long ago still does: the patient is late, or is being examined.
BACK = timedelta(days=1)
_IN_ONE = 500
#: What is verified is announced for so much longer: the archive's follower may be behind.
_SETTLED_FOR = timedelta(hours=1)
#: What isn't may still come late, from a source that sends when it likes.
_LATE_FOR = timedelta(days=7)
_DONE = ("verified", "skipped", "rolled-back")


def priority(scheduled_at: datetime, now: datetime) -> int:
    """Of the priors of a patient whose exam is then: 99 now, one less for each four hours, never urgent nor ordinary.

    (14 days are 84 times four hours.)
    """
    hours = max(0.0, (scheduled_at - now).total_seconds() / 3600)
    return max(1, ledger.URGENT - 1 - int(hours // 4))


def expected_patients(session: Session, now: datetime) -> dict[str, int]:
    """Identifiers of patients with an open order, those that were merged into them too, and their priors' priority."""
    query = (
        select(Patient.id, Patient.patient_id, Order.scheduled_at)
        .join(Order, Order.patient_key == Patient.id)
        .where(
            Order.status.in_(OPEN), Order.scheduled_at >= clock.text(now - BACK),
            Order.scheduled_at <= clock.text(now + AHEAD),
        )
    )  # fmt: skip
    keys: dict[int, int] = {}
    wanted: dict[str, int] = {}
    for key, patient_id, scheduled_at in session.execute(query):
        rank = priority(clock.parse(scheduled_at), now)
        keys[key] = max(rank, keys.get(key, 0))
        wanted[patient_id] = max(rank, wanted.get(patient_id, 0))
    listed = sorted(keys)
    for n in range(0, len(listed), _IN_ONE):
        merged = select(Patient.patient_id, Patient.merged_into).where(Patient.merged_into.in_(listed[n : n + _IN_ONE]))
        for patient_id, into in session.execute(merged):
            wanted[patient_id] = max(keys.get(into or 0, 0), wanted.get(patient_id, 0))
        # As a source calls them, where a plan or a person has said who that is here.
        matched = select(MigrationMatch.patient_id, MigrationMatch.patient_key)
        for patient_id, here in session.execute(matched.where(MigrationMatch.patient_key.in_(listed[n : n + _IN_ONE]))):
            wanted[patient_id] = max(keys.get(here or 0, 0), wanted.get(patient_id, 0))
    return wanted


def prioritise(session: Session, project: MigrationProject, expected: Mapping[str, int]) -> int:
    """Give waiting studies of expected patients their priority, and take it from those of others; how many changed."""
    study = MigrationStudy
    mine = (study.project_id == project.id, study.state.in_(("ready", "retrying")))
    both = lanes.ALL_NEAR_LINE
    some_rank = or_(*(both.between(base, 1, 99) for base in both.bases))
    changes: dict[int, list[int]] = {}
    ranked = select(study.id, study.patient_id, study.priority).where(*mine, some_rank)
    for row_id, patient_id, now in session.execute(ranked):
        if (wanted := lanes.ranked(expected.get(patient_id, 0), now)) != now:
            changes.setdefault(wanted, []).append(row_id)
    ids = sorted(expected)
    for n in range(0, len(ids), _IN_ONE):
        unranked = select(study.id, study.patient_id, study.priority).where(
            study.project_id == project.id, study.patient_id.in_(ids[n : n + _IN_ONE]),
            study.state.in_(("ready", "retrying")), study.priority.in_(both.bases),
        )  # fmt: skip
        for row_id, patient_id, now in session.execute(unranked):
            changes.setdefault(lanes.ranked(expected[patient_id], now), []).append(row_id)
    for rank, rows in changes.items():
        for n in range(0, len(rows), _IN_ONE):
            session.execute(update(study).where(study.id.in_(rows[n : n + _IN_ONE])).values(priority=rank))
    return sum(map(len, changes.values()))


def forget(session: Session, project: MigrationProject, now: datetime, many: int = 1000) -> int:
    """Announce no more what is settled, so that what the archive is told stays small; how many studies.

    What is verified, once the archive's journal has told of every image of it; the rest after a week, in which
    a source that answers before it has sent may still be sending.
    """
    study = MigrationStudy
    long_ago, late = clock.text(now - _SETTLED_FOR), clock.text(now - _LATE_FOR)
    told = (
        select(AnnouncedStudy.study_uid, study.state, study.stored, study.next_at)
        .join(study, study.study_uid == AnnouncedStudy.study_uid)
        .where(
            AnnouncedStudy.cause == causes.MIGRATION, AnnouncedStudy.reference == project.name,
            study.project_id == project.id, study.state.in_(ledger.AT_REST), study.next_at <= long_ago,
        )
        .order_by(AnnouncedStudy.study_uid)
        .limit(many)
    )  # fmt: skip
    rows = session.execute(told).all()
    known: dict[str, int] = {}
    for n in range(0, len(rows), _IN_ONE):
        uids = [row.study_uid for row in rows[n : n + _IN_ONE]]
        journal = select(Study.study_uid, Study.instances).where(Study.study_uid.in_(uids))
        for uid, instances in session.execute(journal):
            known[uid] = known.get(uid, 0) + instances
    over = [
        row.study_uid
        for row in rows
        if row.next_at <= late or (row.state in _DONE and known.get(row.study_uid, 0) >= row.stored)
    ]
    return announcing.forget_studies(session, over, causes.MIGRATION, project.name)
