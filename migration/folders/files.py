"""The bytes of what an index lists, as long as they are the ones that were indexed. Any thread."""

from __future__ import annotations

from pathlib import Path

from migration.folders import places, reading
from migration.folders.archives import Shelf
from migration.folders.reading import Changed
from zambezi.database.tables import FolderFile


class Files:
    """One source's folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shelf = Shelf(root)

    def read(self, row: FolderFile) -> bytes:
        """All bytes; Changed (the file isn't as it was indexed), archives.Refused, OSError."""
        place = places.read(row.place)
        if len(place) == 1:
            return reading.bytes_of(self._root, place, row.size, row.changed)
        if not self.is_as_it_was(row):
            raise Changed("the archive in which it lies has changed since the inventory")
        return self._shelf.read(place)

    def is_as_it_was(self, row: FolderFile) -> bool:
        """Whether the file, or the archive in which it lies, is as it was indexed; OSError where it is not there."""
        place = places.read(row.place)
        found = (self._root / place[0]).lstat()
        return found.st_mtime_ns == row.changed and (len(place) > 1 or found.st_size == row.size)

    def close(self) -> None:
        """Let go of the archive that is open."""
        self._shelf.close()
