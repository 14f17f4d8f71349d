"""What this machine's Orthanc gives is what the manual says, what the status tells and what it negotiates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.integration.archive_fixture import Archive
from tests.integration.test_conformance import (
    CLASSES,
    CT,
    IMPLICIT,
    JPEG_2000,
    PRIVATE,
    SYNTAXES,
    accepted,
    tables,
)
from tests.versions import seen


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("archive")).start()
    yield running
    running.leave()


def test_what_this_version_gives_is_what_the_manual_says_of_it(archive: Archive, tmp_path: Path) -> None:
    found = seen.look(archive, tmp_path)
    said = seen.documented_column(found[""])
    assert said, f"docs/conformance.md has no column for Orthanc {found['']}; `make test-versions` prints the table"
    assert found == said


def test_this_version_negotiates_what_the_manual_says(archive: Archive) -> None:
    services, plain, storage, all_syntaxes = tables("4242")
    port = archive.environment.ports.dicom
    classes = CLASSES | services | storage | {PRIVATE}
    in_plain = {uid for uid, _ in accepted(port, set(product(classes, {IMPLICIT})))}
    compressed = {uid for uid, _ in accepted(port, set(product(classes, {JPEG_2000})))}
    assert in_plain - compressed == services, "what is no storage is a service that is written down"
    assert storage | {PRIVATE} <= compressed
    some = {CT, PRIVATE, *services}
    pairs = accepted(port, set(product(some, SYNTAXES)))
    assert {uid: {syntax for one, syntax in pairs if one == uid} for uid in services} == dict.fromkeys(services, plain)
    for uid in (CT, PRIVATE):
        assert all_syntaxes <= {syntax for one, syntax in pairs if one == uid}
