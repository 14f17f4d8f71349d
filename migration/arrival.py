"""Level 2, arrival: the file on the disk is what the archive was given to store.

The archive's plugin takes the SHA-256 of each instance as it comes, before Orthanc has it (plugins.arrivals), and
reads the disk when it is asked (plugins.verifying): Orthanc would answer from its memory. No bytes come over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migration.desk import Desk
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancRefused

#: SOP Instance UIDs in one question (plugins.verifying takes no more).
_PIECE = 100


@dataclass(frozen=True)
class Arrived:
    """One instance: how far its arrival proves it (1: not at all), what is wrong with it, and what it is."""

    level: int
    fault: str
    columns: Mapping[str, Any]


def judge(copies: Sequence[Mapping[str, Any]], allowed: frozenset[str]) -> Arrived:
    """What index, disk and the look at arrivals say of one instance; of several copies the worst.

    `allowed`: the tags that its study's declared changes may change (migration.declared). What was coerced by a rule
    of the archive, or by nobody knows what, is left to the source.
    """
    judged = [_one(copy, allowed) for copy in copies]
    return min(judged, key=lambda one: (not one.fault, one.level), default=Arrived(1, "", {}))


def _one(copy: Mapping[str, Any], allowed: frozenset[str]) -> Arrived:
    columns: dict[str, Any] = {
        "size": copy["size"], "stored_syntax": copy["transfer_syntax"] or None, "sop_class": copy["sop_class"] or None,
        "orthanc_id": copy["orthanc_id"], "arrived_sha256": copy["arrived_sha256"],
    }  # fmt: skip
    if copy["md5"] is not None:  # by SHA-256 the file is what arrived: Orthanc isn't asked for its MD5 besides
        columns["stored_md5"] = copy["md5"]
    if copy["file_size"] < 0:
        return Arrived(1, "its file is not on the disk", columns)
    if copy["arrived_sha256"] is None:
        is_recorded = copy["file_md5"] == copy["md5"]
        return Arrived(1, "" if is_recorded else "the file on the disk is not what Orthanc recorded", columns)
    if copy["file_sha256"] != copy["arrived_sha256"]:
        return Arrived(1, "the file on the disk is not what arrived", columns)
    if copy["came_sha256"] and (not allowed or copy["changed"] is None):
        return Arrived(1, "", columns)
    changed = copy["changed"] or ()
    if not allowed.issuperset(changed):
        others = ", ".join(sorted(set(changed) - allowed))
        return Arrived(1, f"it was changed on its way in more than the plan declares: {others}", columns)
    if changed:
        columns["coerced"] = " ".join(changed)
    return Arrived(2, "", columns)


def look(
    desk: Desk, held: Mapping[str, list[str]], allowed: frozenset[str], keeper: Keeper
) -> Iterator[dict[str, Arrived]]:
    """Ask of these instances (their Orthanc ids by SOP Instance UID), some at a time.

    An archive without our plugin knows nothing: level 1, nothing wrong.
    """
    left = sorted(held)
    while left:
        keeper.check()
        desk.check_open()
        try:
            told = desk.client.arrivals({uid: held[uid] for uid in left[:_PIECE]})
        except OrthancRefused as refused:
            if refused.status != 404:
                raise
            return
        found = {one["sop_uid"]: judge(one["copies"], allowed) for one in told}
        if not found:
            return
        yield found
        left = left[len(told) :]
