"""The audit trail: verifying a million entries, one search among them, and what a lot costs to send.

The million is sealed by the code that seals them in a hospital; SQLite and PostgreSQL in turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sqlalchemy import insert

from operations.auditing import verify
from operations.trail import shipping
from tests import postgres
from zambezi import audit, audit_search, chain, checkpoints, clock, signing
from zambezi.audit_message import Source
from zambezi.audit_search import Wanted
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Base, ChainHead

T = TypeVar("T")

ENTRIES = 1_000_000
_BATCH = 10_000
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def fill(opened: Sessions, entries: int) -> None:
    """A chain of stored images, a view between every fifty: 40 studies a day, as a mid-sized hospital has."""
    seq, prev = 0, ""
    while seq < entries:
        with opened.begin() as session:
            rows = []
            for _ in range(_BATCH):
                seq += 1
                study, at = f"1.2.826.0.1.{seq // 500}", _BEGUN + timedelta(seconds=seq * 4)
                seen = seq % 50 == 0
                facts = {"study_uid": study, "who": f"person{seq % 30}"} if seen else _stored(study, seq)
                made = chain.seal("orthanc-bench", seq, prev, "viewed" if seen else "stored", at, facts)
                rows.append(audit._columns(made))
                prev = made.hash
            session.execute(insert(AuditEntry), rows)
            session.merge(ChainHead(journal="orthanc-bench", seq=seq, hash=prev))


def _stored(study: str, seq: int) -> dict[str, object]:
    return {
        "study_uid": study, "series_uid": f"{study}.1", "sop_uid": f"{study}.1.{seq}", "orthanc_id": f"{seq:044}",
        "study_orthanc_id": f"{seq // 500:044}", "series_orthanc_id": f"{seq // 500:044}", "modality": "CT",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2", "transfer_syntax": "1.2.840.10008.1.2.1",
        "patient_id": f"P{seq // 500}", "remote_aet": "CT1", "remote_ip": "10.1.0.21", "called_aet": "ZAMBEZI",
        "origin": "DicomProtocol", "size": 525312, "sha256": f"{seq:064x}", "cause": "modality",
    }  # fmt: skip


def _timed(what: str, work: Callable[[], T]) -> T:
    begun = time.perf_counter()
    done = work()
    print(f"  {what}: {time.perf_counter() - begun:.2f} s", flush=True)
    return done


def main(entries: int = ENTRIES) -> None:
    """Both engines in turn."""
    with tempfile.TemporaryDirectory() as folder:
        _measure("SQLite", f"sqlite:///{folder}/z.db", Path(folder), entries)
    found = postgres.programs()
    if found is not None:
        with postgres.a_cluster(found) as cluster, cluster.a_database() as url, tempfile.TemporaryDirectory() as home:
            _measure("PostgreSQL", url, Path(home), entries)


def _measure(name: str, url: str, home: Path, entries: int) -> None:
    print(f"{name}, {entries:,} entries of the audit trail:", flush=True)
    engine = connect(url, "bench")
    Base.metadata.create_all(engine)
    opened = sessions(engine, "bench")
    _timed("sealing and writing them", lambda: fill(opened, entries))
    with opened.begin() as session:
        checkpoints.make(session, signing.current(home / "signing", "audit", "bench", clock.now()), clock.now())
    with opened() as session:
        verdict = _timed("verifying all of them", lambda: verify(session, home / "none", home))
        assert (verdict.broken, verdict.chains) == ([], {"orthanc-bench": entries})
        patient = f"P{entries // 1000}"
        _timed("who has seen one patient", lambda: audit_search.who_saw(session, patient))
        for wanted in (Wanted(patient=patient), Wanted(who="person7"), Wanted(failed=True), Wanted()):
            query = audit_search.query(session, wanted).limit(100)
            _timed(f"search {wanted.said or 'for anything'}", lambda query=query: session.scalars(query).all())
        source = Source("Bench", "bench")
        lot = _timed("making a lot for the collector", lambda: shipping.next_lot(session, "none", source))
        octets = sum(map(len, lot.messages)) // len(lot.messages)
        print(f"  a lot has {len(lot.messages):,} messages of {octets:,} octets on average", flush=True)
    engine.dispose()
