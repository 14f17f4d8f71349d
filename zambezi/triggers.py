"""HL7 triggers: which peers are told of what has happened, and why a rule tells nobody. Pure.

    study-received   the first image of a study came
    study-completed  a study is complete; again when images came late
    study-updated    the same, when images came late only
    study-rejected   images were rejected or deleted, and have left the archive
    study-delivered  a destination has the images, at its level of proof
    delivery-parked  a delivery of images failed for good: a person must look
    report-signed    a report, or an addendum, was signed
    exam-changed     an exam was placed, moved to another time, or got another state

The plugin decides the first three in the transaction that records what happened (they are entries of its journal),
gateway.triggers the others but report-signed, which is decided in the transaction that signs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from zambezi import causes
from zambezi.config.settings import Hl7Trigger


@dataclass(frozen=True)
class Happened:
    """Something that a rule may wait for. `words` say it; `cause` is that of the stores, empty where none are meant.

    `said_by`: who told us of it; a peer isn't told what it said itself.
    """

    on: str
    words: str
    cause: str = ""
    modalities: frozenset[str] = frozenset()
    is_late: bool = False
    state: str = ""
    destination: str = ""
    said_by: str = ""


@dataclass(frozen=True)
class Triggered:
    """A rule that acts: its peer is to be told, because."""

    rule: Hl7Trigger
    because: str

    @property
    def told(self) -> dict[str, str]:
        """The facts of its audit entry."""
        facts = {
            "rule": self.rule.name, "on": self.rule.on, "peer": self.rule.send_to, "message": self.rule.message,
            "template": self.rule.template, "because": self.because,
        }  # fmt: skip
        return {name: value for name, value in facts.items() if value}


def received(cause: str, modality: str) -> Happened:
    """The first image of a study came."""
    return Happened("study-received", "the first image of the study came", cause, frozenset({modality} - {""}))


def completed(cause: str, generation: int, modalities: Collection[str]) -> list[Happened]:
    """The study is complete with what came by `cause`, for the so manieth time."""
    found, words = frozenset(modalities) - {""}, f"the study is complete (generation {generation})"
    again = [Happened("study-updated", f"{words} with late images", cause, found)] if generation > 1 else []
    return [Happened("study-completed", words, cause, found, is_late=generation > 1), *again]


def decide(happened: Sequence[Happened], rules: Sequence[Hl7Trigger]) -> list[Triggered]:
    """Who is told, in the order of the rules."""
    return [Triggered(rule, _because(rule, one)) for rule in rules for one in happened if not refusal(rule, one)]


def refusal(rule: Hl7Trigger, happened: Happened) -> str:
    """Why the rule tells nobody of this; empty if it does."""
    when = rule.when
    if rule.on != happened.on:
        return f"it waits for {rule.on}, this is {happened.on}"
    if happened.cause and not causes.covers(rule.causes, happened.cause):
        return f"the cause is {happened.cause}, the rule acts on {_or(rule.causes)}"
    if happened.is_late and not rule.late_images:
        return "the study was complete before, and LateImages is false"
    if when.modality and not happened.modalities.intersection(when.modality):
        return f"Modality is {_or(happened.modalities)}, the rule wants {_or(when.modality)}"
    if when.state and happened.state not in when.state:
        return f"State is {happened.state or 'empty'}, the rule wants {_or(when.state)}"
    if when.destination and happened.destination not in when.destination:
        return f"Destination is {happened.destination or 'empty'}, the rule wants {_or(when.destination)}"
    if happened.said_by == rule.send_to:
        return f"{rule.send_to} said so itself"
    return ""


def _because(rule: Hl7Trigger, happened: Happened) -> str:
    return f"rule {rule.name}: {happened.words}" + (f" and its cause is {happened.cause}" if happened.cause else "")


def _or(values: Collection[str]) -> str:
    return " or ".join(sorted(values)) or "empty"
