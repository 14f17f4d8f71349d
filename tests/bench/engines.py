"""SQLite against PostgreSQL, and one Orthanc against two on one PostgreSQL: the same instances into each, in turn."""

from __future__ import annotations

from demo.neighbours import free_port
from tests.bench import ingest
from tests.running import a_hospital, a_hospital_on_postgresql

#: PostgreSQL is the slower one by far, and the ratios lie close together.
ROUNDS = 3


def measure() -> None:
    """Print the tables. The clusters have fsync on; index and central database lie in one each."""
    two = (free_port(), free_port()), (free_port(), free_port())
    nodes = ",".join(f"{name}={http}/{dicom}" for name, (http, dicom) in zip(("one", "two"), two, strict=True))
    with (
        a_hospital(quiet_seconds=ingest.NEVER) as sqlite,
        a_hospital_on_postgresql(ingest.NEVER, {"ZAMBEZI_NODES": nodes}) as on,
    ):

        def settle() -> None:
            ingest.settled(sqlite)
            ingest.settled(on.hospital)

        first = ingest.Archive((on.hospital.environment.ports.dicom,))
        print(f"engines, {ROUNDS} interleaved rounds each, Orthanc {sqlite.orthanc().system()['Version']}")
        for edge in ingest.SIZES:
            for senders in ingest.SENDERS:
                others = {"SQLite": ingest.Archive((sqlite.environment.ports.dicom,))}
                ingest.measure(edge, senders, first, others, settle, "PostgreSQL", ROUNDS)
        for edge in ingest.SIZES:
            both = ingest.Archive(tuple(dicom for _, dicom in two))
            ingest.measure(edge, 4, both, {"one node": first}, settle, "two nodes", ROUNDS)
