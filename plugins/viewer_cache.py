"""What leaves the archive leaves the Orthanc web viewer's cache, too (zambezi.viewer_cache).

Files are taken away a few seconds later, but the viewer keeps its list of them: an image that was replaced under the
same identity would be shown as it was. So pictures have another name since each deletion: `generation` noughts stand
before the frame's number, which the viewer reads as the same number and keeps as another picture. The front door puts
them there (docker/nginx/nginx.conf).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from zambezi import viewer_cache

log = logging.getLogger("zambezi.viewer_cache")

#: So long after the last deletion, for they come in rows, and a correction stores anew what it deletes ...
GATHER_S = 4.0
#: ... but not longer than this after the first; and once more for what was still being made for a viewer.
LONGEST_S = 60.0
JOIN_S = 5.0
#: After so many generations the first is used again: what was kept of it went long ago, or the viewer has started anew.
GENERATIONS = 1000


class ViewerCache:
    """A thread of its own; Orthanc's threads only say that something was deleted."""

    def __init__(
        self, folder: str | None, storage: Path, there: Callable[[list[str]], Collection[str]],
    ) -> None:  # fmt: skip
        """`there`: which of these Orthanc ids the archive has (asked from the thread)."""
        self._folder = Path(folder) if folder and viewer_cache.is_apart(Path(folder), storage) else None
        self._there = there
        self._counting = threading.Lock()
        self._generation, self._is_told = 0, False
        self._asked = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="zambezi-viewer-cache", daemon=True)

    def start(self) -> None:
        if self._folder:
            self._thread.start()

    @property
    def generation(self) -> int:
        """Of pictures, for somebody who looks at one now."""
        with self._counting:
            self._is_told = True
            return self._generation

    def deleted(self) -> None:
        """Something left the archive; it may come again with other content."""
        with self._counting:
            if self._is_told:  # of what nobody has looked at under this number there is no old picture
                self._generation, self._is_told = (self._generation + 1) % GENERATIONS, False
        self._asked.set()

    def stop(self) -> None:
        self._ended = True
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def forget(self) -> int:
        """Take away what shows instances and series that the archive doesn't have; how many files."""
        if self._folder is None:
            return 0
        shown = viewer_cache.listed(self._folder)
        there = self._there(sorted(set(shown.values())))
        return viewer_cache.forget(self._folder, [file for file, what in shown.items() if what not in there])

    def _run(self) -> None:
        again = False
        while not self._ended:
            asked = self._asked.wait(LONGEST_S if again else None)
            self._gather()
            if self._ended:
                return
            again = asked
            try:
                count = self.forget()
            except Exception:  # edge of the thread: tried again, and at the next start all is taken away
                again = True
                log.exception("the viewer's cache could not be looked through")
            else:
                if count:
                    log.info("%d files of what was deleted were taken out of the viewer's cache", count)

    def _gather(self) -> None:
        until = time.monotonic() + LONGEST_S
        while self._asked.is_set() and not self._ended and time.monotonic() < until:
            self._asked.clear()
            self._asked.wait(GATHER_S)
