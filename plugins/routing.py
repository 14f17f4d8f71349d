"""Routing: which instances of a complete study go where, and why. Pure.

A rule acts on instances of the causes it names. What a rule has sent to a destination before is not sent
again: a late image goes as the next generation, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zambezi import causes
from zambezi.config.settings import Destination, Route, When

#: Instances in one journal entry; a larger route is told in parts.
PART = 2000


@dataclass(frozen=True)
class Candidate:
    """An instance as rules see it."""

    orthanc_id: str
    series_uid: str
    sop_uid: str
    modality: str
    calling_aet: str
    called_aet: str
    cause: str


@dataclass(frozen=True)
class Decided:
    """A route: these instances, to this destination, because."""

    rule: str
    destination: str
    proof: str
    because: str
    instances: tuple[Candidate, ...]

    def parts(self) -> list[tuple[Candidate, ...]]:
        """The instances in pieces that fit a journal entry."""
        return [self.instances[n : n + PART] for n in range(0, len(self.instances), PART)]


#: Whether a rule sent an instance to a destination before: (rule, destination, orthanc_id).
Routed = Callable[[str, str, str], bool]


def decide(
    study: Sequence[Candidate],
    cause: str,
    rules: Sequence[Route],
    destinations: Mapping[str, Destination],
    routed: Routed,
) -> list[Decided]:
    """What is to be sent now that the study is complete with what came by `cause`."""
    decided = []
    for rule in rules:
        if not causes.covers(rule.causes, cause):
            continue
        fitting = [one for one in study if one.cause == cause and not mismatch(one, rule.when)]
        for destination in dict.fromkeys(rule.send_to):
            new = tuple(one for one in fitting if not routed(rule.name, destination, one.orthanc_id))
            if new:
                proof = destinations[destination].proof
                decided.append(Decided(rule.name, destination, proof, _because(rule, cause, new, len(fitting)), new))
    return decided


def mismatch(one: Candidate, when: When) -> str:
    """Why an instance does not meet the conditions; empty if it does."""
    for name, found, wanted in (
        ("Modality", one.modality, when.modality),
        ("CallingAet", one.calling_aet, when.calling_aet),
        ("CalledAet", one.called_aet, when.called_aet),
    ):
        if wanted and found not in wanted:
            return f"{name} is {found or 'empty'}, the rule wants {' or '.join(wanted)}"
    return ""


def explain(study: Sequence[Candidate], rules: Sequence[Route], routed: Routed) -> list[dict[str, Any]]:
    """For each rule: how many instances it takes, and why it leaves the others."""
    told = []
    for rule in rules:
        left: dict[str, int] = {}
        taken = []
        for one in study:
            why = mismatch(one, rule.when)
            if not why and not causes.covers(rule.causes, one.cause):
                why = f"the cause is {one.cause}, the rule acts on {' or '.join(rule.causes)}"
            if why:
                left[why] = left.get(why, 0) + 1
            else:
                taken.append(one)
        told.append(
            {
                "rule": rule.name,
                "matches": len(taken),
                "because": f"{len(taken)} of {len(study)} instances meet: {_conditions(rule)}",
                "left": left,
                "routed": {
                    name: sum(routed(rule.name, name, one.orthanc_id) for one in taken) for name in rule.send_to
                },
            }
        )
    return told


def _because(rule: Route, cause: str, new: Sequence[Candidate], fitting: int) -> str:
    late = f", {fitting - len(new)} went before" if fitting > len(new) else ""
    return f"rule {rule.name}: {len(new)} instances by {cause} meet: {_conditions(rule)}{late}"


def _conditions(rule: Route) -> str:
    when = rule.when
    said = [
        f"{name} is {' or '.join(wanted)}"
        for name, wanted in (
            ("Modality", when.modality),
            ("CallingAet", when.calling_aet),
            ("CalledAet", when.called_aet),
        )
        if wanted
    ]
    return " and ".join(said) or "no condition"
