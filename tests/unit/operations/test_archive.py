"""What Orthanc is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations import archive


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    (tmp_path / "aarch64-linux-gnu").mkdir()
    (tmp_path / "aarch64-linux-gnu" / "libjemalloc.so.2").touch()
    return tmp_path


def test_orthanc_has_the_installed_allocator(libraries: Path) -> None:
    given = archive.allocator({}, libraries)

    assert given["LD_PRELOAD"] == str(libraries / "aarch64-linux-gnu" / "libjemalloc.so.2")
    assert given["MALLOC_CONF"] == "background_thread:true"


def test_what_a_site_preloads_and_sets_itself_stays(libraries: Path) -> None:
    assert archive.allocator({"LD_PRELOAD": "/opt/mine.so"}, libraries) == {}
    assert archive.allocator({"MALLOC_CONF": "stats_print:true"}, libraries)["MALLOC_CONF"] == "stats_print:true"


def test_without_it_orthanc_runs_and_the_log_says_what_to_install(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert archive.allocator({}, tmp_path) == {}
    assert "apt-get install libjemalloc2" in caplog.text
