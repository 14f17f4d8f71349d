"""Points at which a test lets a process die, to prove that nothing depends on what comes after.

Inert unless `ZAMBEZI_CRASH_DIR` is set. Then a file there, named after the process, holds a number n: the
process ends without any clean-up at the n-th commit event from now (before or after a commit that changes
something). The file is removed first, so that the process which the supervisor starts next goes on.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

_lock = threading.Lock()


def point(process: str) -> None:
    """Pass one commit event of this process; die here if it is the one a test asked for."""
    folder = os.environ.get("ZAMBEZI_CRASH_DIR")
    if not folder:
        return
    asked = Path(folder) / process
    with _lock:
        if not asked.exists():
            return
        left = int(asked.read_text()) - 1
        if left > 0:
            asked.write_text(str(left))
            return
        asked.unlink()
        os._exit(137)
