"""Announcing: what will come by another cause than its sender tells is known to the archive before it comes.

Studies (a migration's inventory) and single instances (a report, a correction, what is restored). The gateway
pushes what is announced to the plugin; whoever announces waits until the plugin has it, and stores then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import causes, clock
from zambezi.database import generations
from zambezi.database.tables import AnnouncedInstance, AnnouncedStudy, MigrationProject, MigrationStudy
from zambezi.orthanc_client import OrthancClient

#: Rows in one statement: SQLite takes 32,766 values.
_ROWS = 1000
_EVERY_S = 0.2

Item = TypeVar("Item")


def announce_studies(session: Session, uids: Iterable[str], cause: str, reference: str, now: datetime) -> int:
    """What comes under these Study Instance UIDs comes by this cause; the generation that says so.

    Of a migration (`reference` names it) goes with it what its plan changes in each study as its images come.
    Announced anew, a study has the newer cause. ValueError for a cause that doesn't exist.
    """
    named = sorted(set(uids))
    declared = _declared(session, named, reference) if cause == causes.MIGRATION else {}
    said = [{"study_uid": uid, "changes": declared.get(uid, "")} for uid in named]
    return _announce(session, AnnouncedStudy, "study_uid", said, cause, reference, now)


def said_of_study(session: Session, study_uid: str, cause: str, reference: str) -> int | None:
    """The generation that says all of this already, changes on the way included; None: it is to be announced."""
    row = session.get(AnnouncedStudy, study_uid)
    if row is None or (row.cause, row.reference) != (cause, reference[:200]):
        return None
    declared = _declared(session, [study_uid], reference) if cause == causes.MIGRATION else {}
    return generations.current(session, "announced") if row.changes == declared.get(study_uid, "") else None


def forget_studies(session: Session, uids: Collection[str], cause: str, reference: str) -> int:
    """Nothing more will come by this cause: these are not told to the archive any more; how many they were.

    The generation stays: there is no hurry, and the next that is announced takes them away with it.
    """
    gone = 0
    for piece in _pieces(sorted(set(uids))):
        study = AnnouncedStudy
        mine = (study.study_uid.in_(piece), study.cause == cause, study.reference == reference)
        gone += len(session.scalars(delete(study).where(*mine).returning(study.study_uid)).all())
    return gone


def forget_before(session: Session, cause: str, moment: datetime) -> int:
    """What was announced by this cause before then came, or never will: it is not told any more; how many."""
    old = (AnnouncedStudy.cause == cause, AnnouncedStudy.created_at < clock.text(moment))
    return len(session.scalars(delete(AnnouncedStudy).where(*old).returning(AnnouncedStudy.study_uid)).all())


def announce_instances(session: Session, coming: Mapping[str, str], cause: str, reference: str, now: datetime) -> int:
    """What comes under these SOP Instance UIDs comes by this cause, whoever brings it; the generation that says so.

    `coming` maps each to the SHA-256 of its bytes, or to "" where they aren't known yet. Corrected and restored
    bytes may take the place of others because they are these very bytes.
    """
    said = [{"sop_uid": uid, "sha256": sha256} for uid, sha256 in sorted(coming.items())]
    return _announce(session, AnnouncedInstance, "sop_uid", said, cause, reference, now)


def forget_instances(session: Session, cause: str, begins: str, before: datetime) -> int:
    """What was announced of this cause, with a reference that begins so, before a moment, is told no more; how many.

    For what the journal has recorded by then, or will be announced anew.
    """
    one = AnnouncedInstance
    old = (one.cause == cause, one.reference.startswith(begins), one.created_at < clock.text(before))
    return len(session.scalars(delete(one).where(*old).returning(one.sop_uid)).all())


def wait_until_known(orthanc: OrthancClient, generation: int, seconds: float) -> bool:
    """Whether the plugin knows this generation within so many seconds. Raises OrthancError."""
    until = time.monotonic() + seconds
    while int(orthanc.get("/zambezi/status")["announced_generation"]) < generation:
        if time.monotonic() >= until:
            return False
        time.sleep(_EVERY_S)
    return True


def _announce(
    session: Session, table: type[AnnouncedStudy] | type[AnnouncedInstance], key: str,
    announced: Sequence[dict[str, str]], cause: str, reference: str, now: datetime,
) -> int:  # fmt: skip
    if cause not in causes.ALL:
        raise ValueError(f"no cause {cause!r}; there are {', '.join(causes.ALL)}")
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = {"cause": cause, "reference": reference[:200], "created_at": clock.text(now)}
    changed = False
    for piece in _pieces(announced):
        rows: list[dict[str, Any]] = [{**one, **said} for one in piece]
        statement = insert(table).values(rows)
        told = [name for name in rows[0] if name != key]
        fresh = [getattr(table, name) != statement.excluded[name] for name in told if name != "created_at"]
        statement = statement.on_conflict_do_update(
            index_elements=[key], set_={name: statement.excluded[name] for name in told}, where=or_(*fresh)
        )
        # A row that says the same already is not returned: nothing to tell the archive.
        changed |= bool(session.scalars(statement.returning(getattr(table, key))).all())
    return generations.raise_(session, "announced") if changed else generations.current(session, "announced")


def _pieces(announced: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for n in range(0, len(announced), _ROWS):
        yield announced[n : n + _ROWS]


def _declared(session: Session, uids: Sequence[str], project: str) -> dict[str, str]:
    """What the plan of a migration changes in these studies: by Study Instance UID, as JSON; those with changes."""
    found: dict[str, str] = {}
    for n in range(0, len(uids), _ROWS):
        rows = session.execute(
            select(MigrationStudy.study_uid, MigrationStudy.changes)
            .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
            .where(MigrationProject.name == project, MigrationStudy.study_uid.in_(uids[n : n + _ROWS]))
        )
        found |= {uid: json.dumps(changes, ensure_ascii=False, sort_keys=True) for uid, changes in rows if changes}
    return found
