"""What would come of sample rows: each field's raw value and result, and what is in each column. Nothing is taken."""

from __future__ import annotations

from collections import Counter
from typing import Any

from migration.records import evaluating
from migration.records.importing import Job
from migration.records.reading import Source
from migration.records.rows import Raw

#: A column with so few different values may be a code that Values has to name.
FEW = 12
#: How far faulty rows are looked for beyond the first ones.
LOOKED_AT = 5000


def preview(job: Job, rows: int) -> dict[str, Any]:
    """For each section: the first rows, as many faulty ones after them, and what was seen of its files."""
    return {source.kind: _of(job, source, rows) for source in job.sources}


def probe(source: Source) -> dict[str, Any]:
    """All of a source read once: its columns with how full they are, their few values, their longest; odd rows."""
    full: Counter[str] = Counter()
    longest: Counter[str] = Counter()
    values: dict[str, Counter[str] | None] = {}
    odd: list[dict[str, str]] = []
    total = 0
    for raw in source.rows():
        total += 1
        if raw.fault:
            odd.append({"place": raw.place, "fault": raw.fault}) if len(odd) < 20 else None
            continue
        for name, value in raw.values.items():
            seen = values.setdefault(name, Counter())
            if not value:
                continue
            full[name] += 1
            longest[name] = max(longest[name], len(value))
            if seen is not None:
                seen[value if isinstance(value, str) else f"{len(value)} bytes"] += 1
                if len(seen) > FEW:
                    values[name] = None
    columns = {
        name: {
            "filled": full[name], "longest": longest[name],
            # A few values in many rows are codes; a few in a few rows may be anybody's name.
            "values": dict(seen.most_common()) if seen and full[name] >= 4 * len(seen) else None,
        }
        for name, seen in values.items()
    }  # fmt: skip
    return {"kind": source.kind, "rows": total, "columns": columns, "odd": odd, **source.facts}


def _of(job: Job, source: Source, rows: int) -> dict[str, Any]:
    first: list[dict[str, Any]] = []
    faulty: list[dict[str, Any]] = []
    for number, raw in enumerate(source.checked_rows(), 1):
        if number > LOOKED_AT or (len(first) >= rows and len(faulty) >= rows):
            break
        found = evaluating.meant(source.kind, source.records, raw, job.zone, job.now())
        if len(first) < rows:
            first.append(_shown(raw, found))
        elif found.faults and len(faulty) < rows:
            faulty.append(_shown(raw, found))
    return {"first": first, "faulty": faulty, "facts": source.facts}


def _shown(raw: Raw, found: evaluating.Meant) -> dict[str, Any]:
    fields = [
        {"name": one.name, "raw": one.raw, "value": one.value, "fault": one.fault, "is_fatal": one.is_fatal}
        for one in found.fields
    ]
    named = {one.name for one in found.fields if one.fault}
    whole = [fault for fault in found.faults if fault.partition(":")[0] not in named]
    return {"place": raw.place, "key": found.key, "fields": fields, "faults": whole, "is_taken": not found.faults}
