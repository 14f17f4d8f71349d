"""Whether an instance meets the conditions of a rule, and in words why not. Pure.

What isn't known yet is no reason for or against: a condition is met, not met, or lacks attributes that must be read
from the instance first (Kleene's three values). So nothing is read where what is known decides already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from zambezi import attributes, windows
from zambezi.config.settings import Test, When, Window
from zambezi.config.settings.when import CIRCUMSTANCES, Scalar
from zambezi.holidays import Holiday

#: What is known of an instance, by DICOM keyword or circumstance: its values, none where it has none. What isn't
#: known is no key.
Facts = Mapping[str, tuple[str, ...]]

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class Moment:
    """When it is decided, by the site's clock and calendar."""

    at: datetime
    zone: tzinfo = UTC
    holidays: Sequence[Holiday] = ()

    def within(self, opening: Sequence[Window]) -> bool:
        return windows.is_open(opening, self.at, self.zone, self.holidays)


@dataclass(frozen=True)
class Verdict:
    """Met, not met with the reason, or None: not decided without the attributes that it lacks."""

    met: bool | None
    why: str = ""
    lacks: frozenset[str] = field(default_factory=frozenset)


def judge(when: When, facts: Facts, moment: Moment) -> Verdict:
    """Whether the facts meet the conditions at this moment."""
    lacks: set[str] = set()
    for name, test in when.tests.items():
        if name not in facts:
            lacks.add(name)
        elif not _fits(name, test, facts[name]):
            return Verdict(False, _found(name, test, facts[name]))
    if when.time and not moment.within(when.time):
        return Verdict(
            False, f"the time is {moment.at.astimezone(moment.zone):%a %H:%M}, the rule wants {_times(when)}"
        )
    for one in when.all_:
        verdict = judge(one, facts, moment)
        if verdict.met is False:
            return verdict
        lacks |= verdict.lacks
    if when.any_:
        verdicts = [judge(one, facts, moment) for one in when.any_]
        if all(verdict.met is False for verdict in verdicts):
            return Verdict(False, " and ".join(dict.fromkeys(verdict.why for verdict in verdicts)))
        if not any(verdict.met for verdict in verdicts):
            lacks |= frozenset[str]().union(*(verdict.lacks for verdict in verdicts))
    if when.not_:
        verdict = judge(when.not_, facts, moment)
        if verdict.met:
            return Verdict(False, f"{words(when.not_)}, the rule wants it otherwise")
        lacks |= verdict.lacks
    return Verdict(None if lacks else True, lacks=frozenset(lacks))


def words(when: When) -> str:
    """The conditions as a person reads them."""
    said = [f"{name} {_wanted(test)}" for name, test in when.tests.items()]
    if when.time:
        said.append(f"the time is {_times(when)}")
    said += [words(one) for one in when.all_]
    if when.any_:
        said.append("(" + " or ".join(words(one) for one in when.any_) + ")")
    if when.not_:
        said.append(f"not ({words(when.not_)})")
    return " and ".join(said) or "no condition"


def values(found: object, keyword: str) -> tuple[str, ...]:
    """What Orthanc says of an attribute as values; what is too long to be told is there, and like nothing."""
    if found is None or isinstance(found, list | dict):
        return ("",) if found is None or found else ()
    text = str(found)
    parts = [text] if attributes.find(keyword).vr in ("LT", "ST", "UT", "UR") else text.split("\\")
    stripped = [part.strip(" \0") for part in parts]
    return tuple(stripped) if any(stripped) else ()


def _fits(name: str, test: Test, found: tuple[str, ...]) -> bool:
    if test.present is not None:
        return bool(found) == test.present
    if test.equal:
        return any(_same(one, wanted) for one in found for wanted in test.equal)
    if test.pattern:
        return any(_like(pattern, one) for one in found for pattern in test.pattern)
    kind = attributes.find(name).kind
    return any(_within(test, one, kind) for one in found)


def _same(found: str, wanted: Scalar) -> bool:
    if isinstance(wanted, str):
        return found == wanted
    number = _number(found)
    return number is not None and number == wanted


def _like(pattern: str, found: str) -> bool:
    """* for anything, ? for one character (PS3.4 C.2.2.2.4); capitals count as small ones.

    By hand: a regular expression with many stars could take for ever.
    """
    wanted, text = pattern.casefold(), found.casefold()
    at = of = 0
    star, behind = -1, 0
    while of < len(text):
        if at < len(wanted) and wanted[at] == "*":
            star, behind = at, of
            at += 1
        elif at < len(wanted) and wanted[at] in ("?", text[of]):
            at, of = at + 1, of + 1
        elif star >= 0:  # the last star takes one more
            behind += 1
            at, of = star + 1, behind
        else:
            return False
    return not wanted[at:].strip("*")


def _within(test: Test, found: str, kind: str) -> bool:
    if kind == "moment":
        value = _digits(found)
        first, last = _digits(str(test.at_least or "")), _digits(str(test.at_most or ""))
        return bool(value) and value >= first and (not last or value[: len(last)] <= last)
    number = _years(found) if kind == "age" else _number(found)
    if number is None:
        return False
    first_number, last_number = test.at_least, test.at_most
    return (first_number is None or number >= float(first_number)) and (
        last_number is None or number <= float(last_number)
    )


def _number(found: str) -> float | None:
    try:
        return float(found)
    except ValueError:
        return None


def _years(found: str) -> float | None:
    """AS of PS3.5 6.2: 045Y, 006M, 002W, 010D."""
    match = re.fullmatch(r"([0-9]{1,3})([YMWD])", found)
    return int(match[1]) * _YEARS[match[2]] if match else None


def _digits(moment: str) -> str:
    return moment.translate({ord("-"): None, ord(":"): None})


def _wanted(test: Test) -> str:
    if test.present is not None:
        return "is there" if test.present else "is not there"
    if test.equal:
        return f"is {' or '.join(map(str, test.equal))}"
    if test.pattern:
        return f"is like {' or '.join(test.pattern)}"
    if test.at_most is None:
        return f"is at least {test.at_least}"
    return f"is at most {test.at_most}" if test.at_least is None else f"is {test.at_least} to {test.at_most}"


def _found(name: str, test: Test, found: tuple[str, ...]) -> str:
    """What was found and what is wanted; nobody is named."""
    hidden = bool(found) and name not in (*CIRCUMSTANCES, "Modality") and attributes.find(name).names_a_person
    shown = "something else" if hidden else "\\".join(found)[:80] or "empty"
    return f"{name} is {shown}, the rule wants {_wanted(test).removeprefix('is ')}"


def _times(when: When) -> str:
    return " or ".join(
        f"{'' if len(one.days) == 7 else ' '.join(one.days) + ' '}{one.from_:%H:%M} to {one.to:%H:%M}"
        for one in when.time
    )
