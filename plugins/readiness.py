"""Whether a study is complete, by what the rule goes by: a sign, or a quiet that lasts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from zambezi import clock
from zambezi.config.settings import Completeness


@dataclass(frozen=True)
class Sign:
    """What the gateway told of a study: when, and how many instances the modality counts where it does."""

    at: str
    instances: int | None = None


@dataclass(frozen=True)
class Open:
    """A study that isn't complete: when its last instance came, how many are here, what was told of it.

    `counted` is what the images themselves tell: how many there are.
    """

    last_at: str
    present: int = 0
    signs: Mapping[str, Sign] = field(default_factory=dict)
    counted: int | None = None


_WHO = {"mpps": "the modality ended the exam (MPPS)", "commitment": "storage commitment was asked for"}


def ready(how: Completeness, study: Open, now: datetime) -> str:
    """Why the study is complete; empty while it isn't."""
    quiet = now - clock.parse(study.last_at)
    missing = ""
    for by in how.by:
        said, awaited = _sign(by, study)
        if said and awaited <= study.present and quiet >= timedelta(seconds=how.settle_seconds):
            return f"{said}{f', and all {awaited} instances are here' if awaited else ''}"
        if said and awaited > study.present:
            missing += f"; {said}, but {study.present} of {awaited} instances are here"
    if quiet < timedelta(seconds=how.quiet_seconds):
        return ""
    silent = "" if missing or not how.by else f"; no sign came ({', '.join(how.by)})"
    return f"nothing came for {how.quiet_seconds:g} s{missing}{silent}"


def _sign(by: str, study: Open) -> tuple[str, int]:
    """What was told, and how many instances are awaited by that; nothing where nothing was."""
    if by == "count":
        return ("the images tell how many they are", study.counted) if study.counted else ("", 0)
    sign = study.signs.get(by)
    return (_WHO[by], sign.instances or 0) if sign else ("", 0)
