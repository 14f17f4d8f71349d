"""What this Orthanc shows as it was before another node deleted it.

Orthanc keeps what it has parsed of an image, and its web viewer the list of a series. Both forget what this Orthanc
deletes; of what another node deletes they don't hear, and there is no way to tell them. An image that was replaced
under the same identity, a corrected patient among them, would be shown as it was: by 1.10.1 in the web viewer, by
1.12.7 in OHIF, too. So such a study, if it was shown here before, is refused until this Orthanc starts anew.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

#: So many studies are remembered as shown: what was shown before them was pushed out of memory since.
REMEMBERED = 50000
#: So long it is known what this Orthanc deleted itself: the journal, ours or another's, tells of that later, and the
#: node that all ask first must not refuse what it corrected itself while following was behind.
OWN_S = 300.0


class Replaced:
    """One for the whole of Orthanc; asked by many threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._shown: OrderedDict[str, None] = OrderedDict()
        self._own: OrderedDict[str, float] = OrderedDict()
        #: Study Instance UID -> Orthanc ids of what others deleted since it was shown.
        self._old: dict[str, set[str]] = {}

    @property
    def refused(self) -> int:
        """How many studies are not shown here any more."""
        with self._lock:
            return len(self._old)

    def may_show(self, study_uid: str) -> bool:
        """Whether this Orthanc shows the study as the archive has it; asked before it is shown."""
        with self._lock:
            if study_uid in self._old:
                return False
            self._shown[study_uid] = None
            self._shown.move_to_end(study_uid)
            if len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)
            return True

    def deleted_here(self, orthanc_id: str) -> None:
        """This Orthanc deleted it, and forgets what it has parsed of it."""
        with self._lock:
            now = self._monotonic()
            self._own[orthanc_id] = now
            self._own.move_to_end(orthanc_id)
            while self._own and next(iter(self._own.values())) < now - OWN_S:
                self._own.popitem(last=False)
            for study_uid in [study_uid for study_uid, gone in self._old.items() if orthanc_id in gone]:
                self._old[study_uid].discard(orthanc_id)
                if not self._old[study_uid]:
                    del self._old[study_uid]

    def deleted(self, study_uid: str, orthanc_ids: Collection[str]) -> None:
        """The journal, ours or another's, tells that these instances of a study were deleted."""
        with self._lock:
            since = self._monotonic() - OWN_S
            by_others = {one for one in orthanc_ids if self._own.get(one, since) <= since}
            if by_others and study_uid in self._shown:
                self._old.setdefault(study_uid, set()).update(by_others)
