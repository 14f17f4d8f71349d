"""Slices of an archive: questions so narrow that a source which cuts its answers off can answer them whole.

Pure: a slice knows what it matches (PS3.4 C.2.2.2) and how it is asked in parts. By date it is halved until one day is
left; a day goes by time, by modality and by beginnings of patient identifiers, since what has no time is found by
none of its hours.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

Axis = Literal["days", "time", "modality", "patient", "accession"]

#: A limit of a source shows as a round count, or as one that comes again and again; small counts do so by themselves.
LEAST_LIMIT = 50
_FIRST_YEAR = 1970
_DAY_S = 24 * 3600
_LEAST_S = 60
#: Sources compare times as text, with and without fractions, some with a precision of their own: parts overlap.
_OVERLAP_S = 1
#: Beginnings longer than this tell no two patients apart that a source could not.
_LONGEST = 12
_WILDCARDS = "*?\\"
PLAIN = string.digits + string.ascii_uppercase
_FURTHER = PLAIN + string.ascii_lowercase + "-_./ "
#: PS3.3 C.7.3.1.1.1, those that a legacy archive holds; one that isn't here is found by patient and by time.
_MODALITIES = (
    "CR", "CT", "DX", "MG", "MR", "US", "XA", "RF", "NM", "PT", "OT", "SC", "SR", "PR", "KO", "ES", "ECG", "IO", "PX",
    "RTIMAGE", "RTDOSE", "RTSTRUCT", "RTPLAN", "XC", "GM", "SM", "OP", "OPT", "DOC", "IVUS", "BMD", "RG",
)  # fmt: skip


@dataclass(frozen=True)
class Days:
    """Study dates, both ends included."""

    first: date
    last: date

    @property
    def matching(self) -> str:
        return "-".join(day.isoformat().replace("-", "") for day in (self.first, self.last))

    def halves(self) -> tuple[Days, Days] | None:
        """Two ranges that are this one together; None for a single day."""
        if self.first == self.last:
            return None
        middle = self.first + (self.last - self.first) // 2
        return Days(self.first, middle), Days(middle + timedelta(days=1), self.last)


def all_days(today: date) -> list[Days]:
    """All dates there are: before the first year of digital imaging, the decades since, this one's years, the future.

    Of a small archive few questions are asked; of a large one those that it cuts off are halved.
    """
    decade = today.year // 10 * 10
    firsts = [*range(_FIRST_YEAR, decade, 10), *range(decade, today.year + 1)]
    spans = zip(firsts, [*firsts[1:], today.year + 1], strict=True)
    return [
        Days(date(1, 1, 1), date(_FIRST_YEAR - 1, 12, 31)),
        *(Days(date(first, 1, 1), date(end - 1, 12, 31)) for first, end in spans),
        Days(date(today.year + 1, 1, 1), date(9999, 12, 31)),
    ]


@dataclass(frozen=True)
class Slice:
    """One question. Without anything it is the universal query, which names what is undated, too; slices by date
    are its parts.
    """

    days: Days | None = None
    seconds: tuple[int, int] | None = None  # of the day, half open
    modality: str = ""
    patient: str = ""  # the beginning of the identifier; the whole of it where `is_whole_patient`
    is_whole_patient: bool = False
    accession: str = ""

    @property
    def matching(self) -> dict[str, str]:
        """Attributes to match, by DICOM keyword."""
        found = {}
        if self.days:
            found["StudyDate"] = self.days.matching
        if self.seconds:
            first, end = max(0, self.seconds[0] - _OVERLAP_S), min(_DAY_S, self.seconds[1] + _OVERLAP_S)
            found["StudyTime"] = f"{_clock(first)}-{_clock(end - 1)}.999999"
        if self.modality:
            found["ModalitiesInStudy"] = self.modality
        if self.patient:
            found["PatientID"] = self.patient + ("" if self.is_whole_patient else "*")
        if self.accession:
            found["AccessionNumber"] = f"{self.accession}*"
        return found

    def axis(self, heeds_time: bool) -> Axis | None:
        """Along which axis it is asked in parts; None where it can't be narrower. `heeds_time`: as the source does."""
        if self.accession or (self.is_whole_patient and self.days and self.days.first == self.days.last):
            return "accession" if len(self.accession) < _LONGEST else None
        if self.is_whole_patient or (self.days and self.days.first != self.days.last):
            return "days"
        if self.patient:
            return "patient" if len(self.patient) < _LONGEST else None
        if self.modality or (self.seconds and self.seconds[1] - self.seconds[0] <= _LEAST_S):
            return "patient"
        if self.days:
            return "time" if heeds_time else "modality"
        return None

    def along(self, axis: Axis, seen: Iterable[str] = ()) -> list[Slice]:
        """Its parts; `seen` are the patient identifiers or accession numbers that are known so far."""
        match axis:
            case "days":
                halves = (self.days or Days(date.min, date.max)).halves()
                return [replace(self, days=half) for half in halves or ()]
            case "time":
                first, end = self.seconds or (0, _DAY_S)
                middle = (first + end) // 2
                return [replace(self, seconds=(first, middle)), replace(self, seconds=(middle, end))]
            case "modality":
                return [replace(self, modality=modality) for modality in _MODALITIES]
            case "patient":
                longer = [replace(self, patient=one) for one in beginnings(self.patient, seen)]
                return [*([replace(self, is_whole_patient=True)] if self.patient else []), *longer]
            case "accession":
                return [replace(self, accession=one) for one in beginnings(self.accession, seen)]

    def __str__(self) -> str:
        """As coverage records name it; identifiers of patients only by how long their beginning is."""
        said = [value for key, value in self.matching.items() if key not in ("PatientID", "AccessionNumber")]
        if self.is_whole_patient:
            said.append("one patient")
        elif self.patient:
            said.append(f"patients by {len(self.patient)} characters")
        if self.accession:
            said.append(f"accession numbers by {len(self.accession)} characters")
        return " ".join(said) or "everything"


def beginnings(prefix: str, seen: Iterable[str]) -> list[str]:
    """What identifiers may begin with that begin with `prefix`: one character more, the usual ones and those seen."""
    usual = set(_FURTHER if prefix else PLAIN)
    longer = {one[len(prefix)] for one in seen if len(one) > len(prefix) and one.startswith(prefix)}
    return [prefix + character for character in sorted(usual | longer) if character not in _WILDCARDS]


def begins_plainly(identifier: str) -> bool:
    """Whether asking by beginnings can find it."""
    return bool(identifier) and identifier[0] not in _WILDCARDS


def looks_cut_off(count: int, others: Collection[int], limit: int | None = None) -> bool:
    """Whether a count of answers looks like the source's own limit (`limit`: as far as it is known already)."""
    if limit is not None and count >= limit:
        return True
    return count >= LEAST_LIMIT and (count % 50 == 0 or count in others)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}"
