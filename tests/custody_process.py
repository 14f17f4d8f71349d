"""Custody's deletions in a process of their own, which a test lets die (zambezi.crash)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta

from operations.custody.deleting import Deleting
from operations.custody.worker import WRITER, Desk
from zambezi import clock, keys
from zambezi.config.settings import Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient


def work(variables: Mapping[str, str], crash: str) -> None:
    """As long as something is left to do at once; dies where a file in `crash` says."""
    os.environ["ZAMBEZI_CRASH_DIR"] = crash
    environment = Environment.read(variables)
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
