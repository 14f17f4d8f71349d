"""A folder, or a medium, as a source: files of DICOM studies among anything else.

What it has is what its index says (migration.folders.index), made by a walk that reads each file once; what is brought
are the very bytes of its files, so level 3 is by MD5: of the file when it was indexed, of what passed through us, and
of what the archive holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, func, select, update

from migration import transfer
from migration.copying import Copier, Offer
from migration.desk import Desk
from migration.folders import summary, walking
from migration.folders.archives import Refused
from migration.folders.files import Files
from migration.folders.index import Index, Progress
from migration.folders.judging import BROUGHT, Judge
from migration.folders.reading import Changed
from migration.inventory import Coverage, Found
from migration.source import Checked, Compared, Counted, Given, Named, Probe, Request, Study, Trouble
from zambezi import clock, durable
from zambezi.config.settings import MigrationSource
from zambezi.database.engine import Sessions
from zambezi.database.tables import FolderFile, Held
from zambezi.environment import Environment
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass

#: The probe looks at so many files at most.
_LOOKED_AT = 500


class FolderSource:
    """One folder; `tell` hears how far a walk is."""

    kind = "folder"

    def __init__(
        self, name: str, settings: MigrationSource, sessions: Sessions, environment: Environment,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:  # fmt: skip
        self._name, self._root, self._sessions, self._tell = name, Path(settings.folder), sessions, tell
        self._hold_dir, self._run_dir = environment.hold_dir, environment.run_dir
        self._files = Files(self._root)
        self._copier = Copier(settings.parallel)
        #: Files that the latest walk met.
        self.queries = 0

    # -- what it can

    def probe(self) -> Probe:
        """Look at the first files; nothing is written."""
        try:
            looked = list(islice(walking.walk(self._root), _LOOKED_AT))
        except OSError as error:
            return Probe({"folder": (False, f"{self._root} can't be read: {error.strerror}")})
        unread = sum(1 for entry in looked if entry.kind == "unread")
        media = {entry.medium for entry in looked if entry.medium is not None}
        more = "the first " if len(looked) == _LOOKED_AT else ""
        words = f"{more}{len(looked)} files looked at, {unread} of them can't be read"
        return Probe(
            {
                "folder": (bool(looked), words if looked else f"{self._root} is empty; is it mounted?"),
                "all files can be read": (not unread, words),
                "DICOMDIR": (bool(media), f"in {len(media)} folders" if media else "none among the files looked at"),
            }
        )

    # -- what it has

    def find_studies(self, today: date) -> tuple[Found, Coverage]:
        """Walk through the folder, decide what becomes of each file, and say what was found."""
        self.refresh()
        found, coverage = Found(), Coverage()
        with self._sessions.begin() as session:
            first = func.min(FolderFile.id)
            each = select(first).where(*self._brought()).group_by(FolderFile.study_uid, FolderFile.patient_id)
            for (facts,) in session.execute(select(FolderFile.facts).where(FolderFile.id.in_(each))):
                found.add([facts])
            summary.describe(session, self._name, coverage)
            summary.tell(session, self._name, clock.now())
        coverage.studies = coverage.universal = len(found.uids)
        coverage.undated = sum(1 for uid in found.uids if not found.dates[uid])
        coverage.dated = coverage.studies - coverage.undated
        coverage.duplicates = {uid: sorted(ids) for uid, ids in found.patients.items() if len(ids) > 1}
        coverage.queries = self.queries
        return found, coverage

    def refresh(self) -> None:
        """Bring the index up to what lies there; Trouble (transient) where nothing does any more, or it is away."""
        index = Index(self._sessions, self._name, self._root, clock.now, self._tell)
        judge = Judge(self._sessions, self._name, self._hold_dir, self._files.read, clock.now)
        with durable.alone(self._run_dir / f"folder-{self._name}"):  # two walks at once would write the same rows
            try:
                self._look_for_mount()
                number = index.walk()
            except OSError as error:
                raise Trouble(ErrorClass.TRANSIENT, f"{self._root} can't be read: {error.strerror}") from error
            try:
                judge.judge(number)
            except OSError as error:  # what can't be read is a file's own matter; this is our hold
                raise Trouble(ErrorClass.DISK, f"the hold can't be written: {error.strerror}", is_ours=True) from error
            index.finish()
        self.queries = index.progress.files
        self._files.close()

    def _look_for_mount(self) -> None:
        """A medium that isn't mounted looks like an empty folder: what was found before must not count as gone."""
        if next(self._root.iterdir(), None) is not None:
            return
        with self._sessions.begin() as session:
            known = session.scalar(select(func.count()).where(*self._brought()))
        if known:
            raise Trouble(ErrorClass.TRANSIENT, f"{self._root} is empty, but had {known} images: is it mounted?")

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """What the index names of a study and still lies there; agreed where all of it is as it was indexed."""
        instances, modalities, agreed = {}, set(), True
        for row in self._rows(FolderFile.study_uid == study_uid):
            try:
                agreed &= self._files.is_as_it_was(row)
            except FileNotFoundError:
                agreed = False
                continue
            except OSError as error:
                raise Trouble(ErrorClass.TRANSIENT, f"{self._root} can't be read: {error.strerror}") from error
            instances[row.sop_uid or ""] = Named(
                row.series_uid or "", row.sop_class or "", row.syntax or "", row.size, row.md5 or ""
            )
            modalities |= {row.facts["Modality"]} if "Modality" in row.facts else set()
        return Counted(instances, tuple(sorted(modalities)), agreed)

    # -- how it is brought

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        self._copier.begin(desk, study_uid)

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        """Store the files that a request names and the archive has not."""
        rows = self._lacking(desk, request)
        if request.level == "Instance" and (held := [row for row in rows if row.verdict == "held"]):
            raise Trouble(ErrorClass.OBJECT, f"{held[0].reason}; it is in the hold")
        offers = (self._offer(row) for row in rows if row.verdict != "held")
        try:
            return self._copier.bring(desk, keeper, request, offers)
        finally:
            self._files.close()
            self._note_refused(request.keys[0])

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        def again(sop_uid: str) -> list[Offer]:
            return [self._offer(row) for row in rows if row.sop_uid == sop_uid]

        rows = self._rows(FolderFile.study_uid == study.uid)
        try:
            return self._copier.check(desk, study, wanted, keeper, keep, again)
        finally:
            self._files.close()

    def _lacking(self, desk: Desk, request: Request) -> list[FolderFile]:
        columns = (FolderFile.study_uid, FolderFile.series_uid, FolderFile.sop_uid)
        asked = self._rows(*(column == key for column, key in zip(columns, request.keys, strict=False)))
        if request.level == "Instance":
            return asked
        there = {*transfer.stored(desk, request.keys[0]), *self._copier.refused}
        return [row for row in asked if row.sop_uid not in there]

    def _offer(self, row: FolderFile) -> Offer:
        def fetch() -> bytes:
            try:
                return self._files.read(row)
            except (Changed, Refused) as error:
                raise Trouble(ErrorClass.OBJECT, f"file {row.id}: {error}") from error
            except FileNotFoundError as error:
                raise Trouble(ErrorClass.OBJECT, f"file {row.id} is not there any more") from error
            except OSError as error:  # a medium that fails at one file may give the next one
                raise Trouble(ErrorClass.OBJECT, f"file {row.id} can't be read: {error.strerror}") from error

        return Offer(fetch, row.sop_uid or "", row.size, lambda: row.md5 or "")

    def _note_refused(self, study_uid: str) -> None:
        """What the archive refused, and the copier has put into the hold, says so in the index."""
        refused = self._copier.refused
        if not refused:
            return
        with self._sessions.begin() as session:
            query = select(Held).where(
                Held.study_uid == study_uid, Held.sop_uid.in_(refused), Held.why.in_(("unreadable", "no-identity"))
            )
            for held in session.scalars(query.order_by(Held.id)).all():
                this = (FolderFile.study_uid == study_uid, FolderFile.sop_uid == held.sop_uid)
                session.execute(
                    update(FolderFile)
                    .where(*self._brought(), *this, FolderFile.size == held.size)
                    .values(verdict="held", held_sha256=held.sha256, reason=f"the archive refused it: {held.reason}")
                )

    def _brought(self) -> tuple[ColumnElement[bool], ...]:
        return FolderFile.source == self._name, FolderFile.kind == "dicom", FolderFile.verdict.in_(BROUGHT)

    def _rows(self, *where: ColumnElement[bool]) -> list[FolderFile]:
        with self._sessions.begin() as session:
            query = select(FolderFile).where(*self._brought(), *where)
            return list(session.scalars(query.order_by(FolderFile.series_uid, FolderFile.sop_uid)))
