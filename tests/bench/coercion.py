"""What coercion costs every sender while Orthanc waits: `python -m tests.bench.coercion`.

A CT slice of 512 KB and one of 32 KB: the header with and without the values that a hundred rules ask for, a hundred
rules that none of the images meets, one that all meet; beside it the same by a correction, which proves what it did.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO

from pydicom import dcmread
from pydicom.data import get_testdata_file

from plugins import header
from tests.unit.coercion.images import rules
from zambezi import clock, rewriting
from zambezi.coercion.coercing import coerce
from zambezi.coercion.orders import Orders
from zambezi.coercion.rules import Image, Rules

TIMES = 500
_SITE = {"Fill": {"IssuerOfPatientID": "CN"}, "Prefix": {"PatientID": "CN-", "AccessionNumber": "CN"}}


def main() -> None:
    """Print the microseconds of the best, the middle and the slowest hundredth."""
    asked = ({"InstitutionName": {"Pattern": f"Clinic {n}*"}, "Modality": ["CR", "DX"]} for n in range(100))
    hundred = rules(*({"When": one, **_SITE} for one in asked))
    for edge in (512, 128):
        _of_size(_slice(edge), hundred, rules({"When": {"Modality": "CT"}, **_SITE}))


def _of_size(content: bytes, hundred: Rules, one: Rules) -> None:
    read = header.read(content, hundred.tags)
    assert not hundred.matching(Image(read.also))
    print(f"{len(content) >> 10} KB")
    _print("header", partial(header.read, content))
    _print("header, and what 100 rules ask for", partial(header.read, content, hundred.tags))
    _print("100 rules, none met, decided before", lambda: hundred.matching(Image(read.also)))

    def anew() -> None:
        image = Image(read.also)
        for rule in hundred.all:
            rule.mismatch(image)

    _print("100 rules, none met, decided anew", anew)
    _print("one rule carried out", lambda: coerce(content, one.all, Orders(), clock.now()))
    stamp = rewriting.Stamp(clock.now(), "bench", "CORRECT")
    _print("a correction", lambda: rewriting.rewrite(content, {"00100020": "P7", "00080050": "A77"}, stamp))


def _slice(edge: int) -> bytes:
    made = dcmread(get_testdata_file("CT_small.dcm"))
    made.Rows = made.Columns = edge
    made.PixelData = bytes(edge * edge * 2)
    out = BytesIO()
    made.save_as(out)
    return out.getvalue()


def _print(what: str, act: Callable[[], object]) -> None:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1e6)
    taken.sort()
    slow = taken[TIMES * 99 // 100]
    print(f"  {what}: best {taken[0]:.0f}, middle {statistics.median(taken):.0f}, 99 of 100 below {slow:.0f} us")


if __name__ == "__main__":
    main()
