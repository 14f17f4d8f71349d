"""The Orthanc web viewer's cache on disk: what lies in it, and how it is taken away. Standard library only.

The viewer keeps what it showed, names and pixels in clear, as files named by UUIDs; `cache.db` says which file is what,
by Orthanc's ids alone. It forgets a series only when an image is added to it. Its process holds the list locked, and
answers 500 where the list names a file that isn't there: files are taken away one by one only where what they show
has left the archive, and all of them, with the list, only while the viewer doesn't run.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

_LIST = "cache.db"
_FILE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: In an item of the list, such as jpeg95-ID_0: the instance, or the series, that it shows.
_SHOWN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")


def is_apart(folder: Path, storage: Path) -> bool:
    """Whether the cache's folder holds none of the archive's own files, which have such names, too."""
    return not storage.resolve().is_relative_to(folder.resolve())


def clear(folder: Path) -> int:
    """Take everything away, list and all, before the viewer starts; how many files were cached."""
    found = [file for file in folder.glob("??/??/*") if _FILE.fullmatch(file.name) and file.is_file()]
    for file in (*found, *(folder / f"{_LIST}{end}" for end in ("", "-wal", "-shm", "-journal"))):
        file.unlink(missing_ok=True)
    return len(found)


def listed(folder: Path) -> dict[str, str]:
    """File -> the Orthanc id of what it shows. sqlite3.Error where the list can't be read now.

    A copy is read, since the original is locked. Torn or late it may lack a file, but names none wrongly: a file's
    name is never given twice. (In the viewer's own process, closing it ends the viewer's POSIX locks on it: they keep
    nobody out, for no other process opens it.)
    """
    if not (folder / _LIST).exists():
        return {}
    with tempfile.TemporaryDirectory(dir=folder) as copied:
        for end in ("-wal", ""):
            if (folder / f"{_LIST}{end}").exists():
                shutil.copy(folder / f"{_LIST}{end}", copied)
        with closing(sqlite3.connect(Path(copied) / _LIST)) as database:
            rows = database.execute("SELECT fileUuid, item FROM Cache").fetchall()
    shown = {str(file): _SHOWN.search(str(item)) for file, item in rows}
    return {file: match.group() for file, match in shown.items() if match and _FILE.fullmatch(file)}


def forget(folder: Path, files: Iterable[str]) -> int:
    """Take these files away; how many were there."""
    count = 0
    for name in files:
        file = folder / name[:2] / name[2:4] / name
        if file.exists():
            file.unlink(missing_ok=True)
            count += 1
    return count
