"""What is odd in what a source says of its studies: found before a byte moves, so that a plan can meet it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

#: So many Study Instance UIDs of each sort are kept as examples; the count is of all.
EXAMPLES = 20

#: Sorts, in the order in which pages show them. Words for them stand in migration.findings.
SORTS = (
    "two-patients", "undated", "date-form", "date-impossible", "date-old", "date-future", "untimed", "no-patient",
    "patient-wildcard", "no-accession", "accession-shared", "no-modality", "claims-nothing", "not-online", "uid-form",
)  # fmt: skip
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_FIRST_YEAR = 1900
_A_DAY = timedelta(days=1)


def of(facts: Mapping[str, Mapping[str, str]], patients: Mapping[str, set[str]], today: date) -> dict[str, Any]:
    """By sort: how many studies (`count`), and Study Instance UIDs (`examples`)."""
    accessions: dict[str, set[str]] = {}
    for study_uid, said in facts.items():
        if number := said.get("AccessionNumber"):
            accessions.setdefault(number, set()).add(study_uid)
    found: dict[str, dict[str, Any]] = {}
    for study_uid, said in facts.items():
        shared = len(accessions.get(said.get("AccessionNumber", ""), ())) > 1
        for sort in sorts_of(study_uid, said, patients.get(study_uid, set()), today, shared):
            entry = found.setdefault(sort, {"count": 0, "examples": []})
            entry["count"] += 1
            if len(entry["examples"]) < EXAMPLES:
                entry["examples"].append(study_uid)
    return {sort: found[sort] for sort in SORTS if sort in found}


def sorts_of(
    study_uid: str, said: Mapping[str, str], patients: set[str], today: date, is_accession_shared: bool = False
) -> list[str]:
    """What is odd in one study's attributes, by DICOM keyword."""
    number = said.get("AccessionNumber", "")
    told = {
        "two-patients": len(patients) > 1,
        **{f"date-{sort}": True for sort in [date_sort(said.get("StudyDate", ""), today)] if sort},
        "undated": not said.get("StudyDate"),
        "untimed": not said.get("StudyTime"),
        "no-patient": "" in patients,
        "patient-wildcard": any(set("*?\\") & set(patient) for patient in patients),
        "no-accession": not number,
        "accession-shared": is_accession_shared,
        "no-modality": not said.get("ModalitiesInStudy"),
        "claims-nothing": said.get("NumberOfStudyRelatedInstances") == "0",
        "not-online": said.get("InstanceAvailability", "ONLINE") != "ONLINE",
        "uid-form": len(study_uid) > 64 or not _UID.fullmatch(study_uid),
    }
    return [sort for sort in SORTS if told.get(sort)]


def date_sort(text: str, today: date) -> str:
    """ "": a date (DA, PS3.5 6.2) that may be, or none; form, impossible, old or future.

    `today` is UTC's: in the source's zone it may be tomorrow already.
    """
    if not text:
        return ""
    if not re.fullmatch(r"[0-9]{8}", text):
        return "form"
    if not is_date(text):
        return "impossible"
    day = date.fromisoformat(text)
    return "old" if day.year < _FIRST_YEAR else "future" if day > today + _A_DAY else ""


def is_date(text: str) -> bool:
    """Whether it is a day of the calendar, as DICOM writes one."""
    try:
        return bool(re.fullmatch(r"[0-9]{8}", text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False
