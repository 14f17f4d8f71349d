"""Migration's storing of old documents in a process of its own, which a test lets die (zambezi.crash)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from migration.records import archiving
from zambezi import keys
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient


def store_all(variables: Mapping[str, str], crash: str) -> None:
    """As the service does it; dies where a file in `crash` says."""
    os.environ["ZAMBEZI_CRASH_DIR"] = crash
    environment = Environment.read(variables)
    made = sessions(connect(environment.database_url, "migration"), "migration")
    client = OrthancClient(environment, keys.load(environment.keys_file), "migration")
    archiving.store_all(made, made, client, ZoneInfo("Africa/Maputo"), lambda: True)
