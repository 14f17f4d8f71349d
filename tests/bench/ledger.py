"""The ledger of a migration of ten million instances: claim, sweep and status cost the same at the end as at its start.

Half a million studies of twenty instances each, on SQLite and on PostgreSQL; a smaller one by
`python -m tests.bench.ledger STUDIES`. Measured with nothing done, with half of it, and with all but a thousand done.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, text, update
from sqlalchemy.orm import Session

from migration import ledger, progress
from migration.progress import picture
from tests import postgres
from zambezi import clock
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base, MigrationInstance, MigrationProject, MigrationStudy

STUDIES = 500_000
EACH = 20
_BATCH = 5_000
_TIMES = 15
_LEFT = 1000
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
_KINDS = ("CT", "MR", "CR", "US", "DX", "MG")


def fill(opened: Sessions, studies: int) -> None:
    """Twenty years of studies, none of them moved yet."""
    with opened.begin() as session:
        at = clock.text(NOW)
        session.add(MigrationProject(id=1, name="p", source="L", state="running", created_at=at, updated_at=at))
    for first in range(1, studies + 1, _BATCH):
        ids = range(first, min(first + _BATCH, studies + 1))
        with opened.begin() as session:
            session.execute(insert(MigrationStudy), [_study(n) for n in ids])
            session.execute(
                insert(MigrationInstance),
                [{"study_id": n, "sop_uid": f"1.2.826.0.1.{n}.{i}", "series_uid": f"1.2.826.0.1.{n}",
                  "verdict": "expected"} for n in ids for i in range(EACH)],
            )  # fmt: skip


def _study(n: int) -> dict[str, object]:
    day = NOW - timedelta(days=n % 7300)
    return {
        "id": n, "project_id": 1, "study_uid": f"1.2.826.0.1.{n}", "patient_id": f"P{n // 4}",
        "study_date": f"{day:%Y%m%d}", "modalities": _KINDS[n % len(_KINDS)], "expected": EACH, "state": "ready",
        "next_at": clock.text(NOW), "facts": {},
    }  # fmt: skip


def done(opened: Sessions, until: int) -> None:
    """Every study up to this id is verified."""
    for first in range(1, until + 1, 1_000):
        ids = MigrationStudy.id.between(first, min(first + 999, until))
        at = clock.text(NOW - timedelta(minutes=first // 10))
        with opened.begin() as session:
            session.execute(
                update(MigrationStudy).where(ids, MigrationStudy.state == "ready").values(
                    state="verified", verified_at=at, stored=EACH
                )
            )  # fmt: skip


def main(studies: int = STUDIES) -> None:
    """Both engines in turn."""
    with tempfile.TemporaryDirectory() as folder:
        _measure("SQLite", f"sqlite:///{folder}/z.db", studies)
    found = postgres.programs()
    if found is not None:
        with postgres.a_cluster(found) as cluster, cluster.a_database() as url:
            _measure("PostgreSQL", url, studies)


def _measure(name: str, url: str, studies: int) -> None:
    print(f"{name}, {studies:,} studies of {EACH} instances:", flush=True)
    engine = connect(url, "bench")
    Base.metadata.create_all(engine)
    opened = sessions(engine, "bench")
    fill(opened, studies)
    for words, until in (("none done", 0), ("half done", studies // 2), ("all but 1,000 done", studies - _LEFT)):
        done(opened, until)
        with opened.begin() as session:
            session.execute(text("ANALYZE"))
        costs = {
            "claim and end": _cost(opened, _claim), "sweep": _cost(opened, _sweep), "status": _cost(opened, _status),
            "page's picture": _cost(opened, lambda session: picture(session, 1)),
        }  # fmt: skip
        figures = ", ".join(f"{what} {cost * 1000:.1f} ms" for what, cost in costs.items())
        print(f"  {words}: {figures}; memory {_megabytes():.0f} MB", flush=True)
    engine.dispose()


def _cost(opened: Sessions, work: Callable[[Session], object]) -> float:
    """Seconds it takes, the median."""
    taken = []
    for _ in range(_TIMES):
        begun = time.perf_counter()
        with opened.begin() as session:
            work(session)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _claim(session: Session) -> None:
    project = session.get_one(MigrationProject, 1)
    held = ledger.claim(session, project, now=NOW, owner="bench", ceiling=4)
    assert held is not None
    ledger.finish(session, held, "ready", "", NOW, counts=False)


def _sweep(session: Session) -> None:
    assert ledger.is_due(session, 1, NOW)
    assert ledger.is_under_way(session, 1)


def _status(session: Session) -> None:
    progress.of(session, session.get_one(MigrationProject, 1), NOW)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else STUDIES)
