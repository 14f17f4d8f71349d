"""A plan's file: JSON, with the CSV files of its maps; read and checked, with every fault named. No database."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zambezi.config.load import ConfigurationFaults, Fault, typed_faults
from zambezi.config.settings.migration_plan import MigrationPlan

#: Bytes of a plan's file or of one that it names, and pairs in one of these.
LARGEST, MOST_PAIRS = 64 * 2**20, 500_000


def read(file: Path) -> dict[str, Any]:
    """The plan's document, with the files of its maps read into it; ConfigurationFaults where it can't be one."""
    if file.stat().st_size > LARGEST:
        raise ConfigurationFaults([Fault(file.name, "Plan", f"is larger than {LARGEST >> 20} MB")])
    document = parsed(file.read_bytes(), file.name)
    faults: list[Fault] = []
    for number, rule in enumerate(document.get("Rules", [])):
        named = rule.pop("MapFile", {}) if isinstance(rule, dict) else {}
        for keyword, name in named.items() if isinstance(named, dict) else ():
            try:
                pairs = _pairs(file.parent / str(name))
            except (OSError, ValueError, csv.Error) as error:
                faults.append(Fault(file.name, f"Plan.Rules[{number}].MapFile.{keyword}", f"{name}: {error}"))
                continue
            rule.setdefault("Map", {}).setdefault(keyword, {}).update(pairs)
    if faults:
        raise ConfigurationFaults(faults)
    checked(document, file.name)
    return document


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """The document as it was written, not checked yet."""
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigurationFaults([Fault(name, "Plan", f"is no JSON: {error}")]) from error
    if not isinstance(document, dict):
        raise ConfigurationFaults([Fault(name, "Plan", "found no object; a plan is one {...}")])
    return document


def checked(document: Mapping[str, Any], name: str = "plan") -> MigrationPlan:
    """The plan; ConfigurationFaults with each fault's JSON path, what was found and what is allowed."""
    try:
        plan = MigrationPlan.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise ConfigurationFaults(
            [fault for one in error.errors() for fault in typed_faults(name, dict(one), "Plan")]
        ) from error
    if any(rule.map_file for rule in plan.rules):
        what = "files can't be read from here; give the plan to `zambezi migrate plan`, or use Map"
        raise ConfigurationFaults([Fault(name, "Plan.Rules.MapFile", what)])
    return plan


def _pairs(file: Path) -> dict[str, str]:
    if file.stat().st_size > LARGEST:
        raise ValueError(f"is larger than {LARGEST >> 20} MB")
    text = file.read_text(encoding="utf-8-sig")
    first = text.splitlines()[0] if text else ""
    rows = csv.reader(text.splitlines(), delimiter=";" if first.count(";") > first.count(",") else ",")
    pairs: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        if len(row) < 2:
            raise ValueError(f"line {number} has one column; wanted are two: old value, new value")
        old, new = row[0].strip(), row[1].strip()
        if pairs.setdefault(old, new) != new:
            raise ValueError(f"line {number} maps a value that an earlier line maps to something else")
        if len(pairs) > MOST_PAIRS:
            raise ValueError(f"has more than {MOST_PAIRS} lines")
    return pairs
