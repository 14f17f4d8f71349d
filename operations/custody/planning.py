"""Which instances a correction is about and what each of them becomes, as far as the archive and the tables tell.

Used twice: for what a person is shown beforehand (previewing.py), and by the worker (correcting.py), each time from
what the archive holds at that moment.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from zambezi import corrections, hold, orthanc_ids, rewriting
from zambezi.correctable import ATTRIBUTES, ISSUER, PATIENT_ID, SERIES_UID, STUDY_UID
from zambezi.database.tables import Held, Patient
from zambezi.elements import NotFaithful
from zambezi.hold import NotHeld
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.rewriting import Changed, Identity, Stamp


class CannotBeDone(ValueError):
    """The correction can't be carried out as it was asked for; the text says why, for a person. Nothing has changed."""


@dataclass(frozen=True)
class Target:
    """One instance of the archive that is to change: its attributes, or into the bytes with this digest in the hold."""

    orthanc_id: str
    changes: Mapping[str, str | None] = field(default_factory=dict)
    takes: str = ""  # SHA-256 of what takes its place as it is
    expected: str = ""  # SHA-256 of what must be there now, where that is known


@dataclass(frozen=True)
class Prepared:
    """What a target is and what it becomes, in bytes."""

    target: Target
    old: bytes
    new: bytes
    was: Identity
    becomes: Identity
    changed: tuple[Changed, ...]

    @property
    def is_change(self) -> bool:
        return self.old != self.new


@dataclass(frozen=True)
class Request:
    """What a correction asks for, with what the tables say of it; read in one transaction."""

    kind: str
    asked: Mapping[str, Any]
    merged: Patient | None = None
    held: Held | None = None
    undone: tuple[Target, ...] = ()


def read(session: Session, kind: str, request: Mapping[str, Any], undo_of: int | None) -> Request:
    """Put together what is needed to plan without the database. `request` is resolved (zambezi.corrections)."""
    if kind == "merge":
        return Request(kind, request, merged=session.get_one(Patient, request["patients"]["from"]))
    if kind == "replace":
        return Request(kind, request, held=session.get_one(Held, request["replace"]))
    if kind == "undo" and undo_of is not None:
        items = corrections.items_of(session, undo_of)
        back = [
            Target(one.new_orthanc_id, takes=one.old_sha256, expected=one.new_sha256)
            for one in items
            if one.new_orthanc_id and one.old_sha256 and one.new_sha256
        ]
        return Request(kind, request, undone=tuple(back))
    return Request(kind, request)


def plan(orthanc: OrthancClient, wanted: Request) -> list[Target]:
    """Every instance that is concerned, in a fixed order; CannotBeDone, OrthancError."""
    if wanted.kind == "undo":
        return list(wanted.undone)
    if wanted.held is not None:
        return [_replaced(orthanc, wanted.held, wanted.asked.get("instances") or [])]
    changes: Mapping[str, str | None] = wanted.asked["set"]
    if wanted.merged is not None:
        return [Target(one, changes) for one in _of_patient(orthanc, wanted.merged, wanted.asked["patients"])]
    if wanted.kind == "move":
        return _moved(orthanc, wanted.asked, changes)
    return [Target(one, changes) for one in _named(orthanc, wanted.asked)]


def prepare(orthanc: OrthancClient, hold_dir: Path, target: Target, stamp: Stamp) -> Prepared:
    """Read the archive's copy and make the one that takes its place; CannotBeDone, OrthancError."""
    old = _there(orthanc, f"/instances/{target.orthanc_id}/file", target.orthanc_id)
    if target.expected and hashlib.sha256(old).hexdigest() != target.expected:
        raise CannotBeDone(f"instance {target.orthanc_id} is not what the correction left: it was changed since")
    try:
        was = rewriting.identity(old)
        if was.orthanc_id != target.orthanc_id:
            raise NotFaithful("the archive keeps it under another identity than its file tells")
        if target.takes:
            new = hold.get(hold_dir, target.takes)
            changed = _differing(old, new)
        else:
            rewritten = rewriting.rewrite(old, target.changes, stamp)
            new, changed = rewritten.content, rewritten.changed
        becomes = rewriting.identity(new)
    except (NotFaithful, NotHeld) as why:
        raise CannotBeDone(f"instance {target.orthanc_id} can't be corrected: {why}") from why
    if becomes.sop_uid != was.sop_uid:
        raise CannotBeDone(f"instance {target.orthanc_id}: what should take its place has another SOP Instance UID")
    return Prepared(target, old, new, was, becomes, changed)


