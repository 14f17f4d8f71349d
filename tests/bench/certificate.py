"""Issuing and verifying a certificate of many instances: `python -m tests.bench.certificate [INSTANCES]`.

A ledger on SQLite with studies of a hundred instances; prints seconds, megabytes of the file and of memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from migration import certificate, verifier
from zambezi import clock, signing
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base, MigrationInstance, MigrationProject, MigrationStudy

OF_STUDY = 100


def main(count: int = 100_000) -> None:
    """Print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        opened = _ledger(Path(folder), count)
        signer = signing.current(Path(folder) / "signing", "certificate", "bench", clock.now())
        before, began = _memory(), time.process_time()
        number = certificate.issue(opened, 1, signer, {}, "bench", clock.now())
        print(f"issued: {count} instances in {time.process_time() - began:.1f} s of processor")
        file = Path(folder) / "certificate.jsonl"
        with file.open("wb") as out:
            out.writelines(certificate.lines(opened, number))
        began = time.process_time()
        with file.open("rb") as content:
            found = verifier.examine(content)
        assert not found.faults, found.faults
        print(f"verified: {time.process_time() - began:.1f} s, {file.stat().st_size / 1e6:.0f} MB")
        print(f"memory: {before} MB before, {_memory()} MB at the most since")


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _ledger(folder: Path, count: int) -> Sessions:
    engine, at = connect(f"sqlite:///{folder}/ledger.db", "bench"), clock.text(clock.now())
    Base.metadata.create_all(engine)
    opened = sessions(engine, "bench")
    with opened.begin() as session:
        session.add(MigrationProject(name="bench", source="OLD", state="finished", created_at=at, updated_at=at))
    for first in range(0, count // OF_STUDY, 100):
        numbers = range(first + 1, min(first + 100, count // OF_STUDY) + 1)
        studies = [
            {"id": n, "project_id": 1, "study_uid": f"1.2.826.0.1.3680043.8.498.{n:028}", "study_date": "20200101",
             "modalities": "CT", "state": "verified", "verified_at": at, "next_at": at, "level": 3}
            for n in numbers
        ]  # fmt: skip
        instances = [
            {"study_id": n, "sop_uid": f"1.2.826.0.1.3680043.8.498.{n:020}.{i:08}", "series_uid": f"1.2.3.{n}",
             "verdict": "equal", "level": 3, "size": 526000 + i, "stored_syntax": "1.2.840.10008.1.2.1",
             "arrived_sha256": f"{n * i:064x}", "stored_md5": f"{n + i:032x}", "source_digest": f"{n * i + 1:064x}",
             "stored_digest": f"{n * i + 1:064x}"}
            for n in numbers for i in range(OF_STUDY)
        ]  # fmt: skip
        with opened.begin() as session:
            session.execute(insert(MigrationStudy), studies)
            session.execute(insert(MigrationInstance), instances)
    return opened


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
