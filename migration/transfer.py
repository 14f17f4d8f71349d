"""Moving one study: only what is missing, in the largest parts that get through, and never believed until seen.

What a source says of its success proves nothing; what is in the archive afterwards does. One object that can't be
sent holds up nothing but itself: after the study its series are asked for, then single images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from migration import ledger
from migration.desk import Desk
from migration.source import RUNGS, Given, Named, Request, Trouble
from zambezi import announcing, causes
from zambezi.database.tables import MigrationProject
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass
from zambezi.retrieving import Rung

_POLL_SECONDS = 0.25
#: So many studies that come next are announced together with the one whose turn it is.
ANNOUNCED_AHEAD = 200


def plan(study_uid: str, expected: Mapping[str, Named], missing: Collection[str], rung: Rung) -> list[Request]:
    """What to ask for on a rung of the ladder, so that the missing instances come and few others come again.

    `expected` names each SOP Instance UID. A study or series is asked for whole where more
    than half of it is missing; else its parts are.
    """
    if rung == "Study" and 2 * len(missing) > len(expected):
        return [Request("Study", (study_uid,), len(expected))]
    requests = []
    for series_uid in sorted({expected[sop_uid].series_uid for sop_uid in missing}):
        lacking = sorted(sop_uid for sop_uid in missing if expected[sop_uid].series_uid == series_uid)
        size = sum(1 for other in expected.values() if other.series_uid == series_uid)
        if rung != "Instance" and 2 * len(lacking) > size:
            requests.append(Request("Series", (study_uid, series_uid), size))
        else:
            requests += [Request("Instance", (study_uid, series_uid, sop_uid)) for sop_uid in lacking]
    return requests


@dataclass
class Moved:
    """What is in the archive after the attempt, and what stood in the way."""

    stored: dict[str, list[str]]  # Orthanc ids by SOP Instance UID
    missing: set[str]
    requests: int = 0
    troubles: list[str] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)
    because: dict[str, str] = field(default_factory=dict)  # why a single image could not be had, by SOP Instance UID
    seconds: float = 0.0  # what asking for it took
    brought: int = 0  # instances that came meanwhile


def stored(desk: Desk, study_uid: str) -> dict[str, list[str]]:
    """What the archive holds of a study: Orthanc ids by SOP Instance UID (two where it is under two patients)."""
    held: dict[str, list[str]] = {}
    for instance in desk.client.find("Instance", {"StudyInstanceUID": study_uid}, expand=True):
        held.setdefault(instance["MainDicomTags"]["SOPInstanceUID"], []).append(instance["ID"])
    return held


def _sizes(desk: Desk, study_uid: str) -> dict[str, int]:
    """Bytes of what the archive holds of a study, by Orthanc id."""
    found = desk.client.find("Instance", {"StudyInstanceUID": study_uid}, expand=True)
    return {instance["ID"]: int(instance["FileSize"]) for instance in found}


def announce(desk: Desk, study_uid: str, project: str) -> None:
    """Tell the archive that this study comes by migration, and wait until it knows (DESIGN rule 2).

    Those whose turn is next are told with it: the archive takes over a hundred as quickly as one, and what every
    worker announced by itself would be waited for study by study. Trouble (transient) if the plugin has not taken it
    over in time.
    """
    with desk.looking.begin() as session:
        said = announcing.said_of_study(session, study_uid, causes.MIGRATION, project)
    if said is None:
        with desk.sessions.begin() as session:
            whole = session.scalars(select(MigrationProject).where(MigrationProject.name == project)).one()
            ahead = ledger.coming(session, whole, ANNOUNCED_AHEAD)
            announcing.announce_studies(session, ahead, causes.MIGRATION, project, desk.now())
        # Apart from the others: two workers that announce in one transaction what the other has announced would wait
        # for one another in a circle.
        with desk.sessions.begin() as session:
            said = announcing.announce_studies(session, [study_uid], causes.MIGRATION, project, desk.now())
    generation = said
    until = time.monotonic() + desk.announce_seconds
    while not desk.is_announced(generation):
        if time.monotonic() > until:
            words = "the archive was not told of the announced studies; is the gateway running?"
            raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True)
        desk.pause(0.2)


def move(
    desk: Desk, study_uid: str, expected: Mapping[str, Named], keeper: Keeper,
    look: Callable[[Collection[str]], None] = lambda there: None, rungs: Sequence[Rung] = RUNGS,
) -> Moved:  # fmt: skip
    """Bring what is missing, rung by rung; Trouble where going on is vain, Closed when the window closes.

    `look` is told what of it the archive has before anything is asked for. `rungs`: in which parts it is asked for.
    """
    desk.source.prepare(desk, study_uid, keeper)
    held = stored(desk, study_uid)
    look(set(expected) & set(held))
    moved = Moved(held, set(expected) - set(held))
    lacked, began = len(moved.missing), time.monotonic()
    # A request goes as fast as the line does: on one with a cap the parts are smaller, with a wait after each. Where
    # bytes pass through us each object is paid for as it comes (migration.copying).
    comes_by_itself = desk.source.kind == "dicom"
    in_parts = desk.cap is not None and comes_by_itself
    paid = set(_sizes(desk, study_uid)) if in_parts else set()
    for rung in (rungs[1:] or RUNGS[1:2]) if in_parts else rungs:
        if not moved.missing:
            break
        for request in plan(study_uid, expected, moved.missing, rung):
            desk.check_open()
            keeper.check()
            moved.requests += 1
            try:
                moved.given |= desk.source.bring(desk, request, keeper)
            except Trouble as trouble:
                if trouble.kind is not ErrorClass.OBJECT:
                    raise
                moved.troubles.append(f"{request.level}: {trouble}")
                if request.level == "Instance":
                    moved.because[request.keys[-1]] = str(trouble)
            if in_parts:
                sizes = _sizes(desk, study_uid)
                desk.used(sum(size for orthanc_id, size in sizes.items() if orthanc_id not in paid))
                paid |= set(sizes)
        moved.stored = _settled(desk, study_uid, expected, keeper) if comes_by_itself else stored(desk, study_uid)
        moved.missing = set(expected) - set(moved.stored)
    moved.seconds, moved.brought = time.monotonic() - began, lacked - len(moved.missing)
    return moved


def _settled(desk: Desk, study_uid: str, expected: Mapping[str, Named], keeper: Keeper) -> dict[str, list[str]]:
    """What is stored once all is there or nothing came for a while: some sources answer before they have sent."""
    held = stored(desk, study_uid)
    quiet_since = time.monotonic()
    while set(expected) - set(held) and time.monotonic() - quiet_since < desk.settle_seconds:
        keeper.check()
        desk.pause(_POLL_SECONDS)
        now_held = stored(desk, study_uid)
        if len(now_held) != len(held):
            quiet_since = time.monotonic()
        held = now_held
    return held
