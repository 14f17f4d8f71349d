"""What other rules would have done: they judge the studies that came last, and nothing follows from it.

Both the rules in force and those that are tried look at each study as if it came anew, at the time at which it became
complete. A part at a time, so that who asks can show progress and stop: each answer says where to go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plugins import routing
from plugins.attributes import Reader
from plugins.studies import Studies
from zambezi import clock
from zambezi.config import Configuration

#: Studies in one answer, and how long it may take where they must be read first.
STUDIES = 20
AT_MOST_S = 15.0
_LAST = 2**62


class TrialRefused(ValueError):
    """What was asked can't be understood; the text says why."""


@dataclass(frozen=True)
class Asked:
    """Keys of the Zambezi section to try, and where to go on: behind which entry (0: from the newest)."""

    section: Mapping[str, Any]
    before: int

    @classmethod
    def read(cls, told: Any) -> Asked:
        if not isinstance(told, dict) or not isinstance(told.get("section"), dict):
            raise TrialRefused('found something else than {"section": {...}, "before": number}')
        before = told.get("before", 0)
        if not isinstance(before, int) or not 0 <= before <= _LAST:
            raise TrialRefused("before: allowed is the number of an entry")
        return cls(told["section"], before)


def run(studies: Studies, now: Configuration, tried: Configuration, asked: Asked, reader: Reader) -> dict[str, Any]:
    """{"studies": [...], "before": where to go on, 0 at the end}."""
    begun = time.monotonic()
    told: list[dict[str, Any]] = []
    found = studies.last_completed(asked.before or _LAST, STUDIES)
    for seq, study_uid, payload in found:
        facts = json.loads(payload)
        told.append(
            {
                "study_uid": study_uid, "cause": facts["cause"], "completed_at": facts["at"],
                "now": _routes(studies, now, study_uid, facts, reader),
                "then": _routes(studies, tried, study_uid, facts, reader),
            }
        )  # fmt: skip
        if time.monotonic() - begun > AT_MOST_S:
            return {"studies": told, "before": seq}
    return {"studies": told, "before": found[-1][0] if len(found) == STUDIES else 0}


def _routes(
    studies: Studies, rules: Configuration, study_uid: str, facts: Mapping[str, Any], reader: Reader
) -> list[dict[str, Any]]:
    judged = studies.judged(study_uid, rules, reader, clock.parse(facts["at"]))
    if judged is None:
        return []  # it left the archive since
    zambezi = rules.zambezi
    study, circumstances = judged
    decided = routing.decide(
        study, facts["cause"], zambezi.routing, zambezi.destinations, lambda *_: False, circumstances
    )
    fetched = routing.fetches(study, facts["cause"], zambezi.routing, lambda *_: False, circumstances)
    return [
        {
            "rule": one.rule, "destination": one.destination, "instances": len(one.instances),
            "priority": one.priority, "because": one.because,
        }
        for one in decided
    ] + [
        {
            "rule": one.rule.name, "destination": f"here, from {one.source}", "instances": 0,
            "priority": one.priority, "because": one.because,
        }
        for one in fetched
    ]  # fmt: skip
