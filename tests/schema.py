"""A database with this version's schema: made once a process by the revisions, then copied (a fortieth of the time)."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import Engine

from zambezi.database.engine import connect
from zambezi.database.upgrade import upgrade


def upgraded(url: str, process: str = "test") -> Engine:
    """An engine for `process` on a database that `zambezi up` has brought to this version; it was empty before."""
    file = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite") or file.exists():
        engine = connect(url, process)
        upgrade(engine)
        return engine
    file.write_bytes(_empty())
    return connect(url, process)


@cache
def _empty() -> bytes:
    """An SQLite file without a row of ours."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "z.db"
        engine = connect(f"sqlite:///{file}", "test")
        upgrade(engine)
        engine.dispose()  # the last connection's end brings the write-ahead log into the file
        return file.read_bytes()