def collisions(orthanc: OrthancClient, becomes: Mapping[str, str]) -> list[str]:
    """What stands in the way, in words: two that become one, or a place that is taken. `becomes`: old id -> new id."""
    found: list[str] = []
    places: dict[str, list[str]] = defaultdict(list)
    for old, new in becomes.items():
        places[new].append(old)
    found += [
        f"{' and '.join(olds)} would become the same instance {new}" for new, olds in places.items() if len(olds) > 1
    ]
    for old, new in becomes.items():
        if old != new and (new in becomes or _is_there(orthanc, f"/instances/{new}")):
            found.append(f"{old} would become {new}, which is in the archive already: delete one of them first")
    return found


def _differing(old: bytes, new: bytes) -> tuple[Changed, ...]:
    """The attributes of the table that differ between two files."""
    one, other = rewriting.values(old, ATTRIBUTES), rewriting.values(new, ATTRIBUTES)
    return tuple(
        Changed(f"({tag[:4].lower()},{tag[4:].lower()})", ATTRIBUTES[tag].keyword, one.get(tag, ""), other.get(tag, ""))
        for tag in ATTRIBUTES
        if one.get(tag) != other.get(tag)
    )


def _named(orthanc: OrthancClient, asked: Mapping[str, Any]) -> list[str]:
    if "instances" in asked:
        return list(dict.fromkeys(asked["instances"]))
    if "series" in asked:
        return [one for each in corrections.listed(asked["series"]) for one in _of_series(orthanc, each["orthanc_id"])]
    studies = corrections.listed(asked.get("studies") or asked["study"])
    return [one for study in studies for one in _of_study(orthanc, study["orthanc_id"])]


def _of_series(orthanc: OrthancClient, orthanc_id: str) -> list[str]:
    return sorted(_resource(orthanc, "series", orthanc_id)["Instances"])


def _of_study(orthanc: OrthancClient, orthanc_id: str) -> list[str]:
    series = _resource(orthanc, "studies", orthanc_id)["Series"]
    return [one for each in sorted(series) for one in _of_series(orthanc, each)]


def _of_patient(orthanc: OrthancClient, patient: Patient, patients: Mapping[str, Any]) -> list[str]:
    """All instances under the patient's ID, or those of the studies that were named as the patient's."""
    if "studies" in patients:
        found = [study["orthanc_id"] for study in patients["studies"]]
        there = [one for one in found if _is_there(orthanc, f"/studies/{one}")]
        return [one for study in there for one in _of_study(orthanc, study)]
    path = f"/patients/{orthanc_ids.patient(patient.patient_id)}"
    if not _is_there(orthanc, path):
        return []
    studies: Sequence[str] = orthanc.get(path)["Studies"]
    return [
        one
        for study in sorted(studies)
        if _issuer(orthanc, study) in ("", patient.issuer)  # another issuer's patient with the same number
        for one in _of_study(orthanc, study)
    ]


def _issuer(orthanc: OrthancClient, study: str) -> str:
    instance = _of_study(orthanc, study)[0]
    return rewriting.values(orthanc.file(instance), [ISSUER]).get(ISSUER, "")


def _replaced(orthanc: OrthancClient, held: Held, named: Sequence[str]) -> Target:
    if named:
        return Target(named[0], takes=held.sha256)
    if held.orthanc_id and _is_there(orthanc, f"/instances/{held.orthanc_id}"):
        return Target(held.orthanc_id, takes=held.sha256)
    found = [str(one) for one in orthanc.find("Instance", {"SOPInstanceUID": held.sop_uid or ""})]
    if len(found) != 1:
        raise CannotBeDone(
            f"the archive holds {len(found)} instances with the UID {held.sop_uid}: "
            + ("name the one to replace" if found else "release what is held instead")
        )
    return Target(found[0], takes=held.sha256)


