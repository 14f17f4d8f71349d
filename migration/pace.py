"""How many studies at once a source is asked for: as many as it bears, never more than an administrator allows.

Additive increase, multiplicative decrease, as TCP finds the width of a line (RFC 5681): doubled from one until the
first trouble, then one more after each round in which all slots were used and all went well; halved when the source
times out, rejects, or takes so much longer for each image that more at once brings no more through. What went well
while slots stood empty proves nothing. The decisions are pure; the row (table migration_pace) is shared by all workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from migration.lanes import AT_HAND, Lane
from zambezi import clock, windows
from zambezi.config.settings import MigrationSource, Site
from zambezi.database.tables import MigrationPace, MigrationProject, MigrationStudy

#: A round lasts until each slot has brought a study, and its studies took so long in all or were so many times the
#: slots: times of a few small studies say more of chance than of the source.
_LEAST_S, _ENOUGH = 3.0, 10
#: Each image takes so many times longer than in the quickest round ...
_SLOWER = 2.0
#: ... and yet no more than this, against that round, comes through in all.
_NO_MORE = 1.1


@dataclass(frozen=True)
class Pace:
    """The row as a value; `because` says to a person why it is what it is."""

    slots: int = 1
    doubles_until: int = 0
    studies: int = 0
    images: int = 0
    seconds: float = 0.0
    quickest: float = 0.0
    quickest_slots: int = 0
    because: str = ""
    cut_at: datetime | None = None

    def allowed(self, most: int) -> int:
        """Studies at once, now, where an administrator allows so many."""
        return max(1, min(self.slots, most))


def ceiling(settings: MigrationSource, site: Site, now: datetime) -> int:
    """Studies at once that an administrator allows at this moment."""
    hours = windows.open_ones(settings.ceilings, now, site.zone, site.holidays)
    return min((one.ceiling for one in hours), default=settings.ceiling)


def went_well(pace: Pace, used: int, images: int, seconds: float, most: int, now: datetime) -> Pace:
    """A study came: `used` slots were in use as it began, its images took so many seconds, `most` is the ceiling."""
    slots = pace.allowed(most)
    if used < slots:
        return pace
    pace = replace(
        pace, studies=pace.studies + 1, images=pace.images + images, seconds=pace.seconds + seconds
    )  # fmt: skip
    if pace.studies < slots or (pace.seconds < _LEAST_S and pace.studies < _ENOUGH * slots):
        return pace
    each = pace.seconds / pace.images if pace.images else 0.0
    over = replace(pace, studies=0, images=0, seconds=0.0)
    if not each:  # all of it was there already: nothing was learnt of the source
        return over
    if slots > 1 and _is_vain(pace, slots, each):
        words = f"each image took {each / pace.quickest:.1f} times as long as with {pace.quickest_slots} at once"
        return _halved(over, slots, words, now)
    if not pace.quickest or each < pace.quickest:
        over = replace(over, quickest=each, quickest_slots=slots)
    if slots >= most:
        return replace(over, slots=slots, because="the ceiling is reached and all goes well")
    doubled = not pace.doubles_until or 2 * slots <= pace.doubles_until
    more = min(most, 2 * slots if doubled else slots + 1)
    return replace(over, slots=more, because=f"the last {slots} went well")


def went_wrong(pace: Pace, reason: str, began: datetime, most: int, now: datetime) -> Pace:
    """The source timed out or rejected a study that began at `began`; one outage halves once, not for each study."""
    if pace.cut_at is not None and began <= pace.cut_at:
        return pace
    return _halved(replace(pace, studies=0, images=0, seconds=0.0), pace.allowed(most), reason, now)


def _is_vain(pace: Pace, slots: int, each: float) -> bool:
    if not pace.quickest or each <= _SLOWER * pace.quickest:
        return False
    return slots / each <= _NO_MORE * pace.quickest_slots / pace.quickest


def _halved(pace: Pace, slots: int, reason: str, now: datetime) -> Pace:
    # What was quick before tells nothing of a source that has changed.
    fewer = max(1, slots // 2)
    return replace(
        pace, slots=fewer, doubles_until=fewer, quickest=0.0, quickest_slots=0, because=reason[:300], cut_at=now
    )  # fmt: skip


# --- the row ----------------------------------------------------------------------------------------


def read(session: Session, source: str) -> Pace:
    """How it stands; a source that was never asked begins with one."""
    row = session.get(MigrationPace, source, populate_existing=True)
    return _pace(row) if row else Pace()


def locked(session: Session, source: str) -> Pace:
    """The same, until this transaction ends nobody else's to change: who claims counts the slots under it."""
    locked = select(MigrationPace).where(MigrationPace.source == source).with_for_update()
    locked = locked.execution_options(populate_existing=True)
    if (found := session.scalars(locked).first()) is not None:
        return _pace(found)
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    made = insert(MigrationPace).values(
        source=source, slots=1, doubles_until=0, studies=0, images=0, seconds=0.0, quickest=0.0, quickest_slots=0,
        because="", changed_at="",
    )  # fmt: skip
    session.execute(made.on_conflict_do_nothing())
    return _pace(session.scalars(locked).one())


def write(session: Session, source: str, pace: Pace, now: datetime) -> None:
    """Keep it; the row is locked by `locked` before."""
    row = session.get_one(MigrationPace, source)
    if row.slots != pace.slots or row.because != pace.because:
        row.changed_at = clock.text(now)
    row.slots, row.doubles_until, row.because = pace.slots, pace.doubles_until, pace.because
    row.studies, row.images, row.seconds = pace.studies, pace.images, pace.seconds
    row.quickest, row.quickest_slots = pace.quickest, pace.quickest_slots
    row.cut_at = clock.text(pace.cut_at) if pace.cut_at else None


def in_use(session: Session, source: str, now: datetime, lane: Lane = AT_HAND) -> int:
    """Studies of this source that are being worked on under a lease that holds, in whatever project and process."""
    mine = session.scalars(select(MigrationProject.id).where(MigrationProject.source == source)).all()
    study = MigrationStudy
    at_work = (
        study.project_id.in_(mine),
        study.state.in_(("moving", "verifying")),
        study.lease_until > clock.text(now),
        lane.where,
    )
    return session.scalar(select(func.count()).select_from(study).where(*at_work)) or 0


def _pace(row: MigrationPace) -> Pace:
    return Pace(
        row.slots, row.doubles_until, row.studies, row.images, row.seconds, row.quickest, row.quickest_slots,
        row.because, clock.parse(row.cut_at) if row.cut_at else None,
    )  # fmt: skip
