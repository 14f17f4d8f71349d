"""What a migration worker works with: the archive, the database, the source's settings, the clock."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from migration import pace
from migration.lanes import Lane
from migration.source import Source
from zambezi import windows
from zambezi.bandwidth import Line
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource, Site
from zambezi.database.engine import Sessions
from zambezi.disk import Room
from zambezi.orthanc_client import OrthancClient

#: So long the archive isn't asked again what it was told; a node that comes new has a gateway that tells it.
_HEARD_S = 5.0


class Closed(Exception):
    """The source may not be asked any more: its window has closed, a disk gets full, or we are stopping."""


def no_room(room: Room) -> str:
    """Why nothing may be brought over now ("": it may): modalities come first."""
    return f"migration waits until there is more room on the disk: {room.reason}" if room.is_at_least("scarce") else ""


@dataclass
class Heard:
    """What the archive said last of the announced studies that it knows: the generation, and when (monotonic)."""

    generation: int = -1
    at: float = 0.0


@dataclass(frozen=True)
class Desk:
    """One worker's desk; `announced` asks the plugin which generation of announced studies it knows."""

    client: OrthancClient
    sessions: Sessions
    settings: MigrationSource
    peer: Modality
    source: Source
    target_aet: str
    site: Site
    now: Callable[[], datetime]
    announced: Callable[[], int]
    owner: str
    hold_dir: Path  # where objects wait that the archive can't take (zambezi.hold)
    draw: Callable[[], float] = random.random  # chance spreads what comes again
    stop: threading.Event = field(default_factory=threading.Event)
    line: Line = field(default_factory=Line)
    room: Callable[[], Room] = Room
    settle_seconds: float = 2.0
    announce_seconds: float = 60.0
    reading: Sessions | None = None  # looks at the ledger, and holds up no writer
    heard: Heard = field(default_factory=Heard)

    @property
    def looking(self) -> Sessions:
        """For what only reads: on SQLite it waits for nobody's commit, and nobody waits for it."""
        return self.reading or self.sessions

    def is_announced(self, generation: int) -> bool:
        """Whether the archive knows this generation of announced studies; what it knew a moment ago it still knows."""
        now = time.monotonic()
        if generation > self.heard.generation or now - self.heard.at > _HEARD_S:
            self.heard.generation, self.heard.at = self.announced(), now
        return self.heard.generation >= generation

    def check_open(self) -> None:
        """Closed unless the source may be asked at this moment."""
        if self.stop.is_set():
            raise Closed("the process is stopping")
        if not windows.is_open(self.settings.windows, self.now(), self.site.zone, self.site.holidays):
            raise Closed("the window has closed")
        if why := no_room(self.room()):
            raise Closed(why)

    @property
    def cap(self) -> int | None:
        """Kilobits a second that may go over the source's line now; None: no cap."""
        return windows.cap_at(self.settings.windows, self.now(), self.site.zone, self.site.holidays)

    def for_lane(self, lane: Lane) -> Desk:
        """The same, with the limits of this lane."""
        if not lane.is_near_line or self.settings.near_line:
            return self
        return replace(self, settings=self.settings.model_copy(update={"near_line": True}))

    @property
    def ceiling(self) -> int:
        """Studies at once that may be asked of the source now, in this lane."""
        if self.settings.near_line:
            return self.settings.near_line_at_once
        return pace.ceiling(self.settings, self.site, self.now())

    def used(self, size: int) -> None:
        """So many bytes came over the source's line: wait until its cap allows more; Closed as `check_open`."""
        owed = self.line.used(size, self.cap, self.now())
        while owed > 0:
            self.check_open()
            self.pause(min(owed, 1.0))
            owed -= 1.0

    def pause(self, seconds: float) -> None:
        """Wait; Closed if the process is stopped meanwhile."""
        if self.stop.wait(seconds):
            raise Closed("the process is stopping")
