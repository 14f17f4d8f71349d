"""Whether there is room for what comes: measured by a thread of the plugin's own, answered from memory.

The archive outlives its neighbours, so it looks at its disks itself (zambezi.disk decides). What modalities send is
refused as out of resources (A700) before the disk is full: database, index and journal keep theirs. Nothing has to be
started again: once there is room, the next look lets modalities in.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from plugins.journal import Journal
from plugins.refusals import Refusals
from plugins.rules import Rules
from zambezi import clock, disk
from zambezi.disk import LEVELS, Room, Volume

log = logging.getLogger("zambezi.room")

#: How often the disks are looked at.
EVERY_S = 2.0
#: An image takes some more than its bytes: a file, rows of the index, an entry of the journal.
BESIDES = 16_384
#: Where less than this is left to give away, each instance is a look of its own.
NEAR = 512 * 2**20
#: A look that hangs (a network file system that is away) must not hang Orthanc's end, too.
JOIN_S = 5.0
#: From which level on a way in is closed; for what persons decide and write (custody, ris) later than for these.
CLOSED_FROM = {"DICOM": "full", "migration": "full", "gateway": "full"}
#: It brings back what is on the disk already, before modalities are let in.
NEVER_CLOSED = "recovery"


class RoomWatch:
    """Asked by Orthanc's threads for each instance; the level changes in its own thread only."""

    def __init__(
        self, rules: Rules, journal: Journal, refusals: Refusals, measure: Callable[[], Sequence[Volume]]
    ) -> None:
        self._rules = rules
        self._journal = journal
        self._refusals = refusals
        self._measure = measure
        self._lock = threading.Lock()
        self._recorded = str(journal.meta("disk level") or LEVELS[0])
        self._left = 0
        self._ask = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="zambezi-room", daemon=True)
        self.now = Room()

    def look(self, at: datetime) -> Room:
        """Measure, decide, and record a level that changed; what holds from now on."""
        room = self._decide()
        if room.level != self._recorded:
            self._record(room, at)
        return room

    def _decide(self) -> Room:
        volumes = self._measure()
        marks = self._rules.now.zambezi.disk
        with self._lock:
            before = self.now
            self.now = room = disk.decide(volumes, before.levels, marks)
            images = [one for one in volumes if "images" in one.roles]
            self._left = sum(one.free - max(disk.LEAST, disk.threshold(one, marks.refuse)) for one in images)
        if room.level != before.level:
            log.warning("disk: %s, was %s. %s", room.level, before.level, room.reason)
        return room

    def admits(self, size: int, way: str) -> bool:
        """Whether an instance of so many bytes may come in this way: DICOM, or the name of a service."""
        wanted = size + BESIDES
        with self._lock:
            self._left -= wanted
            is_near = self._left < NEAR
        if is_near:  # between two looks others, or a fast sender, could take all of what must be left
            self._decide()
        with self._lock:
            level = self.now.level
            if way == "DICOM" and self._left < wanted and LEVELS.index(level) < LEVELS.index("full"):
                level = "full"
        if way == NEVER_CLOSED or LEVELS.index(level) < LEVELS.index(CLOSED_FROM.get(way, "spent")):
            return True
        self._refusals.note("", "C-STORE" if way == "DICOM" else "POST", "", f"no room: the disk is {level}", way)
        return False

    @property
    def told(self) -> dict[str, Any]:
        """For the status: level, reason, and each volume."""
        room = self.now
        volumes = [
            {
                "roles": list(one.volume.roles), "total": one.volume.total, "free": one.volume.free,
                "level": one.level, "reason": one.reason,
            }
            for one in room.volumes
        ]  # fmt: skip
        return {"level": room.level, "reason": room.reason, "volumes": volumes}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._ask.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._ended:
            try:
                self.look(clock.now())
            except Exception:  # edge of the thread: the last level goes on
                log.exception("the disks could not be looked at")
            self._ask.wait(EVERY_S)
            self._ask.clear()

    def _record(self, room: Room, at: datetime) -> None:
        """A journal without room says it once it has some: which level was recorded last stands in the journal."""
        try:
            with self._journal.transaction() as transaction:
                transaction.append(
                    "disk-changed", at, level=room.level, before=self._recorded, reason=room.reason or None
                )
                transaction.set_meta("disk level", room.level)
        except sqlite3.Error as error:
            log.warning("the journal can't record that the disk is %s: %s", room.level, error)
        else:
            self._recorded = room.level
