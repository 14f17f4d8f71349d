"""What a plan's rules make of what a source says of a study: values in, values out, with the rule that did it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from zambezi.coercion import attributes, rules
from zambezi.coercion.declared import CHARACTER_SET
from zambezi.config.settings.coercion import Asked
from zambezi.config.settings.migration_plan import CHANGEABLE, Pad, PlanRule, Skip, Strip
from zambezi.correctable import ValueRefused, checked_value

#: Changed for a study of which the source names several patients, these would make one of them.
OF_PATIENT = frozenset({
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "OtherPatientIDs",
})  # fmt: skip

#: Declared, these say that the source has labelled its Unicode as something else.
_UNICODE = ("ISO_IR 192", "guess")
#: So begins why a study is held whose values can't be carried out.
FAULT = "rule "


@dataclass(frozen=True)
class Cleansed:
    """What the study's images get, by DICOM keyword, and which rule gave it; `faults`: values that can't be ones.

    `read`: texts of the source as they are once the character set is put right; no letter of them changes.
    """

    changes: dict[str, str]
    by: dict[str, str]
    faults: tuple[str, ...] = ()
    read: Mapping[str, str] = field(default_factory=dict)


def cleansed(plan: Sequence[PlanRule], facts: Mapping[str, str]) -> Cleansed:
    """Carry out the rules one after another on what the source said; conditions look at that, values at what became."""
    values, by, read = dict(facts), dict[str, str](), dict[str, str]()
    charset = ""
    for rule in plan:
        if not fits(rule.when, facts):
            continue
        if rule.character_set in _UNICODE:
            again = {keyword: repaired(value) for keyword, value in values.items() if repaired(value) != value}
            values |= again
            read |= again
        before = dict(values)
        _take(rule, values)
        by |= {keyword: rule.name for keyword in CHANGEABLE if values.get(keyword, "") != before.get(keyword, "")}
        if rule.character_set:
            charset, by[CHARACTER_SET] = rule.character_set, rule.name
    changes, faults = {}, []
    for keyword in CHANGEABLE:
        value = values.get(keyword, "")
        if value == read.get(keyword, facts.get(keyword, "")):
            continue
        try:
            checked_value(attributes.settable(keyword), value)
        except ValueRefused:  # which repeats the value: it may be a patient's
            faults.append(f"{FAULT}{by[keyword]} gives {keyword} a value that can't be one")
        changes[keyword] = value
    if charset:
        changes[CHARACTER_SET] = charset
    return Cleansed(changes, {keyword: rule for keyword, rule in by.items() if keyword in changes}, tuple(faults), read)


def skipped(plan: Sequence[Skip], facts: Mapping[str, str]) -> Skip | None:
    """The first rule that leaves the study where it is."""
    return next((rule for rule in plan if fits(rule.when, facts) and _is_before(rule.before, facts)), None)


def fits(when: Mapping[str, Asked], facts: Mapping[str, str]) -> bool:
    """Whether what the source says of a study meets all conditions; several modalities are several values."""
    return all(rules.fits(wanted, _values(facts.get(keyword, ""))) for keyword, wanted in when.items())


def repaired(text: str) -> str:
    """Unicode that was taken for Latin-1, as it was written: "ConceiÃ§Ã£o" is no name."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def tidied(name: str) -> str:
    """A name in DICOM's form (PS3.5 6.2.1): components without blanks around them, none empty at the end."""
    groups = []
    for group in name.split("="):
        written = re.sub(r"\s+", " ", group).strip(" ^")
        if "^" not in written and "," in written:
            family, _, given = written.partition(",")
            written = f"{family}^{given}"
        groups.append("^".join(part.strip() for part in written.split("^")).strip("^"))
    return "=".join(groups).rstrip("=")


def stripped(value: str, how: Strip) -> str:
    """A value without what it is to lose, in the order of the keys."""
    value = value.removeprefix(how.prefix).removesuffix(how.suffix)
    value = value.translate(_nothing(how.characters))
    if how.zeros and value.startswith("0"):
        value = value.lstrip("0") or "0"
    return value


def padded(value: str, how: Pad) -> str:
    """A value that has at least so many characters; an empty one stays so."""
    return value.rjust(how.length, how.with_) if value else value


@lru_cache(maxsize=256)
def _nothing(characters: str) -> dict[int, None]:
    return {ord(character): None for character in characters}


def _take(rule: PlanRule, values: dict[str, str]) -> None:
    def each(named: Mapping[str, object] | Sequence[str], change: Callable[[str, str], str]) -> None:
        for keyword in named:
            values[keyword] = change(keyword, values.get(keyword, ""))

    each(rule.tidy, lambda _, value: tidied(value))
    each(rule.strip, lambda keyword, value: stripped(value, rule.strip[keyword]))
    each(rule.cut, lambda keyword, value: value[: rule.cut[keyword]])
    each(rule.pad, lambda keyword, value: padded(value, rule.pad[keyword]))
    each(rule.prefix, lambda keyword, value: _begun(value, rule.prefix[keyword]))
    each(rule.copy_, lambda keyword, value: values.get(rule.copy_[keyword], "") or value)
    each(rule.map_, lambda keyword, value: rule.map_[keyword].get(value, value))
    each(rule.set_, lambda keyword, _: rule.set_[keyword])
    each(rule.fill, lambda keyword, value: value or rule.fill[keyword])


def _begun(value: str, prefix: str) -> str:
    return prefix + value if value and not value.startswith(prefix) else value


def _values(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("\\")) if text else ()


def _is_before(day: date | None, facts: Mapping[str, str]) -> bool:
    if day is None:
        return True
    found = facts.get("StudyDate", "")
    return len(found) == 8 and found.isdigit() and found < f"{day:%Y%m%d}"
