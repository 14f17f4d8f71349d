from __future__ import annotations

from pathlib import Path

from plugins import viewer_cache
from plugins.viewer_cache import ViewerCache

UUID = "0a1b2c3d-0000-4000-8000-00000000000"


def test_cached_files_go_and_nothing_else_does(tmp_path: Path) -> None:
    kept = [tmp_path / "cache.db", tmp_path / "cache.db-wal", tmp_path / "0a" / "1b" / "README", tmp_path / f"{UUID}9"]
    cached = [tmp_path / "0a" / "1b" / f"{UUID}{n}" for n in range(3)]
    for file in (*kept, *cached):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Conceição")
    assert viewer_cache.empty(tmp_path) == 3
    assert [file for file in (*kept, *cached) if file.exists()] == kept
    assert viewer_cache.empty(tmp_path / "not" / "there") == 0


def test_a_cache_path_that_holds_the_archives_files_is_never_emptied(tmp_path: Path) -> None:
    storage = tmp_path / "orthanc" / "storage"
    image = storage / "0a" / "1b" / f"{UUID}0"
    image.parent.mkdir(parents=True)
    image.write_text("DICM")
    for folder in (storage, storage.parent):
        cache = ViewerCache(str(folder), storage)
        cache.start()
        cache.deleted()
        cache.stop()
    assert image.exists()
