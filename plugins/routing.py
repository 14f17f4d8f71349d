"""Routing: which instances of a complete study go where, and why. Pure.

A rule acts on instances of the causes it names. What a rule has sent to a destination before is not sent
again, unless it says so: a late image goes as the next generation, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plugins import conditions
from plugins.conditions import Moment, Verdict
from zambezi import causes
from zambezi.config.settings import Destination, Priors, Route

#: Instances in one journal entry; a larger route is told in parts.
PART = 2000


_NOTHING: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Candidate:
    """An instance as rules see it; `attributes` are those that were read, one object for all that have the same."""

    orthanc_id: str
    series_uid: str
    sop_uid: str
    modality: str
    calling_aet: str
    called_aet: str
    cause: str
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NOTHING, hash=False)


@dataclass(frozen=True)
class Circumstances:
    """What a rule may ask for besides the instance: the moment, who belongs to which site, the order's priority."""

    moment: Moment
    sites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    priority: str = ""
    study_uid: str = ""


@dataclass(frozen=True)
class Decided:
    """A route: these instances, to this destination, because."""

    rule: str
    destination: str
    proof: str
    because: str
    instances: tuple[Candidate, ...]
    priority: int = 0

    def parts(self) -> list[tuple[Candidate, ...]]:
        """The instances in pieces that fit a journal entry."""
        return [self.instances[n : n + PART] for n in range(0, len(self.instances), PART)]


#: Whether a rule sent an instance to a destination before: (rule, destination, orthanc_id).
Routed = Callable[[str, str, str], bool]


class Judged:
    """The verdicts of rules on the instances of one study; instances that are alike are judged once."""

    def __init__(self, study: Sequence[Candidate], circumstances: Circumstances, rules: Sequence[Route]) -> None:
        self._moment = circumstances.moment
        tells_apart = any("SOPInstanceUID" in rule.when.keywords for rule in rules)
        self._study = study
        self._facts: list[dict[str, tuple[str, ...]]] = []
        self._groups: list[int] = []
        contents: dict[int, tuple[Any, ...]] = {}
        numbers: dict[tuple[Any, ...], int] = {}
        for one in study:
            key = id(one.attributes)
            if key not in contents:
                contents[key] = tuple(sorted(one.attributes.items()))
            like = (
                one.series_uid, one.modality, one.calling_aet, one.called_aet, contents[key],
                one.sop_uid if tells_apart else "",
            )  # fmt: skip
            group = numbers.setdefault(like, len(numbers))
            if group == len(self._facts):
                self._facts.append(_facts(one, circumstances))
            self._groups.append(group)

    def verdicts(self, rule: Route) -> Iterator[tuple[Candidate, Verdict]]:
        """Each instance with the verdict on it."""
        judged = [conditions.judge(rule.when, facts, self._moment) for facts in self._facts]
        return ((one, judged[group]) for one, group in zip(self._study, self._groups, strict=True))


def decide(
    study: Sequence[Candidate],
    cause: str,
    rules: Sequence[Route],
    destinations: Mapping[str, Destination],
    routed: Routed,
    circumstances: Circumstances,
) -> list[Decided]:
    """What is to be sent now that the study is complete for these rules, with what came by `cause`.

    Every attribute that decides is known (`lacking` is empty).
    """
    mine = [one for one in study if one.cause == cause]
    judged = Judged(mine, circumstances, rules)
    decided = []
    for rule in rules:
        if not causes.covers(rule.causes, cause):
            continue
        fitting = _whole(rule, mine, [one for one, verdict in judged.verdicts(rule) if verdict.met])
        for destination in dict.fromkeys(rule.send_to) if fitting else ():
            new = [one for one in fitting if not routed(rule.name, destination, one.orthanc_id)]
            is_late = any(routed(rule.name, destination, one.orthanc_id) for one in mine) if new else False
            if not new or (is_late and rule.late == "never"):
                continue
            going = fitting if rule.late == "all" else new
            because = _because(rule, cause, len(going), len(fitting), len(new), is_late)
            priority = max(rule.priority, causes.ORDERED.get(circumstances.priority, 0))
            if priority > rule.priority:
                because += f"; its order is {circumstances.priority}"
            proof = destinations[destination].proof
            decided.append(Decided(rule.name, destination, proof, because, tuple(going), priority))
    return decided


@dataclass(frozen=True)
class Fetch:
    """Earlier studies are to be fetched from this archive, because; `mark`: the instance that this is kept with."""

    rule: Route
    source: str
    because: str
    priority: int
    mark: Candidate

    @property
    def way(self) -> str:
        """What stands for a destination among those that a rule has acted for; no destination's name has a colon."""
        return f"fetch:{self.source}"


