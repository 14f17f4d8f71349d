"""What a correction would change, before it is asked for: every attribute, old and new, and whom it concerns.

The same code that carries it out makes the corrected copies here, and throws them away: what is shown is what will be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from operations.custody import planning, receivers
from operations.custody.planning import CannotBeDone, Prepared, Target
from zambezi import corrections
from zambezi.correctable import ATTRIBUTES, PATIENT_ID
from zambezi.database.engine import Sessions
from zambezi.database.tables import Correction, LegalHold, Order, Report, Study
from zambezi.orthanc_client import OrthancClient
from zambezi.rewriting import Identity, Stamp

#: So many instances are looked at for a page; the console looks at all.
A_PAGE = 200
#: Objects that name others by study and series UID (PS3.3): where these change, the names don't follow.
_REFERRING = frozenset({"KO", "PR", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "SEG", "SR"})


@dataclass(frozen=True)
class Change:
    """An attribute (ggggeeee) of so many instances: what it is, what it becomes; None: not there."""

    level: str
    tag: str
    name: str
    old: str | None
    new: str | None
    instances: int


@dataclass(frozen=True)
class StudyChange:
    """So many instances of a study, and where they will be."""

    study_uid: str
    patient_id: str
    new_study_uid: str
    new_patient_id: str
    series: int
    instances: int


@dataclass(frozen=True)
class Receiver:
    """A destination that was sent the old copies of so many of the instances."""

    name: str
    instances: int

    def __str__(self) -> str:
        return f"{self.name} ({self.instances})"


@dataclass(frozen=True)
class ReportTouched:
    """A report on one of the studies."""

    id: int
    study_uid: str
    version: int
    state: str


@dataclass(frozen=True)
class Preview:
    """A correction that isn't asked for yet. `is_possible`: as far as can be seen now; `warnings` say what isn't."""

    kind: str
    instances: int
    looked_at: int
    is_possible: bool
    changes: tuple[Change, ...] = ()
    studies: tuple[StudyChange, ...] = ()
    receivers: tuple[Receiver, ...] = ()
    reports: tuple[ReportTouched, ...] = ()
    order: str = ""  # accession number of the order they will belong to, where one was named
    warnings: tuple[str, ...] = ()

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Seen:
    """What was found at the archive."""

    targets: Sequence[Target] = ()
    looked_at: list[tuple[Identity, Identity]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    becomes: dict[str, str] = field(default_factory=dict)
    changes: Counter[tuple[str, str, str | None, str | None]] = field(default_factory=Counter)
    series: dict[tuple[str, str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sop_uids: set[str] = field(default_factory=set)


def preview(
    sessions: Sessions, orthanc: OrthancClient, hold_dir: Path, kind: str, request: Mapping[str, Any], *, now: datetime,
    undo_of: int | None = None, at_most: int | None = A_PAGE,
) -> Preview:  # fmt: skip
    """What this correction would do just now. CorrectionRefused where it can't even be asked for; OrthancError.

    Opens transactions of its own, none while it speaks with the archive: call it outside of one. At most so many
    instances are read (None: all), from every series some.
    """
    with sessions.begin() as session:
        resolved = corrections.resolve(session, kind, request, undo_of)
        wanted = planning.read(session, kind, resolved, undo_of)
    seen = _look(orthanc, hold_dir, wanted, Stamp(now, "ZAMBEZI preview", "CORRECT"), at_most)
    more = _other_studies(orthanc, seen)
    with sessions.begin() as session:
        return _told(session, kind, resolved, seen, more)


def _look(orthanc: OrthancClient, hold_dir: Path, wanted: planning.Request, stamp: Stamp, at_most: int | None) -> _Seen:
    seen = _Seen()
    try:
        seen.targets = planning.plan(orthanc, wanted)
    except CannotBeDone as why:
        seen.faults.append(str(why))
    for target in _spread(seen.targets, at_most):
        try:
            prepared = planning.prepare(orthanc, hold_dir, target, stamp)
        except CannotBeDone as why:
            seen.faults.append(str(why))
            continue
        _count(seen, prepared)
    seen.faults += planning.collisions(orthanc, seen.becomes)
    return seen


def _spread(targets: Sequence[Target], at_most: int | None) -> Iterable[Target]:
    if at_most is None or len(targets) <= at_most:
        return targets
    return targets[:: -(-len(targets) // at_most)]


def _count(seen: _Seen, one: Prepared) -> None:
    was, becomes = one.was, one.becomes
    seen.looked_at.append((was, becomes))
    if not one.is_change:
        return
    seen.becomes[one.target.orthanc_id] = becomes.orthanc_id
    seen.sop_uids.add(was.sop_uid)
    place = (was.study_uid, was.patient_id, becomes.study_uid, becomes.patient_id)
    seen.series[place][was.series_uid] += 1
    for changed in one.changed:
        tag = changed.tag.strip("()").replace(",", "").upper()
        seen.changes[tag, changed.keyword, changed.old, changed.new] += 1


def _other_studies(orthanc: OrthancClient, seen: _Seen) -> int:
    """How many other studies of a patient keep what is changed here of the patient, under the same ID."""
    told = {was.patient_id for was, becomes in seen.looked_at if was.patient_id == becomes.patient_id}
    of_patient = any(ATTRIBUTES[tag].level == "patient" for tag, *_ in seen.changes if tag in ATTRIBUTES)
    if not told or not of_patient or PATIENT_ID in {tag for tag, *_ in seen.changes}:
        return 0
    concerned = {was.study_uid for was, _ in seen.looked_at}
    found = [one for each in sorted(told) for one in orthanc.find("Study", {"PatientID": each}, expand=True)]
    return sum(
        one["PatientMainDicomTags"].get("PatientID") in told
        and one["MainDicomTags"]["StudyInstanceUID"] not in concerned
        for one in found
    )


def _told(session: Session, kind: str, request: Mapping[str, Any], seen: _Seen, more: int) -> Preview:
    uids = sorted({uid for place in seen.series for uid in (place[0], place[2])})
    order = session.get(Order, request["order"]) if request.get("order") is not None else None
    warnings = [*seen.faults, *_warnings(session, seen, order, uids)]
    if more:
        warnings.append(f"{more} other studies of the same patient ID keep the old values: correct them, too")
    if len(seen.looked_at) < len(seen.targets) and not seen.faults:
        warnings.append(f"{len(seen.looked_at)} of {len(seen.targets)} instances were looked at; the others are alike")
    if kind == "edit" and not {"study", "studies"} & set(request):
        above = {ATTRIBUTES[tag].level for tag, *_ in seen.changes if tag in ATTRIBUTES} & {"patient", "study"}
        if above:
            warnings.append(
                "attributes of patient or study change in a part of a study only: its other images keep them"
            )
    if seen.looked_at and not seen.becomes:
        warnings.append("nothing would change: every image has these values already")
    reports = session.scalars(select(Report).where(Report.study_uid.in_(uids)).order_by(Report.id)).all()
    held = receivers.holding_old_copies(session, {place[0] for place in seen.series}, seen.sop_uids)
    return Preview(
        kind=kind, instances=len(seen.targets), looked_at=len(seen.looked_at), is_possible=not seen.faults,
        changes=tuple(_changes(seen)), order=order.accession_number if order else "",
        studies=tuple(
            StudyChange(*place, series=len(series), instances=series.total())
            for place, series in sorted(seen.series.items())
        ),
        receivers=tuple(Receiver(name, len(sops)) for name, sops in held.items()),
        reports=tuple(ReportTouched(one.id, one.study_uid, one.version, one.state) for one in reports),
        warnings=tuple(warnings),
    )  # fmt: skip


def _changes(seen: _Seen) -> Iterable[Change]:
    order = {"patient": 0, "study": 1, "series": 2, "instance": 3}
    made = [
        Change(ATTRIBUTES[tag].level if tag in ATTRIBUTES else "instance", tag, name, old, new, count)
        for (tag, name, old, new), count in seen.changes.items()
    ]
    return sorted(made, key=lambda one: (order[one.level], one.tag, one.old or "", one.new or ""))


def _warnings(session: Session, seen: _Seen, order: Order | None, uids: Sequence[str]) -> Iterable[str]:
    studies = session.scalars(select(Study).where(Study.study_uid.in_(uids))).all()
    for study in studies:
        if study.completed_at is None or study.last_at > study.completed_at:
            yield f"study {study.study_uid} may still be receiving images: those that come later are not corrected"
        modalities = {one for one in study.modalities.split("\\") if one}
        if order is not None and order.modality and modalities and order.modality not in modalities:
            are = ", ".join(sorted(modalities))
            yield f"order {order.accession_number} is for {order.modality}, the images are {are}"
        moved = any(place[0] == study.study_uid != place[2] for place in seen.series)
        if moved and modalities & _REFERRING:
            yield f"study {study.study_uid} has objects that refer to others by their study; these references stay"
    patients = {place[1] for place in seen.series}
    standing = select(LegalHold).where(
        LegalHold.lifted_at.is_(None), or_(LegalHold.study_uid.in_(uids), LegalHold.patient_id.in_(patients))
    )
    for legal_hold in session.scalars(standing):
        yield f"legal hold {legal_hold.id} stands; a correction keeps every old copy, so it may be done"
    open_ones = select(Correction.id, Correction.request).where(Correction.state.in_(corrections.OPEN))
    for number, asked in session.execute(open_ones.order_by(Correction.id)).all():
        named = [one.get("study_uid") for one in corrections.listed(asked.get("studies") or asked.get("study") or [])]
        if set(named) & set(uids):
            yield f"correction {number} of the same study is under way: this one comes after it"
