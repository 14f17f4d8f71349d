"""The hold, looked after: every row has its file, every file has its row, and what nobody needs any more goes.

A file is taken away in two steps: first a commit says that no row needs it; later, and only where nothing can still be
on its way to a row of its own, the file goes. A crash between the two leaves a file too many, never a row without one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, select

from operations.custody.identity import identify
from operations.custody.worker import WRITER, Desk
from zambezi import clock, digests, hold, holding, nodes
from zambezi.database import generations
from zambezi.database.engine import Sessions
from zambezi.database.tables import AnnouncedInstance, ChainHead, Held
from zambezi.orthanc_client import OrthancClient

log = logging.getLogger("zambezi.custody")

#: Who puts bytes into the hold writes their row at once, but for the plugin, whose row comes through the journal.
GRACE = timedelta(hours=1)
#: So often retention is looked at while custody runs.
EVERY = timedelta(minutes=10)


@dataclass(frozen=True)
class Looked:
    """What a look at the whole hold found."""

    files: int
    damaged: int
    found: int
    left: int

    def __str__(self) -> str:
        return (
            f"{self.files} files looked at, {self.damaged} damaged or missing, {self.found} without a row are before a "
            f"person now, {self.left} left-overs of a crash taken away"
        )


def look(sessions: Sessions, folder: Path, now: datetime, writer: str = WRITER) -> Looked:
    """Look at every row's file and every file's row; what is wrong is put before a person."""
    adopt(sessions, folder, now, writer)
    with sessions.begin() as session:
        needed = session.scalars(select(Held.sha256).where(holding.needs_file()).distinct()).all()
    damaged = 0
    for sha256 in needed:
        fault = fault_of(hold.path(folder, sha256), sha256)
        with sessions.begin() as session:
            query = select(Held).where(Held.sha256 == sha256, holding.needs_file()).with_for_update()
            rows = session.scalars(query).all()  # none, where it was let go meanwhile
            for held in rows:
                holding.checked(session, held, fault, now, writer)
        damaged += bool(fault and rows)
    found = sum(_found(sessions, folder, file, now, writer) for file in _old(list(hold.files(folder)), now))
    left = _old(list(folder.glob("[0-9a-f][0-9a-f]/*.new")), now)
    for file in left:  # died while it was written: nobody was told that it is there
        file.unlink(missing_ok=True)
    return Looked(len(needed), damaged, found, len(left))


def fault_of(file: Path, sha256: str) -> str:
    """Empty, or what is wrong with the file."""
    try:
        found = digests.raw(file)
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return f"the file can't be read: {error.strerror}"
    return "" if found == sha256 else "its bytes have changed"


def adopt(sessions: Sessions, folder: Path, now: datetime, writer: str = WRITER) -> int:
    """Make rows of the notes of those who could not ask the database (zambezi.hold.leave_note); how many."""
    notes = hold.notes(folder)
    for note in notes:
        told = json.loads(note.read_text())
        with sessions.begin() as session:
            file = hold.path(folder, told["sha256"])
            content = file.read_bytes() if file.exists() else b""
            holding.hold(
                session, sha256=told["sha256"], size=len(content), why=told["why"], reason=told["reason"],
                reference=told["reference"], now=now, writer=writer, **identify(content).columns,
                state=told.get("state") or ("comparing" if told["why"] == "conflict" else "waiting"),
            )  # fmt: skip
        note.unlink()  # after the commit: a crash between them raises `times`, and that is all
    return len(notes)


def retain(sessions: Sessions, now: datetime, keep: timedelta, writer: str = WRITER) -> int:
    """Let go of what was kept long enough, but for what a legal hold protects; how many rows."""
    with sessions.begin() as session:
        due = holding.due_for_removal(session, now, keep)
        for held in due:
            holding.let_go(session, held, now, writer)
    return len(due)


def take_away(sessions: Sessions, folder: Path, now: datetime, is_told: Callable[[], bool]) -> int:
    """Take the files away that no row needs any more; how many.

    `is_told`: whether the database knows all that the plugin's journal tells; else a row may still be to come, and
    nothing goes.
    """
    with sessions.begin() as session:
        over = select(Held.sha256).where(~holding.needs_file()).distinct()
        done = {sha256 for sha256 in session.scalars(over) if not holding.is_needed(session, sha256)}
    files = _old([file for file in hold.files(folder) if file.stem in done], now)
    if not files or not is_told():
        return 0
    gone = 0
    for file in files:
        with sessions.begin() as session:
            if holding.is_needed(session, file.stem):
                continue
        gone += hold.remove(folder, file.stem, now - GRACE)
    return gone


def forget_announcements(sessions: Sessions, now: datetime) -> int:
    """Take back the announcements of what was released a while ago; how many.

    While one stands, other content under that SOP Instance UID counts as ours, and nobody would be asked about it.
    """
    busy = select(Held.sop_uid).where(Held.state == "releasing", Held.sop_uid.is_not(None))
    with sessions.begin() as session:
        gone = session.execute(
            delete(AnnouncedInstance)
            .where(
                AnnouncedInstance.cause == "restore",
                AnnouncedInstance.reference.like("hold %"),
                AnnouncedInstance.created_at <= clock.text(now - GRACE),
                AnnouncedInstance.sop_uid.not_in(busy),
            )
            .returning(AnnouncedInstance.sop_uid)
        ).all()
        if gone:
            generations.raise_(session, "announced")
    return len(gone)


def is_told(sessions: Sessions, orthanc: OrthancClient) -> bool:
    """Whether the central database has the plugin's whole journal, and the journal all that was stored."""
    status = orthanc.get("/zambezi/status")
    with sessions.begin() as session:
        head = session.get(ChainHead, status["journal"])
        if not nodes.has_all(session, clock.now()):
            return False  # a node that is away may have held the very file
    return bool(head and head.seq >= status["seq"] and status["follower"]["lag"] == 0)


