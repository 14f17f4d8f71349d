"""Ingest comes first: threads of ours that nobody waits for give way to Orthanc's own."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

#: In niceness (0 is everybody's, 19 gives way to all); the journal must still get its share on a busy machine.
NICENESS = 10


def lower() -> None:
    """Lower the calling thread's priority; on Linux niceness belongs to the thread, not to the process.

    Only for threads that hold none of Orthanc's locks while they compute.
    """
    with suppress(PermissionError):  # a supervisor may forbid it; following the archive matters more
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
