"""Custody's deletions in a process of their own, which a test lets die: `python -m tests.custody_process`.

It ends with 0 as soon as nothing is left to do at once.
"""

from __future__ import annotations

import os
from datetime import timedelta

from operations.custody.deleting import Deleting
from operations.custody.worker import WRITER, Desk
from zambezi import clock, keys
from zambezi.config.settings import Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient


def main() -> None:
    """Work as long as there is work."""
    environment = Environment.read(os.environ)
    desk = Desk(
        environment,
        Zambezi(),
        sessions(connect(environment.database_url, WRITER), WRITER),
        OrthancClient(environment, keys.load(environment.keys_file), WRITER),
        clock.now,
        f"process/{os.getpid()}",
    )
    step = Deleting(desk, timedelta(seconds=30))
    while step.round():
        pass


if __name__ == "__main__":
    main()
