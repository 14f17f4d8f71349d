"""The index of a source's folder: a walk reads what is new or has changed, and nothing twice.

A walk that is killed goes on where it was: what it has read is in the table, and a file that is as it was isn't read
again. What isn't met any more is gone, and stays in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from migration.folders import places, reading, walking
from migration.folders.reading import Seen
from migration.folders.walking import Entry
from zambezi import clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import FolderFile, FolderWalk

#: So many files are read at once: a share in the network answers slowly, and several at once.
READERS = 4
#: So many files, or files of so many bytes, go together, in one transaction: a death costs no more reading.
BATCH = 256
BATCH_BYTES = 256 << 20
#: What is looked at again by the next walk although it has not changed.
_AGAIN = ("unread", "changing")


@dataclass
class Progress:
    """What a walk has done so far: files met, files read, bytes read."""

    files: int = 0
    read: int = 0
    size: int = 0


class Index:
    """One source's rows."""

    def __init__(
        self, sessions: Sessions, source: str, root: Path, now: Callable[[], datetime],
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:  # fmt: skip
        self._sessions, self._source, self._root, self._now, self._tell = sessions, source, root, now, tell
        self.progress = Progress()

    def walk(self) -> int:
        """Walk through all of it, or go on with a walk that was cut off; its number. OSError where the root is away."""
        number = self._begin()
        with ThreadPoolExecutor(READERS, thread_name_prefix="folder") as readers:
            for batch in _pieces(walking.walk(self._root)):
                fresh = self._known(batch, number)
                found = readers.map(lambda entry: reading.see(self._root, entry), fresh)
                plain: list[Seen] = []
                for seen in found:
                    if seen.kind == "archive":
                        self._archive(seen, number)
                    else:
                        plain.append(seen)
                with self._sessions.begin() as session:
                    self._write(session, plain, number)
                    self._count(session, len(batch), plain)
        with self._sessions.begin() as session:
            away = (FolderFile.source == self._source, FolderFile.walk < number)
            session.execute(update(FolderFile).where(*away, FolderFile.kind != "absent").values(verdict="gone"))
            session.execute(delete(FolderFile).where(*away, FolderFile.kind == "absent"))
        return number

    def finish(self) -> None:
        """The walk is over, and all that it met is decided about."""
        at = clock.text(self._now())
        with self._sessions.begin() as session:
            mine = FolderWalk.source == self._source
            session.execute(update(FolderWalk).where(mine).values(finished_at=at, updated_at=at))

    def _begin(self) -> int:
        at = clock.text(self._now())
        with self._sessions.begin() as session:
            walk = session.get(FolderWalk, self._source)
            if walk is None:
                session.add(FolderWalk(source=self._source, number=1, started_at=at, updated_at=at))
                return 1
            if walk.finished_at is not None:
                walk.number += 1
                walk.started_at, walk.finished_at = at, None
            walk.updated_at, walk.files, walk.read, walk.size = at, 0, 0, 0
            return walk.number

    def _known(self, batch: list[Entry], number: int) -> list[Entry]:
        """Those that must be read; the others are marked as met by this walk."""
        by_key = {places.key(places.written((entry.path,))): entry for entry in batch}
        columns = (
            FolderFile.id,
            FolderFile.key,
            FolderFile.size,
            FolderFile.changed,
            FolderFile.kind,
            FolderFile.verdict,
            FolderFile.medium,
        )
        with self._sessions.begin() as session:
            rows = session.execute(
                select(*columns).where(FolderFile.source == self._source, FolderFile.key.in_(by_key))
            ).all()
            same = [
                row for row in rows
                if row.kind not in _AGAIN and _is_as_it_was(row, by_key[row.key])
            ]  # fmt: skip
            _mark(session, FolderFile.id, [row.id for row in same], {"walk": number})
            archives = [row.id for row in same if row.kind == "archive"]
            _mark(session, FolderFile.archive_id, archives, {"walk": number})
            if archives:
                inside = select(func.count()).where(FolderFile.archive_id.in_(archives), FolderFile.walk == number)
                self.progress.files += session.scalar(inside) or 0
            back = [row.id for row in same if row.verdict == "gone"]
            _mark(session, FolderFile.id, back, {"verdict": ""})
            _mark(session, FolderFile.archive_id, back, {"verdict": ""})
        known = {row.key for row in same}
        return [entry for key, entry in by_key.items() if key not in known]

    def _archive(self, archive: Seen, number: int) -> None:
        """All members, in pieces; the archive's own row last, so that it is looked into again after a death."""
        row_id = self._reserve(archive, number)
        waiting: list[Seen] = []
        for seen in reading.members(self._root, archive):
            waiting.append(seen)
            if len(waiting) >= BATCH:
                self._members(waiting, number, row_id)
                waiting = []
        self._members(waiting, number, row_id)
        with self._sessions.begin() as session:  # what an earlier state of it held never comes back with it
            old = (FolderFile.archive_id == row_id, FolderFile.walk < number)
            session.execute(update(FolderFile).where(*old).values(verdict="gone", archive_id=None))

    def _reserve(self, archive: Seen, number: int) -> int:
        """The archive's row, for its members to name: as one that is still being read."""
        with self._sessions.begin() as session:
            unread = Seen(archive.place, archive.size, archive.changed, "changing", "it is being looked into")
            self._write(session, [unread], number)
            key = places.key(places.written(archive.place))
            query = select(FolderFile.id).where(FolderFile.source == self._source, FolderFile.key == key)
            return session.execute(query).scalar_one()

    def _members(self, seen: list[Seen], number: int, archive_id: int) -> None:
        with self._sessions.begin() as session:
            self._write(session, seen, number, archive_id)
            self._count(session, len(seen) - 1, seen)

    def _write(self, session: Session, found: Iterable[Seen], number: int, archive_id: int | None = None) -> None:
        rows = {row["key"]: row for row in (self._row(seen, number, archive_id) for seen in found)}
        query = select(FolderFile.key, FolderFile.id).where(FolderFile.source == self._source, FolderFile.key.in_(rows))
        known = [{**rows.pop(key), "id": row_id} for key, row_id in session.execute(query).all()]
        if known:
            session.execute(update(FolderFile), known)
        if rows:
            session.execute(insert(FolderFile), list(rows.values()))

    def _row(self, seen: Seen, number: int, archive_id: int | None) -> dict[str, Any]:
        text = places.written(seen.place)
        facts = seen.facts
        return {
            "source": self._source, "key": places.key(text), "place": text, "medium": _medium(seen.medium),
            "extension": places.extension(seen.place), "archive_id": archive_id if len(seen.place) > 1 else None,
            "size": seen.size, "changed": seen.changed, "walk": number, "kind": seen.kind, "verdict": "",
            "reason": seen.reason, "same_as": None, "named": None, "md5": seen.md5 or None, "digest": None,
            "held_sha256": None, "study_uid": _uid(facts, "StudyInstanceUID"),
            "series_uid": _uid(facts, "SeriesInstanceUID"), "sop_uid": _uid(facts, "SOPInstanceUID"),
            "patient_id": facts.get("PatientID", "")[:64], "sop_class": _uid(facts, "SOPClassUID"),
            "syntax": seen.syntax[:64] or None, "facts": dict(facts),
        }  # fmt: skip

    def _count(self, session: Session, files: int, seen: list[Seen]) -> None:
        progress = self.progress
        progress.files += files
        progress.read += len(seen)
        progress.size += sum(one.size for one in seen if one.md5)
        session.execute(
            update(FolderWalk)
            .where(FolderWalk.source == self._source)
            .values(updated_at=clock.text(self._now()), **asdict(progress))
        )
        self._tell(progress)


def _is_as_it_was(row: Any, entry: Entry) -> bool:
    was = (row.size, row.changed, row.medium)
    return entry.kind == "file" and was == (entry.size, entry.changed, _medium(entry.medium))


def _medium(folder: str | None) -> str | None:
    return None if folder is None else places.key(folder)


def _pieces(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    piece: list[Entry] = []
    size = 0
    for entry in entries:
        piece.append(entry)
        size += entry.size
        if len(piece) >= BATCH or size >= BATCH_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _mark(session: Session, column: InstrumentedAttribute[Any], ids: list[int], values: dict[str, Any]) -> None:
    if ids:
        fresh = [getattr(FolderFile, name) != value for name, value in values.items()]
        session.execute(update(FolderFile).where(column.in_(ids), *fresh).values(**values))


def _uid(facts: Mapping[str, str], keyword: str) -> str | None:
    return facts.get(keyword, "")[:64] or None