class Upkeep:
    """Makes rows of notes, and lets go of what was kept long enough."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._next: datetime | None = None

    def round(self) -> bool:
        """Adopt what has a note; every ten minutes retention, too."""
        desk, now = self._desk, self._desk.now()
        folder = desk.environment.hold_dir
        if adopt(desk.sessions, folder, now):
            return True
        if self._next is None or now >= self._next:
            forget_announcements(desk.sessions, now)
            let = retain(desk.sessions, now, timedelta(days=desk.settings.hold.keep_days))
            gone = take_away(desk.sessions, folder, now, lambda: is_told(desk.sessions, desk.orthanc))
            if let or gone:
                log.info("the hold: %s rows past their time, %s files taken away", let, gone)
            self._next = now + EVERY
        return False


def _old(files: list[Path], now: datetime) -> list[Path]:
    """Those that were put long enough ago."""
    return [file for file in files if _put_at(file) <= now - GRACE]


def _put_at(file: Path) -> datetime:
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:  # taken away meanwhile
        return datetime.max.replace(tzinfo=UTC)


def _found(sessions: Sessions, folder: Path, file: Path, now: datetime, writer: str) -> bool:
    """A file that no row knows gets one, rather than being deleted: whoever put it died before he could say why."""
    with sessions.begin() as session:
        if session.scalars(select(Held.id).where(Held.sha256 == file.stem).limit(1)).first():
            return False
        content = file.read_bytes()
        since = clock.text(_put_at(file))
        held = holding.hold(
            session, sha256=file.stem, size=len(content), why="found", now=now, writer=writer, reference="found",
            reason=f"A file that nobody has accounted for lies in the hold since {since}.", **identify(content).columns,
        )  # fmt: skip
        fault = fault_of(file, file.stem)
        if fault:
            holding.checked(session, held, fault, now, writer)
    return True
