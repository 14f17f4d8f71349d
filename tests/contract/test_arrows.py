"""The arrows between the rooms (docs/architecture.md): who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from zambezi.environment import REPOSITORY

ROOMS = ("plugins", "ris_service", "gateway", "migration", "operations")

#: Inside Orthanc only the standard library is at hand without cost, and pydicom where bytes are changed. pydantic comes
#: with zambezi.config (docs/decisions/0001).
INSIDE_ORTHANC_MAY_NOT_IMPORT = {"flask", "sqlalchemy", "requests", "apscheduler", "pynetdicom", "hl7", "hl7apy"}


def imports_of(room: str) -> Iterator[tuple[Path, str]]:
    """(file, module that it imports) for every import statement in a room, wherever in a file it stands."""
    for file in sorted((REPOSITORY / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file.relative_to(REPOSITORY), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: imports are absolute here"
                yield file.relative_to(REPOSITORY), node.module or ""


def top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_zambezi_and_no_other_room(room: str):
    others = set(ROOMS) - {room}
    assert [f"{file}: {module}" for file, module in imports_of(room) if top(module) in others] == []


def test_zambezi_imports_no_room_and_no_framework():
    refused = {*ROOMS, "orthanc", "flask", "apscheduler", "demo", "tests"}
    assert [f"{file}: {module}" for file, module in imports_of("zambezi") if top(module) in refused] == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_the_demo_or_the_tests(room: str):
    assert [f"{file}: {module}" for file, module in imports_of(room) if top(module) in ("demo", "tests")] == []


def test_only_the_entry_script_imports_orthanc():
    found = {str(file) for room in ("zambezi", *ROOMS) for file, module in imports_of(room) if top(module) == "orthanc"}
    assert found == {"plugins/zambezi_plugin.py"}


def test_inside_orthanc_nothing_heavy_is_imported():
    wrong = [
        f"{file}: {module}"
        for file, module in imports_of("plugins")
        if top(module).lower() in INSIDE_ORTHANC_MAY_NOT_IMPORT
    ]
    assert wrong == []
