"""Whether two records are of one person: a score with its reasons. Pure.

For names as they are written in Mozambique and Zimbabwe: accents come and go, so do particles (da, dos, e) and middle
names; one name is spelt in the Portuguese, the English and the Bantu way (Makuakua, Macuacua; Nyantumbo, Nhantumbo).
Nobody is merged by this: who calls it decides what a score is worth, and below that a person does.

The score is the sum of what each piece of evidence speaks for or against, between 0 and 1 (record linkage as of Fellegi
and Sunter, 1969, with fixed weights that a person can follow).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from zambezi.searching import folded

#: Weights of evidence. An identifier alone is not enough for a match: old archives hand numbers out twice.
SAME_ID, SAME_ID_AND_ISSUER, FORMER_ID = 0.45, 0.5, 0.4
SAME_BIRTH, SWAPPED_BIRTH, NEAR_BIRTH, SAME_YEAR, GUESSED_BIRTH, OTHER_BIRTH = 0.3, 0.22, 0.15, 0.05, 0.05, -0.25
SAME_SEX, OTHER_SEX = 0.05, -0.15
SAME_NAME, OTHER_NAME = 0.4, -0.3
#: A name all of whose words are another's, too, or nearly: the share of SAME_NAME that it is worth.
PART_OF_NAME = 0.8
#: Below this likeness two names are of two people.
LEAST_LIKENESS = 0.5

#: Words that have less than this share of their letters in common are two.
_LEAST_SHARE = 0.75

#: Words that come and go in a name.
_PARTICLES = frozenset({"da", "das", "de", "do", "dos", "e", "di", "du", "van", "von", "der", "den", "la"})
_TITLES = frozenset({"sr", "sra", "dr", "dra", "mr", "mrs", "ms", "miss", "prof", "eng", "dona", "d"})
#: A newborn is filed under the mother's name until it has one.
_NEWBORN = re.compile(r"\b(rn|recem|nado|nascido|bebe|baby|filh[oa] de|son of|daughter of|infant)\b")
#: Spellings of one sound, in this order; what is left is compared.
_SOUNDS = (
    ("ph", "f"), ("tch", "x"), ("tx", "x"), ("ch", "x"), ("sh", "x"), ("ny", "nh"), ("th", "t"), ("dh", "d"),
    ("rh", "r"), ("kh", "k"), ("qu", "k"), ("q", "k"), ("ck", "k"), ("ce", "se"), ("ci", "si"), ("cy", "si"),
    ("c", "k"), ("w", "u"), ("y", "i"), ("j", "g"), ("z", "s"), ("nh", "n"), ("lh", "l"), ("h", ""),
)  # fmt: skip
_DOUBLED = re.compile(r"(.)\1+")
_GUESSED = ("0101", "0107", "0701", "0630", "3006")


@dataclass(frozen=True)
class Person:
    """What one record says of a person; empty where it says nothing. `name` as in DICOM: Family^Given^Middle.

    `birth_date` as YYYYMMDD, `sex` as M, F, O. `former_ids`: identifiers that were merged into this person's.
    """

    patient_id: str = ""
    issuer: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    former_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reason:
    """One piece of evidence: its code (words of it stand where it is shown) and what it counts."""

    code: str
    weight: float


@dataclass(frozen=True)
class Likeness:
    """How much two records are of one person, and why."""

    score: float
    reasons: tuple[Reason, ...]


def likeness(one: Person, other: Person) -> Likeness:
    """Compare two records; the same whichever comes first, but for former identifiers, which are `other`'s."""
    reasons = [
        found
        for found in (_ids(one, other), _names(one.name, other.name), _births(one.birth_date, other.birth_date),
                      _sexes(one.sex, other.sex))
        if found is not None
    ]  # fmt: skip
    if is_newborn(one.name) != is_newborn(other.name):
        reasons.append(Reason("newborn", -0.3))
    score = sum(reason.weight for reason in reasons)
    return Likeness(round(min(1.0, max(0.0, score)), 3), tuple(reasons))


def sounds(name: str) -> frozenset[str]:
    """How the words of a name sound, for finding whom to compare; initials aren't among them."""
    return frozenset(_sound(word) for word in _words(name) if len(word) > 1)


@lru_cache(maxsize=65536)
def is_newborn(name: str) -> bool:
    """Whether the name says that it is the mother's."""
    return _NEWBORN.search(folded(name).replace("^", " ").replace("-", " ")) is not None


