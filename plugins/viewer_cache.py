"""The Orthanc web viewer's cache: emptied when something leaves the archive, and at each start.

The viewer keeps what it showed, names and pixels in clear, as files named by UUIDs, and forgets a series only when an
image is added to it: what is deleted or corrected would go on lying there. Its list of them (cache.db) holds nothing
but Orthanc's ids, and it makes anew what it doesn't find.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

log = logging.getLogger("zambezi.viewer_cache")

#: Deletions come in rows: so long after the first, once for all of them ...
GATHER_S = 1.0
#: ... and again, for what a viewer had asked for before and was still being made.
AGAIN_S = 30.0
JOIN_S = 5.0

_CACHED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def empty(folder: Path) -> int:
    """Take every cached file away; how many. The viewer's list stays: its process holds it open."""
    count = 0
    for file in folder.glob("??/??/*"):
        if _CACHED.fullmatch(file.name) and file.is_file():
            file.unlink(missing_ok=True)
            count += 1
    return count


class ViewerCache:
    """Empties the cache from a thread of its own; Orthanc's threads only say that something was deleted."""

    def __init__(self, folder: str | None, storage: Path) -> None:
        self._folder = Path(folder) if folder else None
        if self._folder and storage.resolve().is_relative_to(self._folder.resolve()):
            log.error("WebViewer.CachePath holds the archive's own files: the viewer's cache is never emptied")
            self._folder = None
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zambezi-viewer-cache", daemon=True)

    def start(self) -> None:
        """What was shown before is not needed again: a crash may have come between a deletion and its emptying."""
        if self._folder:
            self._asked.set()
            self._thread.start()

    def deleted(self) -> None:
        """Something left the archive."""
        self._asked.set()

    def stop(self) -> None:
        self._ended.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        again = False
        while not self._ended.is_set():
            asked = self._asked.wait(AGAIN_S if again else None)
            self._ended.wait(GATHER_S)
            self._asked.clear()
            again = asked
            self._empty()

    def _empty(self) -> None:
        if self._folder is None:
            return
        try:
            count = empty(self._folder)
        except OSError as error:
            log.warning("the viewer's cache could not be emptied: %s", error.strerror)
            self._asked.set()
        else:
            if count:
                log.info("the viewer's cache was emptied of %d files", count)
