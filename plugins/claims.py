"""What each of several nodes has let in: a word left for the other ones, on the disk that they share.

Between a node's look at an arrival and the moment when another node's tables tell of it pass seconds, or hours while
the gateway is away. So whoever lets an instance in claims its identity first: a symbolic link, named by the Orthanc
id, that says the SHA-256 of the bytes. Making one is atomic, for NFS too, and takes no block of the disk. One who finds
another's link with another digest knows that Orthanc has, or is about to have, other bytes.

A folder a day (UTC). Each claim is looked for in the day before and after, too: midnight and two clocks are no gap.
Folders go when every node's tables know what lay in them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from zambezi import clock

#: So many days stay, whatever is known.
KEPT_DAYS = 2
_EVERY_S = 600.0


@dataclass(frozen=True)
class Claim:
    """What somebody let in before: the digest, and when (seconds UTC)."""

    sha256: str
    at: float


class Claims:
    """One folder for all nodes of an installation."""

    def __init__(
        self, folder: Path, now: Callable[[], datetime] = clock.now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._now = now
        self._monotonic = monotonic
        self._next = 0.0

    def claim(self, orthanc_id: str, sha256: str, now: datetime) -> Claim | None:
        """Leave the word; what was claimed before, with the same bytes or others. OSError where the disk is away."""
        file = self._file(orthanc_id, now)
        try:
            file.symlink_to(sha256)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self.claim(orthanc_id, sha256, now)
        except FileExistsError:
            return _read(file)
        for days in (*range(-KEPT_DAYS, 0), 1):
            earlier = _read(self._file(orthanc_id, now + timedelta(days=days)))
            if earlier:
                return earlier
        return None

    def withdraw(self, orthanc_id: str, sha256: str, now: datetime) -> None:
        """These bytes were let in, and are stored by nobody after all."""
        for days in range(-1, 2):
            file = self._file(orthanc_id, now + timedelta(days=days))
            found = _read(file)
            if found and found.sha256 == sha256:
                file.unlink(missing_ok=True)

    def forget_old(self) -> None:
        """Every node's tables know all that was recorded until now: days that are long over may go."""
        if self._monotonic() < self._next:
            return
        self._next = self._monotonic() + _EVERY_S
        first = (self._now() - timedelta(days=KEPT_DAYS)).date().isoformat()
        for day in self._folder.glob("????-??-??"):
            if day.name < first:
                with suppress(FileNotFoundError):  # another node takes it away, too
                    shutil.rmtree(day)

    def _file(self, orthanc_id: str, now: datetime) -> Path:
        return self._folder / now.date().isoformat() / orthanc_id[:2] / orthanc_id


def _read(file: Path) -> Claim | None:
    try:
        return Claim(str(file.readlink()), file.lstat().st_mtime)
    except FileNotFoundError:
        return None