def fetches(
    study: Sequence[Candidate], cause: str, rules: Sequence[Route], routed: Routed, circumstances: Circumstances
) -> list[Fetch]:
    """From where earlier studies are to be fetched now that the study is complete for these rules: once a study."""
    wanting = [rule for rule in rules if rule.priors and rule.priors.fetch_from and causes.covers(rule.causes, cause)]
    mine = sorted((one for one in study if one.cause == cause), key=lambda one: one.orthanc_id)
    judged = Judged(mine, circumstances, wanting)
    found = []
    for rule in wanting:
        taken = sum(verdict.met is True for _, verdict in judged.verdicts(rule))
        for source in dict.fromkeys(rule.priors.fetch_from) if taken and rule.priors else ():
            priority = max(rule.priority, causes.ORDERED.get(circumstances.priority, 0))
            because = f"rule {rule.name}: {taken} instances by {cause} meet: {conditions.words(rule.when)}"
            fetch = Fetch(rule, source, because, priority, mine[0])
            if not any(routed(rule.name, fetch.way, one.orthanc_id) for one in mine):
                found.append(fetch)
    return found


def lacking(
    study: Sequence[Candidate], cause: str, rules: Sequence[Route], circumstances: Circumstances
) -> dict[str, set[str]]:
    """Which attributes must be read of which instances (Orthanc ids) before these rules can decide."""
    mine = [one for one in study if one.cause == cause]
    judged = Judged(mine, circumstances, rules)
    found: dict[str, set[str]] = {}
    for rule in rules:
        if rule.when.keywords and causes.covers(rule.causes, cause):
            for one, verdict in judged.verdicts(rule):
                if verdict.lacks and verdict.met is None:
                    found.setdefault(one.orthanc_id, set()).update(verdict.lacks)
    return found


def explain(
    study: Sequence[Candidate], rules: Sequence[Route], routed: Routed, circumstances: Circumstances
) -> list[dict[str, Any]]:
    """For each rule: how many instances it takes, and why it leaves the others."""
    judged = Judged(study, circumstances, rules)
    told = []
    for rule in rules:
        left: dict[str, int] = {}
        meeting = []
        for one, verdict in judged.verdicts(rule):
            why = verdict.why
            if verdict.met is None:
                why = f"{' and '.join(sorted(verdict.lacks))} could not be read"
            if verdict.met and not causes.covers(rule.causes, one.cause):
                why = f"the cause is {one.cause}, the rule acts on {' or '.join(rule.causes)}"
            if why:
                left[why] = left.get(why, 0) + 1
            else:
                meeting.append(one)
        acted_on = [one for one in study if causes.covers(rule.causes, one.cause)]
        taken = _whole(rule, acted_on, meeting)
        told.append(
            {
                "rule": rule.name,
                "matches": len(taken),
                "because": f"{len(meeting)} of {len(study)} instances meet: {conditions.words(rule.when)}"
                + (f"; the whole {rule.whole} goes" if rule.whole != "instance" and meeting else "")
                + (f"; {_earlier(rule.priors, rule.send_to)}" if rule.priors and meeting else ""),
                "left": left,
                "late": rule.late,
                "routed": {
                    name: sum(routed(rule.name, name, one.orthanc_id) for one in taken) for name in rule.send_to
                },
            }
        )
    return told


def _earlier(priors: Priors, send_to: Sequence[str]) -> str:
    """What happens with the patient's earlier studies."""
    said = ["go along"] if send_to else []
    said += [f"are fetched from {' and '.join(priors.fetch_from)}"] if priors.fetch_from else []
    return f"up to {priors.count} earlier studies {', and '.join(said)}"


def _facts(one: Candidate, circumstances: Circumstances) -> dict[str, tuple[str, ...]]:
    priority = (circumstances.priority,) if circumstances.priority else ()
    sites = tuple(site for site, aets in circumstances.sites.items() if one.calling_aet in aets)
    return {
        **one.attributes, "Modality": _one(one.modality), "SeriesInstanceUID": _one(one.series_uid),
        "StudyInstanceUID": _one(circumstances.study_uid), "CallingAet": _one(one.calling_aet),
        "CalledAet": _one(one.called_aet), "Site": sites, "Priority": priority, "SOPInstanceUID": _one(one.sop_uid),
    }  # fmt: skip


def _one(value: str) -> tuple[str, ...]:
    return (value,) if value else ()


def _whole(rule: Route, study: Sequence[Candidate], meeting: Sequence[Candidate]) -> list[Candidate]:
    """What goes with those that meet the conditions: nothing more, their series, or all."""
    if rule.whole == "series":
        series = {one.series_uid for one in meeting}
        return [one for one in study if one.series_uid in series]
    return list(study if rule.whole == "study" and meeting else meeting)


def _because(rule: Route, cause: str, going: int, fitting: int, new: int, is_late: bool) -> str:
    what = "meet" if rule.whole == "instance" else f"go with their {rule.whole}, for some meet"
    said = f"rule {rule.name}: {going} instances by {cause} {what}: {conditions.words(rule.when)}"
    if is_late and rule.late == "all":
        return f"{said}, {new} of them came late: all go again"
    return f"{said}, {fitting - going} went before" if fitting > going else said