def name_likeness(one: str, other: str) -> float:
    """How much two names are alike, from 0 to 1: words in any order, spelt in any way, some of them left out."""
    few, many = sorted((_words(one), _words(other)), key=len)
    if not few:
        return 0.0
    left = list(many)
    found = 0.0
    for word in few:
        best = max(left, key=lambda candidate: _alike(word, candidate))
        found += _alike(word, best)
        left.remove(best)
    share = found / len(few)
    if len(few) == len(many):
        return share
    # One word of many says little: half of a country is called Maria.
    return share * (PART_OF_NAME if len(few) > 1 else 0.5)


def _ids(one: Person, other: Person) -> Reason | None:
    if not one.patient_id:
        return None
    if one.patient_id == other.patient_id:
        if one.issuer and other.issuer and one.issuer != other.issuer:
            return Reason("other-issuer", 0.0)
        both = bool(one.issuer and one.issuer == other.issuer)
        return Reason("same-id-issuer", SAME_ID_AND_ISSUER) if both else Reason("same-id", SAME_ID)
    if one.patient_id in other.former_ids:
        return Reason("former-id", FORMER_ID)
    return Reason("other-id", 0.0)


def _names(one: str, other: str) -> Reason | None:
    if not _words(one) or not _words(other):
        return None
    found = name_likeness(one, other)
    if found < LEAST_LIKENESS:
        return Reason("other-name", OTHER_NAME)
    return Reason("same-name" if found >= 0.95 else "like-name", round(SAME_NAME * found, 3))


def _births(one: str, other: str) -> Reason | None:
    if not _is_day(one) or not _is_day(other):
        return None
    guessed = one[4:] in _GUESSED or other[4:] in _GUESSED
    if one == other:
        return Reason("same-birth-guessed", SAME_BIRTH / 2) if guessed else Reason("same-birth", SAME_BIRTH)
    if one[:4] == other[:4] and one[4:6] == other[6:] and one[6:] == other[4:6]:
        return Reason("swapped-birth", SWAPPED_BIRTH)
    if guessed and abs(int(one[:4]) - int(other[:4])) <= 2:
        return Reason("guessed-birth", GUESSED_BIRTH)
    if sum(a != b for a, b in zip(one, other, strict=True)) == 1:
        return Reason("near-birth", NEAR_BIRTH)
    return Reason("same-year", SAME_YEAR) if one[:4] == other[:4] else Reason("other-birth", OTHER_BIRTH)


def _sexes(one: str, other: str) -> Reason | None:
    if one not in ("M", "F") or other not in ("M", "F"):
        return None
    return Reason("same-sex", SAME_SEX) if one == other else Reason("other-sex", OTHER_SEX)


def _is_day(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit()


@lru_cache(maxsize=65536)
def _words(name: str) -> tuple[str, ...]:
    alphabetic = name.split("=")[0]
    parts = re.sub(r"[^\w]+", " ", folded(alphabetic).replace("_", " ")).split()
    told = tuple(word for word in parts if word not in _PARTICLES | _TITLES and not word.isdigit())
    return told or tuple(parts)


@lru_cache(maxsize=65536)
def _sound(word: str) -> str:
    for written, sound in _SOUNDS:
        word = word.replace(written, sound)
    word = _DOUBLED.sub(r"\1", word)
    return re.sub(r"[eo]s$", "s", word) if len(word) > 4 else word


@lru_cache(maxsize=65536)
def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    if len(one) == 1 or len(other) == 1:  # an initial
        return 0.7 if one[0] == other[0] else 0.0
    if _sound(one) == _sound(other):
        return 0.95
    longest = max(len(one), len(other))
    if abs(len(one) - len(other)) > longest * (1 - _LEAST_SHARE):
        return 0.0
    share = 1 - _edits(one, other) / longest
    return share if share >= _LEAST_SHARE else 0.0


def _edits(one: str, other: str) -> int:
    """Letters put in, left out, changed, or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def best(person: Person, others: Iterable[tuple[int, Person]], least: float) -> list[tuple[int, Likeness]]:
    """Those who resemble this person at least so much, by their keys, the likeliest first."""
    found = [(key, likeness(person, other)) for key, other in others]
    return sorted(((key, one) for key, one in found if one.score >= least), key=lambda pair: (-pair[1].score, pair[0]))
