"""The web viewer's cache: what shows something that is gone goes, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from plugins.viewer_cache import ViewerCache
from zambezi import viewer_cache

UUID = "0a1b2c3d-0000-4000-8000-00000000000"
SERIES, FIRST, SECOND = ("-".join([digit * 8] * 5) for digit in "abc")


def cached(folder: Path, n: int) -> Path:
    file = folder / "0a" / "1b" / f"{UUID}{n}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("Conceição")
    return file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A list as the viewer makes it, with three files, and others beside them."""
    folder = tmp_path / "viewer-cache"
    items = [(3, SERIES), (1, f"jpeg95-{FIRST}_0"), (1, f"deflate-{SECOND}_12")]
    for n, _ in enumerate(items):
        cached(folder, n)
    with closing(sqlite3.connect(folder / "cache.db")) as database:
        database.execute(
            "CREATE TABLE Cache(seq INTEGER PRIMARY KEY, bundle INT, item TEXT, fileUuid TEXT, fileSize INT)"
        )
        database.executemany(
            "INSERT INTO Cache VALUES (NULL, ?, ?, ?, 9)", [(*item, f"{UUID}{n}") for n, item in enumerate(items)]
        )
        database.commit()
    (folder / "0a" / "1b" / "README").write_text("kept")
    return folder


def test_what_shows_a_deleted_instance_or_series_goes_and_the_rest_stays(cache: Path, tmp_path: Path) -> None:
    there = {FIRST}
    found = ViewerCache(str(cache), tmp_path / "storage", lambda asked: there.intersection(asked))
    assert found.forget() == 2
    assert sorted(file.name for file in cache.glob("??/??/*")) == [f"{UUID}1", "README"]
    assert found.forget() == 0


def test_a_list_that_is_not_there_or_not_readable_takes_nothing_away(cache: Path, tmp_path: Path) -> None:
    nobody = ViewerCache(str(tmp_path / "no"), tmp_path / "storage", lambda asked: asked)
    assert nobody.forget() == 0
    (cache / "cache.db").write_text("half a list" * 100)
    with pytest.raises(sqlite3.Error):
        viewer_cache.listed(cache)
    assert len(list(cache.glob("??/??/*"))) == 4
    assert [one.name for one in cache.iterdir() if one.name != "cache.db"] == ["0a"]


def test_before_a_start_everything_goes_but_what_is_not_the_viewers(cache: Path) -> None:
    assert viewer_cache.clear(cache) == 3
    assert [file.name for file in cache.rglob("*") if file.is_file()] == ["README"]


def test_a_cache_path_that_holds_the_archives_files_is_never_touched(tmp_path: Path) -> None:
    storage = tmp_path / "orthanc" / "storage"
    image = cached(storage, 0)
    for folder in (storage, storage.parent):
        assert not viewer_cache.is_apart(folder, storage)
        assert ViewerCache(str(folder), storage, lambda asked: []).forget() == 0
    assert viewer_cache.is_apart(storage / "WebViewerCache", storage)
    assert image.exists()


def test_pictures_have_another_name_after_each_deletion_that_somebody_may_have_seen_the_old_one_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.viewer_cache.GENERATIONS", 3)
    cache = ViewerCache(str(tmp_path / "cache"), tmp_path / "storage", lambda asked: asked)
    cache.deleted()
    seen = [cache.generation, cache.generation]
    for _ in range(4):
        cache.deleted()
        cache.deleted()  # nobody has looked in between
        seen.append(cache.generation)
    assert seen == [0, 0, 1, 2, 0, 1]
