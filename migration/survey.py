"""Asking a source for all its studies, so that what it leaves out would show.

A universal query and slices by date must name the same studies; what has no date is what is left over; the slices by
patient identifier, a second axis, must name them again. A slice that the source cuts off, openly or silently, is asked
in parts; a limit that it doesn't tell of shows where parts name more than their whole. In the end it is asked until it
names nothing new. What could not be shown is a doubt, in words, on the certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol, runtime_checkable

from migration import oddities
from migration.slices import Slice, all_days, beginnings, begins_plainly, looks_cut_off
from migration.source import CutOff

#: A source that names new studies each time is a living one: what comes later is for the passes until cut-over.
_MOST_REPEATS = 3
#: Two minutes of the night: a source that is cut off in both doesn't heed the time that it is asked for.
_NIGHT = ((3 * 3600 + 17 * 60, 3 * 3600 + 18 * 60), (4 * 3600 + 44 * 60, 4 * 3600 + 45 * 60))
_CUT_OFF = "cut off"
_CUT_OFF_WHOLE = "the source cuts off the universal query; undated studies are found by patient identifier only"


class Matching(Protocol):
    """What answers questions by matching (C-FIND, QIDO-RS)."""

    @property
    def queries(self) -> int:
        """So many questions were asked."""

    def studies(self, **matching: str) -> list[dict[str, str]]:
        """The studies that match, attributes by DICOM keyword; CutOff where the source ended its answers early."""


@runtime_checkable
class Asked(Matching, Protocol):
    """A source whose inventory is taken question by question, and goes on where it was interrupted."""

    def reservations(self) -> list[str]:
        """What its answers leave open, in words, once it was asked: doubts of the inventory."""


@dataclass
class Found:
    """What the source named so far: by Study Instance UID, its patients, its date, and all that it first said of it.

    `facts` by DICOM keyword, such as AccessionNumber and PatientName; only what isn't empty.
    """

    patients: dict[str, set[str]] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, answers: Iterable[Mapping[str, str]]) -> set[str]:
        """Take answers in; the Study UIDs they named."""
        named = set()
        for answer in answers:
            study_uid = str(answer.get("StudyInstanceUID", "")).strip(" \0")
            if study_uid:
                named.add(study_uid)
                self.patients.setdefault(study_uid, set()).add(str(answer.get("PatientID", "")).strip(" \0"))
                self.dates.setdefault(study_uid, str(answer.get("StudyDate", "")).strip(" \0"))
                said = {keyword: str(value).strip(" \0")[:200] for keyword, value in answer.items()}
                self.facts.setdefault(study_uid, {keyword: value for keyword, value in said.items() if value})
        return named

    @property
    def uids(self) -> set[str]:
        return set(self.patients)


@dataclass
class Coverage:
    """How the inventory was made, and what it could not show."""

    queries: int = 0
    universal: int = 0
    dated: int = 0
    undated: int = 0
    by_patient: int = 0
    studies: int = 0
    repeats: int = 0  # of the questions at the end, until nothing new was named
    limit: int | None = None  # answers at which the source silently stops, as it was found out
    slices: list[list[Any]] = field(default_factory=list)  # [what was asked for, found, remark]
    duplicates: dict[str, list[str]] = field(default_factory=dict)  # Study UID: the patients it is under
    oddities: dict[str, dict[str, Any]] = field(default_factory=dict)  # migration.oddities
    claims: dict[str, int] = field(default_factory=dict)  # what the source says of numbers and sizes (inventory)
    unsettled: list[str] = field(default_factory=list)  # studies whose two counts differed
    gone: list[str] = field(default_factory=list)  # named by an earlier inventory, not by this one
    doubts: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


def find_studies(source: Matching, today: date) -> tuple[Found, Coverage]:
    """Ask along both axes; what was found, and how far it is shown to be all."""
    asking = _Asking(source)
    found, coverage = asking.found, asking.coverage
    universal = asking.everything()
    by_date = [Slice(days=days) for days in all_days(today)]
    dated = asking.each(by_date)
    if universal and dated - universal:
        asking.limited_to(len(universal))
    asking.divide_the_fullest()
    dated |= asking.by_date
    seen = {patient for patients in found.patients.values() for patient in patients}
    by_patient = asking.each([Slice(patient=beginning) for beginning in beginnings("", seen)])
    if universal and by_patient - universal and coverage.limit is None:
        asking.limited_to(len(universal))
        by_patient |= asking.by_patient
        dated |= asking.by_date
    again = _until_nothing_new(asking, bool(universal) and coverage.limit is None)
    coverage.universal, coverage.dated, coverage.by_patient = len(again or universal), len(dated), len(by_patient)
    coverage.undated = sum(1 for uid in found.uids if not found.dates[uid])
    coverage.studies, coverage.queries = len(found.uids), source.queries
    coverage.duplicates = {uid: sorted(ids) for uid, ids in found.patients.items() if len(ids) > 1}
    coverage.oddities = oddities.of(found.facts, found.patients, today)
    coverage.doubts += axes_disagree(found, again or universal, dated | asking.by_date, by_patient)
    return found, coverage


def axes_disagree(found: Found, universal: set[str], dated: set[str], by_patient: set[str]) -> list[str]:
    """What one axis named and another should have named but did not, in words."""
    doubts = []
    left_out = dated - universal
    if left_out:
        doubts.append(f"the universal query leaves out {len(left_out)} studies that slices by date name")
    reachable = {uid for uid in found.uids if any(begins_plainly(patient) for patient in found.patients[uid])}
    hidden = reachable - by_patient
    if hidden:
        doubts.append(f"{len(hidden)} studies are not named when asked for by patient identifier")
    only_here = by_patient - universal - dated
    if only_here:
        doubts.append(f"{len(only_here)} studies were named only when asked for by patient identifier")
    strange = {uid for uid in found.uids if oddities.is_date(found.dates[uid])} - dated
    if strange:
        doubts.append(f"{len(strange)} studies have a date that no slice by date finds")
    return doubts


def _until_nothing_new(asking: _Asking, universal: bool) -> set[str]:
    """Ask once more until nothing new is named: everything at once where that is answered, else every slice by date."""
    named: set[str] = set()
    for _ in range(_MOST_REPEATS):
        before = len(asking.found.uids)
        asking.coverage.repeats += 1
        if universal:
            named = asking.everything()
        else:
            asking.dates_again()
        if len(asking.found.uids) == before:
            return named
    asking.coverage.doubts.append(f"the source named new studies each of the {_MOST_REPEATS} times it was asked again")
    return named


@dataclass
class _Asking:
    """Questions and answers of one inventory."""

    source: Matching
    found: Found = field(default_factory=Found)
    coverage: Coverage = field(default_factory=Coverage)
    #: What was answered whole, as far as it seems: the narrowest questions, with the number of answers.
    leaves: dict[Slice, int] = field(default_factory=dict)
    by_date: set[str] = field(default_factory=set)
    by_patient: set[str] = field(default_factory=set)
    _counts: dict[int, Slice] = field(default_factory=dict)  # the first slice that had so many
    _most: int = 0  # so many it has answered at once: fewer are no limit
    _proven: int = 0  # so many, and they were all: what was asked in parts named no more
    _heeds_time: bool | None = None

    def everything(self) -> set[str]:
        """The universal query; nothing where the source cuts it off."""
        try:
            named = self.found.add(self.source.studies())
            self._most = max(self._most, len(named))
            return named
        except CutOff:
            self._doubt(_CUT_OFF_WHOLE)
            return set()

    def each(self, slices: Iterable[Slice]) -> set[str]:
        """All that is in these slices."""
        named: set[str] = set()
        for slice_ in slices:
            named |= self._whole(slice_)
        return named

    def dates_again(self) -> None:
        """Every slice by date, as narrow as it had to be."""
        for slice_ in [one for one in self.leaves if one.days]:
            _, remark = self._once(slice_)
            if remark:
                self._in_parts(slice_)

    def limited_to(self, limit: int) -> None:
        """The source silently gives no more answers than that: what seemed whole at so many is asked in parts."""
        self.coverage.limit = min(limit, self.coverage.limit or limit)
        self._doubt(f"the source gives no more than {self.coverage.limit} answers, and doesn't say so")
        for slice_ in [one for one, count in self.leaves.items() if count >= limit]:
            self._in_parts(slice_)

    def divide_the_fullest(self) -> None:
        """Ask for the fullest slice by date in parts until they divide: a limit shows that the source doesn't tell."""
        while dated := {slice_: count for slice_, count in self.leaves.items() if slice_.days and count}:
            fullest = max(dated, key=lambda slice_: (dated[slice_], str(slice_)))
            limit = self._untold_limit(fullest)
            if limit is None:
                return
            self.limited_to(limit)

    def _untold_limit(self, slice_: Slice) -> int | None:
        named, _ = self._once(slice_)
        while (axis := slice_.axis(heeds_time=True)) in ("days", "time"):
            parts = {part: self._once(part) for part in slice_.along(axis)}
            together = set[str]().union(*(found for found, _ in parts.values()))
            if len(together) > len(named) or any(remark == _CUT_OFF for _, remark in parts.values()):
                return len(named)
            if axis == "days" and named - together:
                self._doubt(f"{len(named - together)} studies of {slice_} are not named by its halves")
            slice_ = max(parts, key=lambda part: len(parts[part][0]))
            if len(parts[slice_][0]) < len(named):
                self._proven = max(self._proven, len(named))
                return None
        return None

    def _whole(self, slice_: Slice) -> set[str]:
        named, remark = self._once(slice_)
        if named or remark:
            self.coverage.slices.append([str(slice_), len(named), remark])
        if slice_.days and not slice_.patient:
            self._counts.setdefault(len(named), slice_)
        if not remark:
            self.leaves[slice_] = len(named)
            return named
        return named | self._in_parts(slice_)

    def _in_parts(self, slice_: Slice) -> set[str]:
        self.leaves.pop(slice_, None)
        is_day = slice_.days is not None and slice_.days.first == slice_.days.last
        axis = slice_.axis(self._asks_by_time(slice_) if is_day else True)
        if axis is None:
            self._doubt(f"the source cuts off {slice_}")
            return set()
        seen: set[str] = set()
        if axis == "patient":
            seen = {patient for patients in self.found.patients.values() for patient in patients}
        return self.each(slice_.along(axis, seen))

    def _asks_by_time(self, day: Slice) -> bool:
        if self._heeds_time is None:
            nights = [self._once(Slice(days=day.days, seconds=minute)) for minute in _NIGHT]
            self._heeds_time = not all(remark for _, remark in nights)
        return self._heeds_time

    def _once(self, slice_: Slice) -> tuple[set[str], str]:
        """What is named, and why that may not be all of it."""
        try:
            named = self.found.add(self.source.studies(**slice_.matching))
        except CutOff:
            return set(), _CUT_OFF
        if slice_.days:
            self.by_date |= named
        if slice_.patient:
            self.by_patient |= named
        if self.coverage.limit is None and (len(named) < self._most or len(named) <= self._proven):
            return named, ""
        others = [self._most, *(count for count, first in self._counts.items() if first != slice_)]
        return named, "looks like a limit" if looks_cut_off(len(named), others, self.coverage.limit) else ""

    def _doubt(self, words: str) -> None:
        if words not in self.coverage.doubts:
            self.coverage.doubts.append(words)
