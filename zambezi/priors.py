"""Which earlier studies of a patient are relevant to a new one. Pure.

Who somebody is, is said by patient ID, issuer and date of birth together: an ID alone may be another hospital's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Protocol, TypeVar

from zambezi.config.settings import Priors

_YEAR = 365.25
#: What shows no anatomy: having it in common makes no two studies alike.
_NO_IMAGES = frozenset({"", "SR", "PR", "KO", "DOC"})


class Exam(Protocol):
    """A study as one may be earlier than another, and alike; dates as DICOM writes them (DA), modalities as CS."""

    @property
    def study_uid(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def birth_date(self) -> str: ...
    @property
    def date(self) -> str: ...
    @property
    def parts(self) -> frozenset[str]: ...
    @property
    def modalities(self) -> frozenset[str]: ...


AnyExam = TypeVar("AnyExam", bound=Exam)


def choose(study: Exam, others: Sequence[AnyExam], how: Priors) -> list[AnyExam]:
    """The patient's earlier studies that are relevant, the latest first."""
    days = period(study.date, how)
    if days is None:
        return []
    in_time = [
        (then, one)
        for one in _of_patient(study, others)
        if _is_alike(study, one, how) and (then := _day(one.date)) is not None and days[0] <= then <= days[1]
    ]
    latest = sorted(in_time, key=lambda pair: (pair[0], pair[1].study_uid), reverse=True)
    return [one for _, one in latest[: how.count]]


def period(study_date: str, how: Priors) -> tuple[date, date] | None:
    """From when to when an earlier study may be; None where the new one has no date."""
    day = _day(study_date)
    return (day - timedelta(days=how.years * _YEAR), day) if day else None


def _of_patient(study: Exam, others: Sequence[AnyExam]) -> list[AnyExam]:
    """The studies that are surely of the same patient: where one ID has two dates of birth, the date decides."""
    same = [
        one
        for one in others
        if study.patient_id
        and (one.patient_id, one.issuer) == (study.patient_id, study.issuer)
        and one.study_uid != study.study_uid
    ]
    if len({study.birth_date, *(one.birth_date for one in same)} - {""}) <= 1:
        return same
    return [one for one in same if one.birth_date and one.birth_date == study.birth_date]


def _is_alike(study: Exam, other: Exam, how: Priors) -> bool:
    if "modality" in how.same and not (study.modalities - _NO_IMAGES) & other.modalities:
        return False
    unlike = study.parts and other.parts and not study.parts & other.parts
    return not ("body part" in how.same and unlike)


def _day(written: str) -> date | None:
    try:
        return date(int(written[:4]), int(written[4:6]), int(written[6:8]))
    except ValueError:
        return None
