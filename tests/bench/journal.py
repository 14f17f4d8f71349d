"""A journal of ten million entries: appending and following cost the same at its end as at its start.

Studies of five hundred images are recorded as the plugin records them (its recorder, its completeness clock, one
commit of 500 at a time, `synchronous=FULL`), and followed as the gateway follows them (sealed entries behind a cursor
into the central table, with their effects). A smaller one by `python -m tests.bench.journal ENTRIES`; in several
sittings by `python -m tests.bench.journal ENTRIES FOLDER`, which keeps the folder and goes on in it. What an arrival is
looked up by is measured beside it.
"""

from __future__ import annotations

import hashlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from gateway.journal import BATCH, Follower
from plugins.arrivals import Arrivals
from plugins.completeness import Completeness
from plugins.facts import Change, Instance
from plugins.journal import Journal
from plugins.pushed import Announced
from plugins.recorder import Recorder
from plugins.rules import Rules
from tests.integration.archive_fixture import image, written
from zambezi import clock, orthanc_ids
from zambezi.config import Configuration, Zambezi
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base
from zambezi.orthanc_client import OrthancClient

ENTRIES = 10_000_000
#: Images of a study; their entries, and two for the study itself, make a commit.
EACH = BATCH - 2
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
#: The parts of the whole that are told apart, and how many commits at the end of each are measured.
_PARTS, _LAST = 10, 200
_LOOKS = 400


class _Fixed(Rules):
    """Rules that no folder is needed for."""

    def __init__(self) -> None:
        self.now = Configuration({}, Zambezi(), "c0ffee")


class _Plugin:
    """`/zambezi/journal` and `/zambezi/status` without Orthanc's HTTP, whose cost has nothing to do with the size."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/zambezi/status"
        return {"journal": self._journal.name}

    def request(self, _method: str, _path: str, params: dict[str, Any], timeout_s: float) -> _Answer:
        del timeout_s
        entries = self._journal.entries_after(params["since"], params["hash"], params["limit"])
        told = [{"seq": one.seq, "hash": one.hash, "payload": one.payload.decode()} for one in entries]
        return _Answer({"journal": self._journal.name, "head": self._journal.head[0], "entries": told})


@dataclass(frozen=True)
class _Answer:
    body: dict[str, Any]

    def json(self) -> dict[str, Any]:
        return self.body


@dataclass
class _Taken:
    """Seconds of the last commits of a part."""

    appending: list[float] = field(default_factory=list)
    following: list[float] = field(default_factory=list)


def main(entries: int = ENTRIES, kept: str = "") -> None:
    """Fill it, and print what each tenth cost at its end; `kept` is a folder where an earlier run goes on."""
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        journal = Journal(folder / "journal.db")
        rules = _Fixed()
        recorder = Recorder(journal, rules)
        completeness = Completeness(journal, rules, dict, Announced)
        arrivals = Arrivals(journal, folder / "hold", Announced)
        arrivals.caught_up()
        engine = connect(f"sqlite:///{folder}/zambezi.db", "bench")
        Base.metadata.create_all(engine)
        follower = Follower(sessions(engine, "bench"), Zambezi(), cast("OrthancClient", _Plugin(journal)))
        commits = max(_PARTS, entries // BATCH)
        print(f"journal of {commits * BATCH:,} entries, {BATCH} in a commit; medians of the last {_LAST} of each part")
        taken, begun = _Taken(), time.perf_counter()
        done = (journal.head[0] + 1) // BATCH  # of the first study one entry comes with the second
        for number in range(done + 1, commits + 1):
            _step(recorder, completeness, journal, follower, number, taken)
            if number % (commits // _PARTS) == 0:
                append, follow = (statistics.median(one[-_LAST:]) / BATCH for one in (taken.appending, taken.following))
                size = sum(file.stat().st_size for file in folder.glob("*.db")) / 1e9
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(
                    f"  {number * BATCH:>11,}: append {append * 1e6:5.1f} us an entry, follow {follow * 1e6:5.1f} us,"
                    f" look at an arrival {_look(arrivals) * 1e6:4.0f} us; {size:5.1f} GB, memory {memory:.0f} MB,"
                    f" after {time.perf_counter() - begun:.0f} s",
                    flush=True,
                )
                taken = _Taken()
        engine.dispose()
        journal.close()


def _step(
    recorder: Recorder, completeness: Completeness, journal: Journal, follower: Follower, number: int, taken: _Taken
) -> None:
    """One study comes, the one before is complete, and the gateway takes it all over."""
    now = _BEGUN + timedelta(minutes=5 * number)
    came = list(_study(number, now))
    rows = [Change("i", number * BATCH + n, one.orthanc_id, clock.text(now)) for n, one in enumerate(came)]
    began = time.perf_counter()
    fresh = {row.orthanc_id for row in recorder.unknown(rows)}
    with journal.transaction() as transaction:
        found = {one.orthanc_id: one for one in came if one.orthanc_id in fresh}
        recorder.record(transaction, rows, found, now, lambda _: _facts(number))
        recorder.record_seen(transaction, came)
        recorder.set_cursor(transaction, rows[-1])
        completeness.decide_due(transaction, now)
    taken.appending.append(time.perf_counter() - began)
    began = time.perf_counter()
    while follower.follow(0):
        pass
    taken.following.append(time.perf_counter() - began)


def _study(number: int, now: datetime) -> Iterator[Instance]:
    study = f"1.2.826.0.1.3680043.8.498.{number}"
    patient = f"P{number // 4}"
    study_id = orthanc_ids.study(patient, study)
    for n in range(EACH):
        series, sop = f"{study}.{n // 100}", f"{study}.{n // 100}.{n}"
        yield Instance(
            orthanc_id=orthanc_ids.instance(patient, study, series, sop),
            series_orthanc_id=orthanc_ids.series(patient, study, series), study_orthanc_id=study_id, study_uid=study,
            series_uid=series, sop_uid=sop, modality="CT", patient_id=patient,
            sop_class="1.2.840.10008.5.1.4.1.1.2", transfer_syntax="1.2.840.10008.1.2.1", remote_aet="CT1",
            remote_ip="10.1.0.21", called_aet="ZAMBEZI", origin="DicomProtocol", http_user="",
            received_at=clock.text(now), size=525312, cause="modality", reference="",
            sha256=hashlib.sha256(sop.encode()).hexdigest(),
        )  # fmt: skip


def _facts(number: int) -> dict[str, Any]:
    """What `study-began` tells."""
    study, patient = f"1.2.826.0.1.3680043.8.498.{number}", f"P{number // 4}"
    return {
        "study_uid": study, "study_orthanc_id": orthanc_ids.study(patient, study), "patient_id": patient,
        "issuer": "", "patient_name": "Banda^Rudo", "birth_date": "19700101", "sex": "F",
        "accession_number": f"A{number}", "study_date": "20260101", "study_time": "080000", "description": "CT",
    }  # fmt: skip


def _look(arrivals: Arrivals) -> float:
    """Seconds, the median: 32 KB that nobody knows, asked for among all that are recorded."""
    files = [written(image(PixelData=bytes(32 * 1024))) for _ in range(20)]
    taken = []
    for n in range(_LOOKS):
        began = time.perf_counter()
        arrivals.look(files[n % len(files)], True, _BEGUN)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ENTRIES, *sys.argv[2:3])
