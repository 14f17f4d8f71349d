"""Taking over that the archive has got another index, with every instance proven to be the same (`zambezi move`).

Nothing was stored, so nothing follows from it: no route, no message, no state of an exam. The journal learns where in
the new index's /changes each of its instances stands, as if it had followed, in one transaction with one entry.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from datetime import datetime
from itertools import islice
from pathlib import Path

from plugins.facts import Change
from plugins.journal import Journal
from plugins.recorder import Recorder
from zambezi import durable

log = logging.getLogger("zambezi.moved")

_BATCH = 10_000


def take_over(journal: Journal, recorder: Recorder, file: Path, index_id: str, now: datetime) -> bool:
    """Take over the file that a move left, if it is of this index; whether it was. Cut off, the next start does it.

    The file is SQLite: `about` (index_id, facts as JSON) and `arrivals` (seq, orthanc_id, date of /changes).
    """
    if not file.exists():
        return False
    with closing(sqlite3.connect(file)) as moved:
        its, facts = moved.execute("SELECT index_id, facts FROM about").fetchone()
        if its != index_id:
            log.warning("%s belongs to another index: an archive that was moved away, or not brought into place", file)
            return False
        if journal.meta("moved") != index_id:
            _adopt(journal, recorder, moved, index_id, json.loads(facts), now)
    file.unlink()
    durable.sync(file.parent)
    return True


def _adopt(
    journal: Journal, recorder: Recorder, moved: sqlite3.Connection, index_id: str, facts: dict[str, str], now: datetime
) -> None:
    rows = moved.execute("SELECT seq, orthanc_id, date FROM arrivals ORDER BY seq")
    with journal.transaction() as transaction:
        last: tuple[int, str, str] | None = None
        while part := list(islice(rows, _BATCH)):
            transaction.executemany(
                "INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?)", [(index_id, *row) for row in part]
            )
            transaction.executemany(
                "UPDATE instances SET index_id = ?, change_seq = ?, unsure = 0 WHERE orthanc_id = ? AND present = 1",
                [(index_id, seq, orthanc_id) for seq, orthanc_id, _ in part],
            )
            last = part[-1]
        transaction.execute("DELETE FROM anchors")  # places in the old index are none in this one
        if last:
            recorder.set_cursor(transaction, Change(index_id, *last))
        transaction.append("archive-moved", now, **facts)
        transaction.set_meta("moved", index_id)
    log.info("the archive has another index, with the same instances")