def _moved(orthanc: OrthancClient, asked: Mapping[str, Any], changes: Mapping[str, str | None]) -> list[Target]:
    """Images that go to another study take what that study's images say of patient and study."""
    ids = _named(orthanc, asked)
    study_uid = changes[STUDY_UID] or ""
    into = _destination(orthanc, study_uid, asked, changes)
    common = dict(changes)
    if into is not None:
        series = _series_of(orthanc, into, changes.get(SERIES_UID))
        common = {**_carried(orthanc, into, series), **changes}
    by_series: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        by_series[_resource(orthanc, "instances", one)["ParentSeries"]].append(one)
    targets: list[Target] = []
    for series_id, members in sorted(by_series.items()):
        series = _resource(orthanc, "series", series_id)
        own = dict(common)
        if SERIES_UID not in changes and set(series["Instances"]) - set(members):
            # A series belongs to one study (PS3.3 A.1.2.3): a part that leaves becomes a series of its own.
            own[SERIES_UID] = part_uid(series["MainDicomTags"]["SeriesInstanceUID"], study_uid)
        if SERIES_UID in changes and into is not None:
            _check_modality(orthanc, series, into, changes[SERIES_UID])
        targets += [Target(one, own) for one in sorted(members)]
    return targets


def part_uid(series_uid: str, study_uid: str) -> str:
    """The UID (PS3.5 B.2) of the series that images of a series make in another study; always the same."""
    return f"2.25.{int.from_bytes(hashlib.sha256(f'{series_uid}/{study_uid}'.encode()).digest()[:16])}"


def _destination(
    orthanc: OrthancClient, study_uid: str, asked: Mapping[str, Any], changes: Mapping[str, str | None]
) -> Mapping[str, Any] | None:
    """The study that the images go to, as Orthanc has it; None if it is a new one."""
    if asked.get("into"):
        return _resource(orthanc, "studies", asked["into"]["orthanc_id"])
    found: list[Mapping[str, Any]] = orthanc.find("Study", {"StudyInstanceUID": study_uid}, expand=True)
    if changes.get(PATIENT_ID) is not None:
        found = [one for one in found if one["PatientMainDicomTags"].get("PatientID") == changes[PATIENT_ID]]
    if len(found) > 1:
        raise CannotBeDone(f"{len(found)} patients have a study {study_uid}: say which one, by its id or by PatientID")
    return found[0] if found else None


def _series_of(orthanc: OrthancClient, study: Mapping[str, Any], series_uid: str | None) -> Mapping[str, Any] | None:
    if series_uid is None:
        return None
    every = (_resource(orthanc, "series", one) for one in study["Series"])
    return next((one for one in every if one["MainDicomTags"]["SeriesInstanceUID"] == series_uid), None)


def _carried(
    orthanc: OrthancClient, study: Mapping[str, Any], series: Mapping[str, Any] | None
) -> dict[str, str | None]:
    """Patient, study and, where images go into a series, series attributes of what is there; None where it has none."""
    first = (series or _resource(orthanc, "series", sorted(study["Series"])[0]))["Instances"]
    levels = ("patient", "study") + (("series",) if series else ())
    tags = [tag for tag, one in ATTRIBUTES.items() if one.level in levels and tag != "00101010"]  # not the age
    found = rewriting.values(orthanc.file(sorted(first)[0]), tags)
    return {tag: found.get(tag) for tag in tags}


def _check_modality(
    orthanc: OrthancClient, series: Mapping[str, Any], study: Mapping[str, Any], series_uid: str | None
) -> None:
    there = _series_of(orthanc, study, series_uid)
    one, other = series["MainDicomTags"].get("Modality"), (there or series)["MainDicomTags"].get("Modality")
    if one != other:
        raise CannotBeDone(f"a series has one modality (PS3.3 C.7.3.1): these are {one}, that series is {other}")


def _resource(orthanc: OrthancClient, level: str, orthanc_id: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = orthanc.get(f"/{level}/{orthanc_id}")
    except OrthancRefused as refused:
        if refused.status == 404:
            raise CannotBeDone(f"{level} {orthanc_id} is not in the archive (any more)") from refused
        raise
    return found


def _there(orthanc: OrthancClient, path: str, orthanc_id: str) -> bytes:
    try:
        return orthanc.request("GET", path).content
    except OrthancRefused as refused:
        if refused.status == 404:
            raise CannotBeDone(f"instance {orthanc_id} is not in the archive (any more)") from refused
        raise


def _is_there(orthanc: OrthancClient, path: str) -> bool:
    try:
        orthanc.request("GET", path)
    except OrthancRefused as refused:
        if refused.status == 404:
            return False
        raise
    return True
