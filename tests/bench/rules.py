"""How long 100 rules take to decide on a study: `python -m tests.bench.rules`.

The pure decision alone, with and without rules that look at attributes of each instance.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from typing import Any

from plugins.conditions import Moment
from plugins.routing import Candidate, Circumstances, decide
from zambezi.config.settings import Zambezi

RULES, TIMES = 100, 20
AT = Circumstances(Moment(datetime(2026, 3, 2, 12, tzinfo=UTC)), {"Beira": ("CT1",)}, "STAT", "1.2")


def main() -> None:
    """Print the milliseconds of the middle of twenty."""
    for what, when in (("the series", _of_series), ("each instance", _of_instance)):
        rules = Zambezi.model_validate(
            {
                "Destinations": {"B": {}}, "Access": {"Sites": {"Beira": {"AETs": ["CT1"]}}},
                "Routing": [{"Name": f"r{n}", "When": when(n), "SendTo": ["B"]} for n in range(RULES)],
            }
        )  # fmt: skip
        for count in (1, 100, 1000):
            study = [_one(n) for n in range(count)] if when is _of_instance else _alike(count)
            taken = []
            for _ in range(TIMES):
                begun = time.perf_counter()
                decide(study, "modality", rules.routing, rules.destinations, lambda *_: False, AT)
                taken.append(time.perf_counter() - begun)
            print(f"{RULES} rules about {what}, {count:4} instances: {statistics.median(taken) * 1e3:7.2f} ms")


def _of_series(n: int) -> dict[str, Any]:
    """One rule in ten takes it, as in a hospital with many destinations."""
    return {
        "Modality": ["CT", "MR"], "StudyDescription": {"Pattern": f"*{'HEAD' if n % 10 == 0 else n}*"},
        "Not": {"SeriesDescription": "LOCALIZER"}, "Any": [{"Site": "Beira"}, {"Priority": ["STAT", "HIGH"]}],
    }  # fmt: skip


def _of_instance(n: int) -> dict[str, Any]:
    return {**_of_series(n), "SliceThickness": {"From": 0, "To": 1.5}}


_SERIES = {"StudyDescription": ("CT HEAD PLAIN",), "SeriesDescription": ("AXIAL",)}


def _alike(count: int) -> list[Candidate]:
    return [Candidate(f"o{n}", f"1.{n // 300}", f"2.{n}", "CT", "CT1", "Z", "modality", _SERIES) for n in range(count)]


def _one(n: int) -> Candidate:
    attributes = {**_SERIES, "SliceThickness": (str(n % 5),)}
    return Candidate(f"o{n}", f"1.{n // 300}", f"2.{n}", "CT", "CT1", "Z", "modality", attributes)


if __name__ == "__main__":
    main()
