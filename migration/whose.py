"""Whose a study is: a source's patient against those whom RIS and HIS know, and the archive.

A match by score is taken only where nobody else comes near; where a number is somebody else's here, where two come
into question, or where the source itself names several, a person decides. `Register` holds all patients in memory
(about a kilobyte each), found by identifier, birth date and the sound of two names.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import identifiers, matching
from zambezi.config.settings.migration_plan import Matching
from zambezi.database.tables import Patient
from zambezi.matching import Likeness, Person

#: Why a person must say whose a study is; no patient's data. Who is one of their own then needs another identifier.
TAKEN = "its identifier is another patient's here"
STRANGER = "the archive has images of somebody else under its identifier"
SEVERAL = "the source has the study under {} patients"
SHARED = "rules give it one identifier with another patient of the source"
NOT_SURE = "a patient here resembles it, but not enough to be sure"
ALIKE = "{} patients here resemble it as much"
NOBODY = "nobody here resembles it, and the plan wants a person to look"
#: So many are put before a person at most.
SHOWN = 5
#: Of the names of one person so many sounds are looked for: the rarest.
_SOUNDS = 4


@dataclass(frozen=True)
class Found:
    """Who a source's patient is here: matched, new (one of its own) or held, and in words why."""

    state: str
    patient_key: int | None = None
    score: float = 0.0
    reason: str = ""
    candidates: tuple[tuple[int, Likeness], ...] = ()


def person(facts: Mapping[str, str]) -> Person:
    """What a source says of a patient, by DICOM keyword, as matching wants it."""
    return Person(
        facts.get("PatientID", ""), facts.get("IssuerOfPatientID", ""), facts.get("PatientName", ""),
        facts.get("PatientBirthDate", ""), facts.get("PatientSex", "").upper(),
    )  # fmt: skip


def identity(facts: Mapping[str, str], patients: str) -> str:
    """The key of all that a source says of a patient; `patients` are all under whom it has the study."""
    told = [
        patients, *(facts.get(keyword, "") for keyword in
                    ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def decide(
    wanted: Person, known: Iterable[tuple[int, Person]], strangers: Callable[[], Iterable[Person]], how: Matching
) -> Found:  # fmt: skip
    """Whom the patient is, of `known` (patients by their keys); `strangers`: who has images here under its number."""
    known = list(known)
    candidates = matching.best(wanted, known, how.look)
    holders = [
        (key, matching.likeness(wanted, other)) for key, other in known
        if wanted.patient_id and other.patient_id == wanted.patient_id and not _other_issuer(wanted, other)
    ]  # fmt: skip
    shown = tuple(dict.fromkeys([*candidates, *holders]))[:SHOWN]
    best = candidates[0] if candidates else None
    second = candidates[1][1].score if len(candidates) > 1 else 0.0
    if best is not None and best[1].score >= how.accept:
        others = [key for key, _ in holders if key != best[0]]
        if others:
            return Found("held", None, best[1].score, TAKEN, shown)
        if best[1].score - second >= how.lead:
            return Found("matched", best[0], best[1].score, candidates=shown[:1])
        return Found("held", None, best[1].score, ALIKE.format(len(candidates)), shown)
    if best is not None:
        return Found("held", None, best[1].score, NOT_SURE, shown)
    if holders:
        return Found("held", None, 0.0, TAKEN, shown)
    if any(matching.likeness(wanted, other).score < how.look for other in strangers()):
        return Found("held", None, 0.0, STRANGER)
    if how.unknown == "hold":
        return Found("held", None, 0.0, NOBODY)
    return Found("new")


class Register:
    """All patients here, by what finds them."""

    def __init__(self, known: Mapping[int, Person]) -> None:
        self._known = known
        self._by_id: dict[str, list[int]] = defaultdict(list)
        self._by_birth: dict[str, list[int]] = defaultdict(list)
        self._by_sound: dict[str, set[int]] = defaultdict(set)
        for key, one in known.items():
            for number in (one.patient_id, *one.former_ids):
                self._by_id[number].append(key)
            if one.birth_date:
                self._by_birth[one.birth_date].append(key)
            for sound in matching.sounds(one.name):
                self._by_sound[sound].add(key)

    @classmethod
    def of(cls, session: Session) -> Register:
        """Of the database's patients; who was merged away counts under the survivor."""
        former = identifiers.former_ids(session)
        rows = session.execute(
            select(
                Patient.id, Patient.patient_id, Patient.issuer, Patient.family_name, Patient.given_name,
                Patient.birth_date, Patient.sex,
            ).where(Patient.merged_into.is_(None))
        )  # fmt: skip
        return cls(
            {
                key: Person(
                    patient_id, issuer, f"{family}^{given}".rstrip("^"), born or "", sex or "",
                    tuple(former.get(key, ())),
                )
                for key, patient_id, issuer, family, given, born, sex in rows
            }
        )  # fmt: skip

    def alike(self, wanted: Person) -> list[tuple[int, Person]]:
        """Who comes into question."""
        keys = set(self._by_id.get(wanted.patient_id, ()) if wanted.patient_id else ())
        sounds = sorted((s for s in matching.sounds(wanted.name) if s in self._by_sound),
                        key=lambda sound: len(self._by_sound[sound]))[:_SOUNDS]  # fmt: skip
        # A birth date is shared by many, a guessed one by thousands: of those whoever has a name in common.
        for day in _days(wanted.birth_date):
            keys.update(key for key in self._by_birth.get(day, ()) if any(key in self._by_sound[s] for s in sounds))
        for one, other in combinations(sounds, 2):
            keys |= self._by_sound[one] & self._by_sound[other]
        return [(key, self._known[key]) for key in sorted(keys)]


def _days(birth_date: str) -> set[str]:
    """A birth date, and with day and month swapped."""
    return {birth_date, birth_date[:4] + birth_date[6:] + birth_date[4:6]} - {""}


def _other_issuer(one: Person, other: Person) -> bool:
    return bool(one.issuer and other.issuer and one.issuer != other.issuer)
