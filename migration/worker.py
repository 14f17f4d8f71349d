"""One study from claim to verdict: announce, move what is missing, count again, compare, say how it ended."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import extras, inventory, ledger, pace, proof, rejections, transfer
from migration.desk import Closed, Desk
from migration.lanes import AT_HAND, NEAR_LINE, Lane
from migration.ledger import Claim
from migration.source import RUNGS, Checked, Counted, CutOff, Given, Named, Request, Study, Trouble
from zambezi import breakers, retries
from zambezi.config.settings import MigrationSource
from zambezi.database.tables import MigrationInstance, MigrationProject, MigrationStudy
from zambezi.leases import Fenced, Keeper
from zambezi.orthanc_client import OrthancError
from zambezi.retries import ErrorClass, Policy

log = logging.getLogger(__name__)

#: Its breaker pauses all of migration while a disk of ours is full.
QUEUE = "queue:migration"
#: So often a near-line study is asked for as a whole, before smaller parts are tried.
_WHOLE_ATTEMPTS = 3


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: the study's next state, why in words, and what a person could do."""

    state: str
    reason: str = ""
    suggestion: str = ""
    wait: timedelta = timedelta()


def decide(
    attempts: int, missing: set[str], checked: Checked, troubles: list[str], vanished: set[str], policy: Policy,
    draw: float, was_there: Collection[str] = (), expected: int = 0, fewer: Collection[str] = (),
) -> Outcome:  # fmt: skip
    """What the set and the comparison mean for the study; `attempts` counts this one.

    `was_there`: what the archive had before anything was moved; `expected`: how many instances the source names;
    `fewer`: those of which it names more copies than the archive has.
    """
    different = {uid: found for uid, found in checked.compared.items() if found.verdict != "equal"}
    if different:
        named = sorted({tag for found in different.values() for tag in found.differs_in})
        tags = ", ".join(named[:12])
        before = len(set(different) & set(was_there))
        if before:
            return Outcome(
                "conflict",
                f"the archive had {before} instances before, under the same UIDs, with other content, in {tags}",
                "Look at both sides; keep the archive's or the source's.",
            )
        differ = "differ from the source, in" if all(tag.startswith("(") for tag in named) else "are not as they came:"
        return Outcome(
            "divergent",
            f"{len(different)} instances {differ} {tags}",
            "Compare both sides; decide which copy is right.",
        )
    if vanished:
        return Outcome(
            "vanished",
            f"the source no longer names {len(vanished)} instances that it named before",
            "Find out in the source whether they were deleted or moved to another study.",
        )
    lacking = len(missing) + len(checked.not_sent)
    if not lacking and fewer:
        words = f"the source names {len(fewer)} images more than once, and the archive has fewer of each: {min(fewer)}"
        advice = "Look whether the source has several objects under one UID, or only repeats itself (RepeatsAnswers)."
        return Outcome("incomplete", words, advice)
    if not lacking:
        return Outcome("verified")
    said = f" ({'; '.join(dict.fromkeys([*troubles, *checked.troubles]))})" if troubles or checked.troubles else ""
    what = (
        f"{len(missing)} instances did not arrive" if missing else f"{len(checked.not_sent)} could not be fetched again"
    )
    reason = f"{what}{said}"[:1000]
    decided = retries.decide(ErrorClass.OBJECT, attempts, policy, draw)
    if decided.state != "parked":
        return Outcome("retrying", reason, wait=decided.wait)
    if missing and not checked.not_sent and len(missing) < expected:
        # The last rung: what can't be had is listed, and holds nothing else up.
        words = f"all but {len(missing)} of {expected} instances are verified: {reason}"[:1000]
        return Outcome("incomplete", words, "Look at these objects in the source; retry, or leave them behind.")
    return Outcome("parked", reason, "Look at these objects in the source; then retry the study.")


def _still_whole(session: Session, held: Claim, outcome: Outcome) -> Outcome:
    """It is verified, unless a delta pass or an inventory named more of it meanwhile, or none was ever named."""
    row = MigrationInstance
    verdicts = session.scalars(select(row.verdict).where(row.study_id == held.study_id)).all()
    if not verdicts:
        words = "the source names this study, but no instance of it"
        return Outcome("parked", words, "Look at the study in the source; then take its inventory again.")
    return Outcome("ready", "") if {"expected", "missing"} & set(verdicts) else outcome


