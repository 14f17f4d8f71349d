"""HL7 triggers: which peers are told that a study is complete. Pure; the gateway builds and sends the messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zambezi import causes
from zambezi.config.settings import Hl7Trigger


@dataclass(frozen=True)
class Triggered:
    """A peer to tell, because."""

    rule: str
    on: str
    peer: str
    message: str
    because: str


def on_study_completed(cause: str, generation: int, rules: Sequence[Hl7Trigger]) -> list[Triggered]:
    """What a completed study sets off."""
    return [
        Triggered(
            rule.name,
            rule.on,
            rule.send_to,
            rule.message,
            f"rule {rule.name}: the study is complete (generation {generation}) and its cause is {cause}",
        )
        for rule in rules
        if rule.on == "study-completed" and causes.covers(rule.causes, cause)
    ]
