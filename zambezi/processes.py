"""Signs of life: what each process last said of itself, for `zambezi status` and the health page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from zambezi import __version__, clock
from zambezi.database.tables import ProcessState


def heartbeat(
    session: Session,
    process: str,
    now: datetime,
    configuration_hash: str,
    details: Mapping[str, Any] | None = None,
    last_error: str = "",
) -> None:
    """Write the process's row (every ~5 s, and at its start). `details` holds queue depths and the like, as plain
    JSON; `last_error` says what went wrong since the last sign of life, or still does (""): a sentence, which stays
    with the time at which it was said last until the next one, even when all goes well again.
    """
    row = session.get(ProcessState, process)
    if row is None:
        row = ProcessState(process=process)
        session.add(row)
    row.at = clock.text(now)
    row.version = __version__
    row.configuration = configuration_hash
    row.details = dict(details or {})
    if last_error:
        row.last_error, row.last_error_at = last_error, clock.text(now)
