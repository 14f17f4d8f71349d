"""When a backup is due, what the last one came to, which part of the data is read back today. Pure, but for `last`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from zambezi import clock, durable, windows
from zambezi.config.settings import Backup
from zambezi.holidays import Holiday

#: One backup a day; the window may open somewhat earlier than yesterday's backup ended.
_EVERY = timedelta(hours=18)
#: After a failure it is tried again, within the window, not before so long.
_AGAIN = timedelta(minutes=30)
#: A backup that is older than this is said wherever somebody looks.
OLD = timedelta(hours=50)


@dataclass(frozen=True)
class Last:
    """What ZAMBEZI_HOME/backup/last.json says, moments as zambezi.clock writes them.

    `finished`: the last success ("" before the first), `ok`: whether the newest try was one, `tried`: when that was,
    `error`: why it failed. Of the last success: `snapshot`, `began`, `instances`, `bytes`, and `gap_s`, for how long
    modalities were not let in (None: not at all).
    """

    finished: str = ""
    ok: bool = False
    tried: str = ""
    error: str = ""
    began: str = ""
    snapshot: str = ""
    instances: int = 0
    bytes: int = 0
    gap_s: float | None = None
    repository: str = ""
    drilled: str = ""

    def write(self, folder: Path) -> None:
        durable.replace(folder / "last.json", json.dumps(asdict(self), indent=1).encode())


def last(folder: Path) -> Last:
    """What the last backup came to; an empty one where there was none, or where the file is no such file."""
    try:
        found: Mapping[str, Any] = json.loads((folder / "last.json").read_bytes())
        return Last(**{name: found[name] for name in asdict(Last()) if name in found})
    except (FileNotFoundError, ValueError, TypeError):
        return Last()


def due(settings: Backup, known: Last, now: datetime, zone: tzinfo, holidays: tuple[Holiday, ...]) -> str:
    """Why the backup of the day begins now; "" where it doesn't."""
    if not settings.repository or not windows.is_open(settings.windows, now, zone, holidays):
        return ""
    if known.tried and now - clock.parse(known.tried) < _AGAIN:
        return ""
    if not known.finished:
        return "there is no backup yet"
    age = now - clock.parse(known.finished)
    return f"the last is {hours(age)} old" if age >= _EVERY else ""


def part(day: date, of: int) -> str:
    """Which part of the data is read back on this day, as restic writes it: after `of` days all were."""
    return f"{day.toordinal() % of + 1}/{of}"


def keep(settings: Backup) -> list[str]:
    """restic's options for what is kept."""
    kept = {"daily": settings.keep_daily, "weekly": settings.keep_weekly, "monthly": settings.keep_monthly}
    return [word for name, number in kept.items() if number for word in (f"--keep-{name}", str(number))]


def complaint(settings: Backup, known: Last, now: datetime) -> str:
    """What a person must know about the backups, as a sentence; "" where all is well, or none are wanted."""
    if not settings.repository:
        return ""
    if not known.finished:
        why = f": {known.error}" if known.error else ": zambezi backup init, then zambezi backup"
        return f"there is no backup yet{why}"
    age = now - clock.parse(known.finished)
    if age < OLD and not known.error:
        return ""
    why = f"; the last try failed: {known.error}" if known.error else ""
    return f"the last backup is {hours(age)} old{why}"


def hours(age: timedelta) -> str:
    """An age for people."""
    whole = int(age.total_seconds() // 3600)
    return f"{whole} h" if whole < 72 else f"{whole // 24} days"
