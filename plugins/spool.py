"""Lines that others write for the journal: queries (queries.lua), incidents (the start-up recovery).

A writer opens the file, appends a line of JSON and closes it. The journal takes the file by renaming it
and reads it at the next occasion, when nobody can have it open any more. Which files are done is
committed with the entries, so that none is read twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: From this size on the writers write no more until the file was taken (queries.lua, operations.dicom_log).
FULL_BYTES = 4_000_000
#: They write whole what they began: so much is read into memory. More is cut, and the cut is told.
MAXIMUM_BYTES = 4 * FULL_BYTES


@dataclass(frozen=True)
class Taken:
    """A file that was read: its number (kept under `key`), its lines, and how many can't be told.

    `is_full`: whoever had more to write may have left it out.
    """

    key: str
    number: int
    lines: list[dict[str, Any]]
    left_out: int
    is_full: bool


class Spool:
    """One such file; `key` is where the journal keeps the number of the last file that was read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.key = f"spool {file.name}"
        self._taken: Path | None = None

    def take(self, done: int) -> Taken | None:
        """What was written until the last call; `done` is the number of the last file that was committed."""
        if self._taken is None:
            self._taken = self._left_behind(done)
        if self._taken is None:
            self._rename(done + 1)
            return None
        with self._taken.open("rb") as file:
            raw = file.read(MAXIMUM_BYTES)
        lines = [_line(one) for one in raw.splitlines()]
        found = [one for one in lines if one is not None]
        return Taken(self.key, int(self._taken.suffix[1:]), found, len(lines) - len(found), len(raw) >= FULL_BYTES)

    def forget(self) -> None:
        """The taken file is committed: remove it."""
        if self._taken:
            self._taken.unlink(missing_ok=True)
            self._taken = None

    def _rename(self, number: int) -> None:
        taken = self._file.with_name(f"{self._file.name}.{number}")
        try:
            self._file.rename(taken)
        except FileNotFoundError:
            return
        self._taken = taken

    def _left_behind(self, done: int) -> Path | None:
        left = None
        for file in self._file.parent.glob(self._file.name + ".*"):
            if not file.suffix[1:].isdigit():
                continue
            if int(file.suffix[1:]) <= done:
                file.unlink()
            else:
                left = file
        return left


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw.decode("utf-8", "replace"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
