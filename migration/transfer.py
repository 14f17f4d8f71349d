"""Moving one study: only what is missing, in the largest parts that get through, and never believed until seen.

Orthanc asks the source by C-MOVE (PS3.4 C.4.2) to send to our own AE title, as a job with our own deadline.
A status of success proves nothing; what is in the archive afterwards does. One object that can't be sent
holds up nothing but itself: after the study its series are asked for, then single images.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from migration.desk import Closed, Desk
from migration.source import Trouble, trouble_of
from zambezi import announcing, causes
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancRefused
from zambezi.retries import ErrorClass

Rung = Literal["Study", "Series", "Instance"]
RUNGS: tuple[Rung, ...] = ("Study", "Series", "Instance")

_LEVEL_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Request:
    """One C-MOVE: the level and the unique keys that name what is wanted."""

    level: Rung
    keys: tuple[str, ...]

    @property
    def query(self) -> dict[str, str]:
        return dict(zip(_LEVEL_KEYS, self.keys, strict=False))


def plan(study_uid: str, expected: Mapping[str, str], missing: Collection[str], rung: Rung) -> list[Request]:
    """What to ask for on a rung of the ladder, so that the missing instances come and few others come again.

    `expected` gives the series of each SOP Instance UID. A study or series is asked for whole where more
    than half of it is missing; else its parts are.
    """
    if rung == "Study" and 2 * len(missing) > len(expected):
        return [Request("Study", (study_uid,))]
    requests = []
    for series_uid in sorted({expected[sop_uid] for sop_uid in missing}):
        lacking = sorted(sop_uid for sop_uid in missing if expected[sop_uid] == series_uid)
        size = sum(1 for other in expected.values() if other == series_uid)
        if rung != "Instance" and 2 * len(lacking) > size:
            requests.append(Request("Series", (study_uid, series_uid)))
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

    Trouble (transient) if the plugin has not taken it over in time.
    """
    with desk.sessions.begin() as session:
        generation = announcing.announce_studies(session, [study_uid], causes.MIGRATION, project, desk.now())
    until = time.monotonic() + desk.announce_seconds
    while desk.announced() < generation:
        if time.monotonic() > until:
            words = "the archive was not told of the announced studies; is the gateway running?"
            raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True)
        desk.pause(0.2)


def move(desk: Desk, study_uid: str, expected: Mapping[str, str], keeper: Keeper) -> Moved:
    """Bring what is missing, rung by rung; Trouble where going on is vain, Closed when the window closes."""
    _await_earlier_job(desk, study_uid, keeper)
    held = stored(desk, study_uid)
    moved = Moved(held, set(expected) - set(held))
    paid = set(_sizes(desk, study_uid)) if desk.cap else set()
    # A request goes as fast as the line does: on one with a cap the parts are smaller, with a wait after each.
    for rung in RUNGS[1:] if desk.cap else RUNGS:
        if not moved.missing:
            break
        for request in plan(study_uid, expected, moved.missing, rung):
            desk.check_open()
            keeper.check()
            moved.requests += 1
            try:
                _retrieve(desk, request, keeper)
            except Trouble as trouble:
                if trouble.kind is not ErrorClass.OBJECT:
                    raise
                moved.troubles.append(f"{request.level}: {trouble}")
            if desk.cap:
                sizes = _sizes(desk, study_uid)
                desk.used(sum(size for orthanc_id, size in sizes.items() if orthanc_id not in paid))
                paid |= set(sizes)
        moved.stored = _settled(desk, study_uid, expected, keeper)
        moved.missing = set(expected) - set(moved.stored)
    return moved


def _retrieve(desk: Desk, request: Request, keeper: Keeper) -> None:
    """One C-MOVE as an asynchronous job of Orthanc; Trouble if the source or Orthanc says that it failed."""
    client, peer = desk.client, desk.peer.name
    try:
        made = client.post(f"/modalities/{peer}/query", {"Level": request.level, "Query": request.query})
        try:
            body = {
                "TargetAet": desk.target_aet, "Asynchronous": True, "Timeout": _silence(desk), "Priority": 0,
            }  # fmt: skip
            job = client.post(f"/queries/{made['ID']}/retrieve", body)["ID"]
        finally:
            client.request("DELETE", f"/queries/{made['ID']}")
    except OrthancRefused as error:
        raise trouble_of(str(error)) from error
    _await_job(desk, job, keeper)


def _await_job(desk: Desk, job_id: str, keeper: Keeper) -> None:
    until = time.monotonic() + desk.settings.study_deadline_seconds
    while True:
        try:
            job = desk.client.job(job_id)
        except OrthancRefused as error:
            if error.status == 404:
                words = "Orthanc was restarted in the middle of the move"
                raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True) from error
            raise
        if job["State"] == "Success":
            return
        if job["State"] not in ("Pending", "Running", "Retry", "Paused"):
            said = job.get("ErrorDetails") or job.get("ErrorDescription") or job["State"]
            raise trouble_of(str(said), job.get("ErrorCode"))
        if time.monotonic() > until:
            _cancel(desk, job_id)
            raise Trouble(ErrorClass.TRANSIENT, f"not done in {desk.settings.study_deadline_seconds:g} s, cancelled")
        try:
            keeper.check()
            desk.check_open()
            desk.pause(_POLL_SECONDS)
        except Closed:
            _cancel(desk, job_id)
            raise


def _await_earlier_job(desk: Desk, study_uid: str, keeper: Keeper) -> None:
    """A worker that died left its job running in Orthanc: let it end before counting what is missing."""
    for job in desk.client.get("/jobs", expand=""):
        if job["Type"] == "DicomMoveScu" and job["State"] in ("Pending", "Running") and _concerns(job, study_uid):
            try:
                _await_job(desk, job["ID"], keeper)
            except Trouble as trouble:
                if trouble.kind is not ErrorClass.OBJECT:
                    raise


def _concerns(job: Mapping[str, Any], study_uid: str) -> bool:
    return any(query.get("0020,000d") == study_uid for query in job["Content"].get("Query", []))


def _cancel(desk: Desk, job_id: str) -> None:
    desk.client.request("POST", f"/jobs/{job_id}/cancel", json={})


def _silence(desk: Desk) -> int:
    """Seconds without a word from the source after which Orthanc gives up; our own deadline is the upper bound."""
    return max(1, int(min(desk.settings.study_deadline_seconds, 300)))


def _settled(desk: Desk, study_uid: str, expected: Mapping[str, str], keeper: Keeper) -> dict[str, list[str]]:
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
