"""One study from claim to verdict: announce, move what is missing, count again, compare, say how it ended."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from migration import inventory, ledger, transfer, verify
from migration.desk import Closed, Desk
from migration.ledger import Claim, Fenced, Keeper
from migration.source import CutOff, Source, Trouble
from migration.verify import Checked, Compared
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy
from zambezi.orthanc_client import OrthancError

log = logging.getLogger(__name__)

#: After so many attempts in which single objects did not come, a person must look; a dead line is retried for ever.
ATTEMPTS = 3
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=30)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: the study's next state, why in words, and what a person could do."""

    state: str
    reason: str = ""
    suggestion: str = ""
    wait: timedelta = timedelta()
    counts: bool = False


def back_off(attempts: int) -> timedelta:
    """The wait after so many failed attempts: 5 s, doubled each time, at most half an hour."""
    return min(timedelta(seconds=_FIRST_WAIT.total_seconds() * 2 ** min(attempts, 12)), _LONGEST_WAIT)


def decide(attempts: int, missing: set[str], checked: Checked, troubles: list[str], vanished: set[str]) -> Outcome:
    """What the set and the comparison mean for the study, after `attempts` earlier ones."""
    different = {uid: found for uid, found in checked.compared.items() if found.verdict != "equal"}
    if different:
        tags = sorted({tag for found in different.values() for tag in found.differs_in})
        return Outcome(
            "divergent",
            f"{len(different)} instances differ from the source, in {', '.join(tags[:12])}",
            "Compare both sides; decide which copy is right.",
        )
    if vanished:
        return Outcome(
            "divergent",
            f"the source no longer names {len(vanished)} instances that it named before",
            "Find out in the source whether they were deleted or moved to another study.",
        )
    lacking = len(missing) + len(checked.not_sent)
    if not lacking:
        return Outcome("verified")
    said = f" ({'; '.join(dict.fromkeys([*troubles, *checked.troubles]))})" if troubles or checked.troubles else ""
    what = (
        f"{len(missing)} instances did not arrive" if missing else f"{len(checked.not_sent)} could not be fetched again"
    )
    reason = f"{what}{said}"[:1000]
    if attempts + 1 >= ATTEMPTS:
        return Outcome("parked", reason, "Look at these objects in the source; then retry the study.", counts=True)
    return Outcome("retrying", reason, wait=back_off(attempts), counts=True)


def work(desk: Desk, project: MigrationProject) -> bool:
    """Claim one study of the project and bring it on; False if there was none to claim."""
    with desk.sessions.begin() as session:
        held = ledger.claim(session, project, now=desk.now(), owner=desk.owner)
        if held is None:
            return False
        attempts = session.get_one(MigrationStudy, held.study_id).attempts
    try:
        with Keeper(desk.sessions, held, desk.now) as keeper:
            outcome = _attempt(desk, held, attempts, keeper)
        with desk.sessions.begin() as session:
            ledger.finish(
                session, held, outcome.state, outcome.reason, desk.now(), wait=outcome.wait, counts=outcome.counts,
                suggestion=outcome.suggestion,
            )  # fmt: skip
        log.info("study %s: %s%s", held.study_uid, outcome.state, f": {outcome.reason}" if outcome.reason else "")
    except Fenced as fenced:
        log.warning("%s; letting go of it", fenced)
    except Closed as closed:
        with desk.sessions.begin() as session:
            ledger.finish(session, held, "ready", str(closed), desk.now())
        raise
    except Trouble as trouble:
        _settle_trouble(desk, held, attempts, trouble)
    except OrthancError as error:
        _settle_trouble(desk, held, attempts, Trouble("transient", f"the archive: {error}"))
    return True