def neighbour(source: str, settings: MigrationSource) -> breakers.Neighbour:
    """A source's breaker, which every worker and every project that asks it shares."""
    rule = breakers.Rule(settings.break_after, settings.policy)
    return breakers.Neighbour(f"source:{source}", QUEUE, rule, ledger.WRITER)


def work(desk: Desk, project: MigrationProject, lane: Lane = AT_HAND) -> bool:
    """Claim one study of the project and bring it on; False if there was none to claim, or the source is paused."""
    source = neighbour(project.source, desk.settings)
    desk = desk.for_lane(lane)
    with desk.sessions.begin() as session:
        # Rows are locked in one order by everybody: the source's pace, breakers, studies, chains.
        pace.locked(session, project.source)
        entry = source.enter(session, desk.now(), ledger.LEASE)
        if entry is None:
            return False
        held = None
        if not (entry.probes and _is_left_to_others(session, desk, project, lane)):
            held = ledger.claim(
                session, project, now=desk.now(), owner=desk.owner, ceiling=desk.ceiling, lane=lane
            )  # fmt: skip
        if held is None:
            session.rollback()  # nothing to do: a probe isn't taken for it
            return False

    def hold(session: Session) -> None:
        breakers.hold(session, entry, now=desk.now(), lasting=ledger.LEASE)

    try:
        with Keeper(desk.sessions, held.lease, desk.now, ledger.LEASE, hold) as keeper:
            outcome, moved, results = _attempt(desk, held, keeper)
        with desk.sessions.begin() as session:
            _quicker(session, desk, project.source, held, moved)
            source.answered(session, entry, desk.now())
            if results is not None:
                proof.settle(session, results, desk.now())
            if outcome.state == "verified":
                outcome = _still_whole(session, held, outcome)
            ledger.finish(
                session, held, outcome.state, outcome.reason, desk.now(), wait=outcome.wait,
                counts=outcome.state != "ready", suggestion=outcome.suggestion,
            )  # fmt: skip
        log.info("study %s: %s%s", held.study_uid, outcome.state, f": {outcome.reason}" if outcome.reason else "")
    except Fenced as fenced:
        log.warning("%s; letting go of it", fenced)
    except Closed as closed:
        with desk.sessions.begin() as session:
            breakers.give_back(session, entry, now=desk.now())
            ledger.finish(session, held, "ready", str(closed), desk.now(), counts=False)
        raise
    except Trouble as trouble:
        _settle_trouble(desk, held, source, entry, trouble)
    except OrthancError as error:
        of_ours = Trouble(_kind_of_ours(error), f"the archive: {error}", is_ours=True)
        _settle_trouble(desk, held, source, entry, of_ours)
    return True


def _is_left_to_others(session: Session, desk: Desk, project: MigrationProject, lane: Lane) -> bool:
    """Whether a source is well is asked with what it has at hand, as long as there is any: tape would take hours."""
    return lane is NEAR_LINE and ledger.is_due(session, project.id, desk.now(), AT_HAND)


def is_full(desk: Desk, project: MigrationProject, lane: Lane = AT_HAND) -> bool:
    """Whether a study waits for nothing but a slot of its source: a worker that found none waits with it."""
    desk = desk.for_lane(lane)
    with desk.looking.begin() as session:
        now = desk.now()
        if not ledger.is_due(session, project.id, now, lane):
            return False
        allowed = desk.ceiling if lane.is_near_line else pace.read(session, project.source).allowed(desk.ceiling)
        return pace.in_use(session, project.source, now, lane) >= allowed


def _quicker(session: Session, desk: Desk, source: str, held: Claim, moved: transfer.Moved) -> None:
    """A study came: perhaps the source bears one more at once. What came from tape says nothing of that."""
    if not moved.brought or desk.settings.near_line:
        return
    before = pace.locked(session, source)
    ceiling, now = desk.ceiling, desk.now()
    after = pace.went_well(before, held.used, moved.brought, moved.seconds, ceiling, now)
    if after != before:
        pace.write(session, source, after, now)


def _slower(session: Session, desk: Desk, source: str, held: Claim, reason: str) -> None:
    """The source timed out or rejected: it is asked for less at once."""
    before = pace.locked(session, source)
    after = pace.went_wrong(before, reason, held.began, desk.ceiling, desk.now())
    if after != before:
        pace.write(session, source, after, desk.now())
        log.warning("source %s: %s at once from now on: %s", source, after.slots, reason)


