"""What looking at an arrival costs every sender: `python -m tests.bench.arrivals`.

An instance of 32 KB and one of 512 KB, against a journal that has a million instances, none of them known; then
the same with the digest alone, which no look can do without.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from plugins.arrivals import Arrivals
from plugins.journal import Journal
from plugins.pushed import Announced
from tests.integration.archive_fixture import image, written
from zambezi import clock

RECORDED = 1_000_000
TIMES = 2000


def main() -> None:
    """Print the microseconds of the middle and of the slowest hundredth."""
    with tempfile.TemporaryDirectory() as folder:
        journal = _journal(Path(folder) / "journal.db")
        arrivals = Arrivals(journal, Path(folder) / "hold", Announced)
        arrivals.caught_up()
        for kilobytes in (32, 512):
            files = [written(image(PixelData=bytes(kilobytes * 1024))) for _ in range(50)]
            now = clock.now()
            _print(f"{kilobytes} KB, look", files, partial(_look, arrivals, now))
            _print(f"{kilobytes} KB, digest alone", files, lambda one: hashlib.sha256(one).hexdigest())


def _journal(file: Path) -> Journal:
    journal = Journal(file)
    with journal.transaction() as transaction:
        transaction.executemany(
            "INSERT INTO instances (orthanc_id, study_orthanc_id, series_orthanc_id, study_uid, series_uid, sop_uid,"
            " modality, cause, remote_aet, called_aet, index_id, change_seq, sha256)"
            " VALUES (?, 's', 's', '1', '1', ?, 'CT', 'modality', 'CT1', 'Z', 'i', 1, 'x')",
            [(f"{n:044}", f"1.2.826.0.1.3680043.8.498.{n * 7919:038}") for n in range(RECORDED)],
        )
    return journal


def _look(arrivals: Arrivals, now: datetime, content: bytes) -> None:
    arrivals.look(content, True, now)


def _print(what: str, files: list[bytes], act: Callable[[bytes], object]) -> None:
    taken = []
    for n in range(TIMES):
        # Another file each time: the same bytes would lie in the processor's cache.
        began = time.perf_counter()
        act(files[n % len(files)])
        taken.append((time.perf_counter() - began) * 1e6)
    taken.sort()
    print(f"{what}: {statistics.median(taken):.0f} us, 99 of 100 below {taken[TIMES * 99 // 100]:.0f} us")


if __name__ == "__main__":
    main()