def _attempt(desk: Desk, held: Claim, attempts: int, keeper: Keeper) -> Outcome:
    desk.check_open()
    transfer.announce(desk, held.study_uid, held.project)
    expected, equal = _ledger_set(desk, held)
    moved = transfer.move(desk, held.study_uid, expected, keeper)
    vanished = _count_again(desk, held)
    grown, _ = _ledger_set(desk, held)
    if set(grown) - set(expected):
        return Outcome("ready", f"the source has {len(set(grown) - set(expected))} more instances than before")
    with desk.sessions.begin() as session:
        ledger.verifying(session, held, desk.now())
        ledger.set_verdicts(session, held, _presence(moved, equal))
    wanted = set(moved.stored) & set(expected) - equal

    def keep(results: dict[str, Compared]) -> None:
        with desk.sessions.begin() as session:
            ledger.set_verdicts(session, held, {uid: found.columns for uid, found in results.items()})

    checked = verify.check(desk, held.study_uid, expected, moved.stored, wanted, keeper.check, keep)
    for sop_uid, found in checked.compared.items():
        if found.verdict != "equal":
            log.warning("instance %s differs from the source in %s", sop_uid, ", ".join(found.differs_in))
    return decide(attempts, moved.missing, checked, moved.troubles, vanished)


def _ledger_set(desk: Desk, held: Claim) -> tuple[dict[str, str], set[str]]:
    """Series by SOP Instance UID of all that the ledger expects, and those that are proven equal already."""
    with desk.sessions.begin() as session:
        rows = session.scalars(select(MigrationInstance).where(MigrationInstance.study_id == held.study_id)).all()
        return {row.sop_uid: row.series_uid for row in rows}, {row.sop_uid for row in rows if row.verdict == "equal"}


def _count_again(desk: Desk, held: Claim) -> set[str]:
    """Count the study at the source once more, now that it was moved; what has vanished there."""
    source = Source(desk.client, desk.peer.name)
    try:
        counted = source.count(held.study_uid, times=1)
    except CutOff as error:
        raise Trouble("transient", f"the source cut off the count of a study: {error}") from error
    with desk.sessions.begin() as session:
        project_id = session.get_one(MigrationStudy, held.study_id).project_id
        return set(inventory.record(session, project_id, held.study_uid, counted, desk.now()).vanished)


def _presence(moved: transfer.Moved, equal: set[str]) -> dict[str, dict[str, str | None]]:
    """Verdicts of the set alone: stored or missing, where nothing better is known."""
    present: dict[str, dict[str, str | None]] = {
        uid: {"verdict": "stored", "orthanc_id": ids[0]} for uid, ids in moved.stored.items() if uid not in equal
    }
    return present | {uid: {"verdict": "missing", "orthanc_id": None} for uid in moved.missing}


def _settle_trouble(desk: Desk, held: Claim, attempts: int, trouble: Trouble) -> None:
    log.warning("study %s: %s: %s", held.study_uid, trouble.kind, trouble)
    with desk.sessions.begin() as session:
        if trouble.kind == "configuration":
            ledger.finish(session, held, "ready", str(trouble), desk.now())
            _stop_project(session, held, str(trouble), desk)
        else:
            wait = back_off(attempts)
            ledger.finish(session, held, "retrying", str(trouble), desk.now(), wait=wait, counts=True)


def _stop_project(session: Session, held: Claim, reason: str, desk: Desk) -> None:
    """Nothing will work before an administrator has changed something: no study is tried in vain."""
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
    ledger.set_project(session, project, "paused", reason, desk.now())
    suggestion = "Put the configuration of the source or of ours right, then `zambezi migrate start`."
    inventory.raise_exception(session, project, "project-stopped", reason, suggestion, desk.now())


def finish_project(session: Session, project_id: int, desk: Desk) -> bool:
    """Mark a running project finished once all of its studies are at rest."""
    counts = ledger.states(session, project_id)
    if any(count for state, count in counts.items() if state not in ledger.AT_REST):
        return False
    project = session.get_one(MigrationProject, project_id)
    if project.state == "running":
        ledger.set_project(session, project, "finished", "", desk.now())
    return True


def retry(session: Session, project_id: int, states: tuple[str, ...]) -> int:
    """A person says: try the studies in these states again, with all attempts anew; how many there were."""
    again = (
        update(MigrationStudy)
        .where(MigrationStudy.project_id == project_id, MigrationStudy.state.in_(states))
        .values(state="ready", attempts=0, lease_until=None)
        .returning(MigrationStudy.id)
    )
    return len(session.execute(again).all())
