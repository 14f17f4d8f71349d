"""What becomes of each file of an index: brought over, a copy of another, in conflict with it, held, or listed.

Of several files with one SOP Instance UID in one study one is brought over: the one that was before; else the one that
a DICOMDIR names, that is whole, that comes first. What says the same as it (the same bytes, or the same canonical
digest: zambezi.digest) is a copy. What says something else is a conflict: it goes, whole, into the hold, and a person
decides. So do DICOM files without an identity. Nothing else is touched, and everything stays listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, insert, or_, select, tuple_, update

from migration.folders import dicomdir, places
from migration.folders.archives import Refused
from migration.folders.reading import Changed
from migration.folders.walking import DIRECTORY
from zambezi import digest, hold, holding
from zambezi.database.engine import Sessions
from zambezi.database.tables import FolderFile
from zambezi.digest import Unreadable

WRITER = "migration"
#: A larger DICOMDIR names more files than any medium holds.
_LARGEST_DICOMDIR = 256 << 20
_PIECE = 500
#: Verdicts of what a study consists of; held: the archive refused it when it came.
BROUGHT = ("migrate", "held")
_CONFLICT = "another file of this source has the same SOP Instance UID and other content"
_NOT_THERE = "a DICOMDIR names it, but it is not there"


@dataclass(frozen=True)
class Copy:
    """One of several files that have a SOP Instance UID in common."""

    id: int
    md5: str
    digest: str  # canonical; "" where it can't be taken, or wasn't
    was_chosen: bool = False
    is_named: bool = False
    is_whole: bool = True
    place: str = ""


def choose(copies: Sequence[Copy]) -> Copy:
    """The one that is brought over. Pure."""
    return min(copies, key=lambda one: (not one.was_chosen, not one.is_named, not one.is_whole, one.place, one.id))


def says_the_same(one: Copy, other: Copy) -> bool:
    """Whether two files are copies: the same bytes, or the same content in another encoding. Pure."""
    return one.md5 == other.md5 or (one.digest != "" and one.digest == other.digest)


class Judge:
    """Decides about the rows of one source; `read` gives a row's bytes (Changed, Refused, OSError)."""

    def __init__(
        self, sessions: Sessions, source: str, hold_dir: Path, read: Callable[[FolderFile], bytes],
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._sessions, self._source, self._hold_dir, self._read, self._now = sessions, source, hold_dir, read, now

    def judge(self, number: int) -> None:
        """All that the walk of this number has met. Can be repeated, and goes on after a death."""
        for row in self._rows(FolderFile.kind == "dicomdir", FolderFile.verdict != "gone"):
            if places.read(row.place)[-1].rpartition("/")[2].lower() == DIRECTORY:  # others are copies of one
                self._directory(row, number)
        undecided = (FolderFile.source == self._source, FolderFile.verdict == "")
        with self._sessions.begin() as session:
            others = (*undecided, FolderFile.kind.not_in(("dicom", "no-identity")))
            session.execute(update(FolderFile).where(*others).values(verdict="listed"))
        for groups in self._several():
            self._decide(groups)
        with self._sessions.begin() as session:
            lone = (*undecided, FolderFile.kind == "dicom")
            session.execute(update(FolderFile).where(*lone).values(verdict="migrate"))
        for row in self._rows(FolderFile.kind == "no-identity", FolderFile.verdict == ""):
            self.hold(row, "no-identity", row.reason)

    def hold(self, row: FolderFile, why: str, reason: str, verdict: str = "held", same_as: int | None = None) -> None:
        """Put a file whole into the hold, before a person; a file that can't be read now waits for the next walk."""
        values: dict[str, Any] = {"verdict": verdict, "same_as": same_as}
        if row.held_sha256 is None:
            try:
                content = self._read(row)
            except (Changed, Refused, OSError) as error:
                self._set(row.id, {"kind": "changing", "reason": f"it can't be put into the hold: {_said(error)}"})
                return
            values["held_sha256"] = hold.put(self._hold_dir, content)
        with self._sessions.begin() as session:
            if row.held_sha256 is None:
                holding.hold(
                    session, sha256=values["held_sha256"], size=len(content), why=why, reason=reason,
                    # Not its place: names of files are often names of patients.
                    reference=f"{self._source}, file {row.id}", now=self._now(), writer=WRITER, sop_uid=row.sop_uid,
                    series_uid=row.series_uid, study_uid=row.study_uid, sender=f"migration from {self._source}",
                    patient_id=row.patient_id,
                )  # fmt: skip
            session.execute(update(FolderFile).where(FolderFile.id == row.id).values(**values))

    def _several(self) -> Iterator[list[list[FolderFile]]]:
        """Files that share a SOP Instance UID within a study, where it isn't decided which is brought, in pieces."""
        here = (FolderFile.source == self._source, FolderFile.kind == "dicom", FolderFile.verdict != "gone")
        undecided = func.sum(case((FolderFile.verdict == "", 1), else_=0))
        chosen = func.sum(case((FolderFile.verdict.in_(BROUGHT), 1), else_=0))
        names = (FolderFile.study_uid, FolderFile.sop_uid)
        last = ("", "")
        while True:
            query = (
                select(*names)
                .where(*here, names[0] >= last[0], tuple_(*names) > last)  # the first lets an index be used
                .group_by(*names)
                .having(or_(and_(func.count() > 1, undecided > 0), and_(undecided == 0, chosen != 1)))
                .order_by(*names)
                .limit(_PIECE)
            )
            with self._sessions.begin() as session:
                found = [(study_uid or "", sop_uid or "") for study_uid, sop_uid in session.execute(query)]
                groups: dict[tuple[str, str], list[FolderFile]] = {name: [] for name in found}
                studies, instances = {study_uid for study_uid, _ in found}, {sop_uid for _, sop_uid in found}
                of_these = select(FolderFile).where(*here, names[0].in_(studies), names[1].in_(instances))
                for row in session.scalars(of_these.order_by(FolderFile.id)):
                    groups.get((row.study_uid or "", row.sop_uid or ""), []).append(row)
            if not found:
                return
            yield list(groups.values())
            last = found[-1]

    def _decide(self, groups: list[list[FolderFile]]) -> None:
        values: list[dict[str, Any]] = []
        conflicts: list[tuple[FolderFile, int]] = []
        for rows in groups:
            if len({row.md5 for row in rows}) > 1:
                for row in rows:
                    row.digest = row.digest or self._digest(row)
            copies = {row.id: _copy(row) for row in rows}
            chosen = choose(list(copies.values()))
            for row in rows:
                value: dict[str, Any] = {"id": row.id, "digest": row.digest, "same_as": chosen.id}
                if row.id == chosen.id:
                    value |= {"same_as": None, "verdict": row.verdict if row.verdict in BROUGHT else "migrate"}
                elif says_the_same(copies[row.id], chosen):
                    value |= {"verdict": "copy"}
                else:
                    conflicts.append((row, chosen.id))
                    value |= {"verdict": row.verdict}  # another comes with its row in the hold
                values.append(value)
        with self._sessions.begin() as session:
            session.execute(update(FolderFile), values)
        for row, chosen_id in conflicts:
            self.hold(row, "conflict", _CONFLICT, "conflict", chosen_id)

    def _digest(self, row: FolderFile) -> str | None:
        try:
            return digest.fingerprint(self._read(row)).digest
        except (Unreadable, Changed, Refused, OSError):
            return None  # then only the same bytes are the same

    def _directory(self, row: FolderFile, number: int) -> None:
        """Compare what a DICOMDIR names with what lies there."""
        try:
            names = dicomdir.named(self._read(row)) if row.size <= _LARGEST_DICOMDIR else []
            fault = "" if row.size <= _LARGEST_DICOMDIR else f"it has {row.size} bytes, which no DICOMDIR has"
        except (dicomdir.Unreadable, Changed, Refused, OSError) as error:
            names, fault = [], f"what it names is not known: {_said(error)}"
        base = places.folder(row.place)
        prefix = row.place[: len(base) + 1] if base else ""
        wanted = {dicomdir.plain(places.written((name,))): name for name in names}
        with self._sessions.begin() as session:
            session.execute(
                delete(FolderFile).where(
                    FolderFile.source == self._source, FolderFile.medium == row.medium, FolderFile.kind == "absent"
                )
            )
            session.execute(update(FolderFile).where(FolderFile.id == row.id).values(reason=fault))
            if fault:
                return
            query = select(FolderFile.id, FolderFile.place).where(
                FolderFile.source == self._source, FolderFile.medium == row.medium, FolderFile.kind != "dicomdir",
                FolderFile.verdict != "gone",
            )  # fmt: skip
            there = {row_id: dicomdir.plain(place[len(prefix) :]) for row_id, place in session.execute(query)}
            values = [{"id": row_id, "named": name in wanted} for row_id, name in there.items()]
            if values:
                session.execute(update(FolderFile), values)
            met = set(there.values())
            absent = [prefix + places.written((name,)) for plain, name in wanted.items() if plain not in met]
            for n in range(0, len(absent), _PIECE):
                rows: list[dict[str, Any]] = [
                    {
                        "source": self._source, "key": places.key(place), "place": place, "medium": row.medium,
                        "walk": number, "kind": "absent", "verdict": "listed", "named": True, "reason": _NOT_THERE,
                        "extension": "", "size": 0, "patient_id": "", "changed": 0, "facts": {},
                    }
                    for place in absent[n : n + _PIECE]
                ]  # fmt: skip
                session.execute(insert(FolderFile), rows)

    def _rows(self, *where: ColumnElement[bool]) -> Iterator[FolderFile]:
        """Rows in pieces, each in a transaction of its own: what is done with one may change it."""
        last = 0
        while True:
            with self._sessions.begin() as session:
                query = select(FolderFile).where(FolderFile.source == self._source, FolderFile.id > last, *where)
                rows = session.scalars(query.order_by(FolderFile.id).limit(_PIECE)).all()
            if not rows:
                return
            yield from rows
            last = rows[-1].id

    def _set(self, row_id: int, values: dict[str, Any]) -> None:
        with self._sessions.begin() as session:
            session.execute(update(FolderFile).where(FolderFile.id == row_id).values(**values))


def _copy(row: FolderFile) -> Copy:
    return Copy(
        row.id, row.md5 or "", row.digest or "", row.verdict in BROUGHT, bool(row.named), not row.reason, row.place
    )


def _said(error: Exception) -> str:
    """In words that hold no path."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