def _attempt(
    desk: Desk, held: Claim, keeper: Keeper
) -> tuple[Outcome, transfer.Moved, proof.Results | None]:  # fmt: skip
    """How it went, what was moved, and what is still to be written of its instances (None: nothing was compared)."""
    desk.check_open()
    transfer.announce(desk, held.study_uid, held.project)
    expected, equal, given = _ledger_set(desk, held)

    def look(there: Collection[str]) -> None:
        with desk.sessions.begin() as session:
            ledger.look(session, held, there, desk.now())

    # In smaller parts tape would be asked for again and again while it is fetched.
    as_a_whole = desk.settings.near_line and held.attempts <= _WHOLE_ATTEMPTS
    moved = transfer.move(desk, held.study_uid, expected, keeper, look, RUNGS[:1] if as_a_whole else RUNGS)
    named, vanished, repeated = _count_again(desk, held)
    if more := len(named - set(expected)):
        return Outcome("ready", f"the source has {more} more instances than before"), moved, None
    results = proof.Results(held, len(set(moved.stored) & set(expected)), _presence(moved, equal, expected))
    if moved.given:  # what passed through us must not pass once more
        results.save(desk)
    wanted = set(moved.stored) & set(expected) - equal
    study = Study(held.study_uid, expected, moved.stored, given | moved.given)
    checked = proof.prove(desk, held, study, wanted, keeper, results)
    rejections.look(desk, held.project, study)
    for sop_uid, found in checked.compared.items():
        if found.verdict != "equal":
            log.warning("instance %s is not as it should be: %s", sop_uid, ", ".join(found.differs_in))
    was_there: set[str] = set()
    if any(found.verdict != "equal" for found in checked.compared.values()):
        with desk.looking.begin() as session:
            was_there = ledger.was_there(session, held)
    outcome = decide(
        held.attempts, moved.missing, checked, moved.troubles, vanished, desk.settings.policy, desk.draw(), was_there,
        len(expected), {uid for uid, times in repeated.items() if len(moved.stored.get(uid, ())) < times},
    )  # fmt: skip
    if outcome.state == "verified":
        extras.carry(desk, held, study, keeper)
    if outcome.state == "conflict":
        _bring_others(desk, study, was_there & checked.compared.keys(), checked, keeper)
    return outcome, moved, results


def _bring_others(desk: Desk, study: Study, uids: Iterable[str], checked: Checked, keeper: Keeper) -> None:
    """What the source has under UIDs of ours comes to the archive's door, which keeps it whole in the hold.

    Nothing was asked for before, since the archive has these UIDs.
    """
    for uid in sorted(uid for uid in uids if checked.compared[uid].verdict != "equal"):
        desk.check_open()
        keeper.check()
        try:
            desk.source.bring(desk, Request("Instance", (study.uid, study.expected[uid].series_uid, uid)), keeper)
        except Trouble as trouble:
            if trouble.kind is not ErrorClass.OBJECT:
                raise
            log.warning("instance %s, which the archive has with other content, can't be held: %s", uid, trouble)


def _ledger_set(desk: Desk, held: Claim) -> tuple[dict[str, Named], set[str], dict[str, Given]]:
    """All that the ledger expects, by SOP Instance UID; what is proven equal already; what passed through us before."""
    row = MigrationInstance
    columns = (
        row.sop_uid, row.series_uid, row.sop_class, row.source_syntax, row.size, row.source_md5, row.given_md5,
        row.source_digest, row.verdict,
    )  # fmt: skip
    with desk.looking.begin() as session:
        rows = session.execute(select(*columns).where(row.study_id == held.study_id)).all()
    named = {
        row.sop_uid: Named(
            row.series_uid, row.sop_class or "", row.source_syntax or "", row.size or 0, row.source_md5 or ""
        )
        for row in rows
    }
    given = {row.sop_uid: Given(row.given_md5, row.source_digest) for row in rows if row.given_md5}
    return named, {row.sop_uid for row in rows if row.verdict == "equal"}, given


