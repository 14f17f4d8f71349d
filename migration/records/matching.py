"""Whether a patient of the old system is one whom we know: a score with its reasons. Pure; it merges nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zambezi.matching import name_likeness

#: From here on two entries may be one person, and a person decides.
LIKELY = 0.75


@dataclass(frozen=True)
class Person:
    """Who is compared; `key` is the patient's id here, 0 for the old system's."""

    key: int
    family_name: str
    given_name: str
    birth_date: str  # YYYYMMDD or empty
    sex: str  # M F O U or empty
    patient_id: str = ""
    issuer: str = ""


@dataclass(frozen=True)
class Candidate:
    """Somebody who may be meant, how likely (0 to 1), and why."""

    patient: int
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """`same`: the identifier is theirs and nothing speaks against it; `new`: nobody; `hold`: a person must say."""

    verdict: str
    patient: int | None
    reason: str
    candidates: tuple[Candidate, ...] = ()


def decide(found: Person, by_identifier: Person | None, born_that_day: Sequence[Person]) -> Decision:
    """Who is meant. `born_that_day`: patients of other issuers with the same birth date.

    An identifier alone is no proof: old systems gave numbers out twice. A likeness alone is none either: both wait.
    """
    if by_identifier is not None:
        seen = compare(found, by_identifier)
        against = contradictions(found, by_identifier)
        if seen.score >= LIKELY and not against:
            return Decision("same", by_identifier.key, "same identifier; " + "; ".join(seen.reasons), (seen,))
        why = "; ".join(against or seen.reasons)
        return Decision("hold", None, f"the identifier is that of another patient here: {why}", (seen,))
    alike = [one for other in born_that_day if (one := compare(found, other)).score >= LIKELY]
    if not alike:
        why = "nobody here is alike" if found.birth_date else "no birth date: it could not be compared"
        return Decision("new", None, why)
    alike.sort(key=lambda one: -one.score)
    return Decision("hold", None, "somebody here is alike under another identifier", tuple(alike[:5]))


def compare(one: Person, other: Person) -> Candidate:
    """How alike two entries are: names count for 0.6, birth date 0.3, sex 0.1; what one side doesn't say, for half."""
    name = name_likeness(f"{one.family_name}^{one.given_name}", f"{other.family_name}^{other.given_name}")
    reasons = [f"names {name:.0%} alike"]
    score = 0.6 * name
    for word, mine, theirs, weight in (
        ("birth date", one.birth_date, other.birth_date, 0.3), ("sex", one.sex, other.sex, 0.1),
    ):  # fmt: skip
        if not mine or not theirs or (word == "sex" and "U" in (mine, theirs)):
            score += weight / 2
            reasons.append(f"{word} not known on one side")
        elif mine == theirs:
            score += weight
            reasons.append(f"same {word}")
        else:
            reasons.append(f"another {word}")
    return Candidate(other.key, round(score, 3), tuple(reasons))


def contradictions(one: Person, other: Person) -> list[str]:
    """What can't be true of one person."""
    found = []
    if one.birth_date and other.birth_date and one.birth_date != other.birth_date:
        found.append("another birth date")
    if {one.sex, other.sex} == {"M", "F"}:
        found.append("another sex")
    return found
