"""`make bench`, or `make bench ARGS="ingest memory"` for some of it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import (
    engines,
    ingest,
    ingest_rules,
    journal,
    ledger,
    memory,
    migration,
    routing,
    starts,
    trail,
    viewing,
)
from tests.running import a_hospital


def _sizes() -> None:
    with a_hospital(quiet_seconds=ingest.NEVER) as hospital:
        memory.measure(hospital)
        starts.measure(hospital)


PARTS = {
    "ingest": ingest.main, "rules": ingest_rules.main, "memory": _sizes, "engines": engines.measure,
    "routing": routing.measure, "audit": trail.main, "journal": journal.main, "viewing": viewing.main,
    "ledger": ledger.main, "migration": migration.main,
}  # fmt: skip

if __name__ == "__main__":
    if not Path("/usr/sbin/Orthanc").exists():
        sys.exit("Orthanc is not installed; `make install` as root installs it")
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in wanted if part not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for part in wanted:
        PARTS[part]()