def _count_again(desk: Desk, held: Claim) -> tuple[set[str], set[str], Mapping[str, int]]:
    """Count the study at the source once more, now that it was moved.

    All that was ever named, what vanished, and how often it names what it names more than once.
    """
    change, counted, study = _recount(desk, held, times=1)
    if change.appeared:  # more than the names of what is new is asked for, and twice
        change, counted, study = _recount(desk, held, times=2)
        with desk.sessions.begin() as session:
            inventory.record(session, study.project_id, held.study_uid, counted, desk.now())
    if change.patients:
        now = ", ".join(sorted(change.patients))
        words = f"the source has put this study under patient {now}; when it was found it was under {study.patient_id}"
        raise Trouble(ErrorClass.CONFLICT, words)
    return set(counted.instances) | change.vanished, set(change.vanished), counted.repeated


def _recount(desk: Desk, held: Claim, times: int) -> tuple[inventory.Change, Counted, MigrationStudy]:
    try:
        counted = desk.source.count(held.study_uid, times)
    except CutOff as error:
        raise Trouble(ErrorClass.TRANSIENT, f"the source cut off the count of a study: {error}") from error
    with desk.looking.begin() as session:
        study = session.get_one(MigrationStudy, held.study_id)
        return inventory.recount(session, study, counted), counted, study


def _presence(
    moved: transfer.Moved, equal: set[str], expected: Collection[str]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Verdicts of the set alone: stored or missing, where nothing better is known."""
    present: dict[str, dict[str, Any]] = {
        uid: {"verdict": "stored", "orthanc_id": ids[0], "reason": None}
        for uid, ids in moved.stored.items()
        if uid in expected and uid not in equal
    }
    for sop_uid, given in moved.given.items():
        present.setdefault(sop_uid, {}).update(given_md5=given.md5, source_digest=given.digest)
    lacking: dict[str, dict[str, Any]] = {
        uid: {"verdict": "missing", "orthanc_id": None, "reason": moved.because.get(uid)} for uid in moved.missing
    }
    return present | lacking


def _settle_trouble(
    desk: Desk, held: Claim, source: breakers.Neighbour, entry: breakers.Pass, trouble: Trouble
) -> None:  # fmt: skip
    log.warning("study %s: %s: %s", held.study_uid, trouble.kind, trouble)
    now, draw, reason = desk.now(), desk.draw(), str(trouble)
    is_fetching = trouble.took_long and desk.settings.near_line
    with desk.sessions.begin() as session:
        if trouble.kind is ErrorClass.TRANSIENT and not trouble.is_ours and not is_fetching:
            _slower(session, desk, source.name.partition(":")[2], held, reason)
        if is_fetching or (trouble.is_ours and trouble.kind is not ErrorClass.DISK):
            breakers.give_back(session, entry, now=now)
        else:
            source.failed(session, entry, trouble.kind, reason, now, draw)
        if trouble.kind is ErrorClass.CONFIGURATION:
            ledger.finish(session, held, "ready", reason, now, counts=False)
            _stop_project(session, held, reason, desk)
            return
        decided = retries.decide(trouble.kind, held.attempts, desk.settings.policy, draw)
        # What conflicts is tried no more, like what is parked; but it wants another decision.
        state = "conflict" if trouble.kind is ErrorClass.CONFLICT else decided.state
        ledger.finish(
            session, held, state, reason, now, wait=decided.wait, counts=decided.counts,
            suggestion="Look at this study in the source; then retry it.",
        )  # fmt: skip


def _kind_of_ours(error: OrthancError) -> ErrorClass:
    """The archive is away, or its disk is full; whatever else it refuses is tried again: the source did no wrong."""
    kind = retries.of_orthanc(str(error), "query")
    return kind if kind is ErrorClass.DISK else ErrorClass.TRANSIENT


def _stop_project(session: Session, held: Claim, reason: str, desk: Desk) -> None:
    """Nothing will work before an administrator has changed something: no study is tried in vain."""
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
    ledger.set_project(session, project, "paused", reason, desk.now())
    suggestion = "Put the configuration of the source or of ours right, then `zambezi migrate start`."
    inventory.raise_exception(session, project, "project-stopped", reason, suggestion, desk.now())


def finish_project(session: Session, project_id: int, desk: Desk) -> bool:
    """Mark a running project finished once all of its studies are at rest."""
    if ledger.is_under_way(session, project_id):
        return False
    project = session.get_one(MigrationProject, project_id)
    if project.state == "running":
        ledger.set_project(session, project, "finished", "", desk.now())
    return True
