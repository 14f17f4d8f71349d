"""What a digest costs: `python -m tests.bench.digests`, processor milliseconds an instance, for docs/decisions/0009."""

from __future__ import annotations

import time
import timeit

from tests.bench import instances
from zambezi import digest, digests

ROUNDS, TIMES = 7, 200
KINDS = {"raw (SHA-256)": digests.raw, "Orthanc's MD5": digests.orthanc_md5, "canonical": digest.fingerprint}


def main() -> None:
    """The best of several rounds, in processor time, so that other programs count little."""
    for edge in (128, 512):
        content = instances.template(edge)
        for kind, take in KINDS.items():
            rounds = timeit.repeat(lambda: take(content), repeat=ROUNDS, number=TIMES, timer=time.process_time)  # noqa: B023
            print(f"{len(content):>8} bytes  {kind:<14} {min(rounds) / TIMES * 1000:.2f} ms")


if __name__ == "__main__":
    main()
