"""Whether the archive's journal has taken in all that Orthanc has stored: before that, nothing may leave Orthanc."""

from __future__ import annotations

import time

from zambezi.orthanc_client import OrthancClient

_EVERY_S = 0.2


def wait_until_followed(orthanc: OrthancClient, seconds: float) -> bool:
    """Whether the plugin's follower passes, within so many seconds, the change that is Orthanc's last one now.

    Deleting an instance takes its row out of /changes: what was not followed by then would never be recorded.
    """
    last = int(orthanc.get("/changes", last="")["Last"])
    until = time.monotonic() + seconds
    while True:
        follower = orthanc.get("/zambezi/status")["follower"]
        if not follower["error"] and int(follower["change"]) >= last:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_EVERY_S)
