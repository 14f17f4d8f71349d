"""What this machine's Orthanc gives is what the manual says and what the status tells."""

from __future__ import annotations

from pathlib import Path

from tests.integration.archive_fixture import Archive
from tests.versions import seen


def test_what_this_version_gives_is_what_the_manual_says_of_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive").start()
    found = seen.look(archive, tmp_path)
    said = seen.documented_column(found[""])
    assert said, f"docs/conformance.md has no column for Orthanc {found['']}; `make test-versions` prints the table"
    assert found == said
    archive.leave()
