"""Making a backup: databases first, files second, then reading back.

The order is such that each copy knows at least what the one before it tells of: central database, journals, Orthanc's
index, files. What came between two of them is caught up after a restore by the ways that catch it up after a crash.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg import conninfo
from sqlalchemy.exc import SQLAlchemyError

from operations.backup import copies, manifest, schedule, standstill
from operations.backup.copies import Postgres
from operations.backup.manifest import Manifest
from operations.backup.places import HELD, STAGING, STORAGE
from operations.backup.repository import AHEAD, BackupFault, Repository, Say, size
from operations.status import database_trouble
from zambezi import __version__, audit, clock, windows
from zambezi import hold as held
from zambezi.config import Configuration
from zambezi.config.load import SECRETS_FILE
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment

WRITER = "operations"
#: Not state: made anew by `zambezi up`, or patients' data that are elsewhere, too.
_LEFT_OUT = ("backup", "hold", "logs", "run", "orthanc/storage", "orthanc/index", "orthanc/tmp", "orthanc/viewer-cache")
_SQLITE = b"SQLite format 3\0"
#: How long a backup in its window waits for a quiet moment, before it stops Orthanc all the same.
_QUIET_S = 600.0
_SPARE = 200 * 2**20


@dataclass
class Copied:
    """What is known of the copies while they are made."""

    databases: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    totals: tuple[int, int, int] = (0, 0, 0)
    gap_s: float | None = None


@dataclass(frozen=True)
class Backup:
    """One installation and who wants the backup; `say` gets a line now and then."""

    environment: Environment
    configuration: Configuration
    say: Say
    who: str

    @property
    def staging(self) -> Path:
        return self.environment.home / STAGING

    def run(self) -> schedule.Last:
        """Make, verify and write down one backup; BackupFault where it can't be, which is written down, too."""
        own = self.environment.backup_dir
        with standstill.one_at_a_time(self.environment):
            began = clock.now()
            known = schedule.last(own)
            try:
                done = self._run(began, known)
            except BackupFault as fault:
                replace(known, ok=False, tried=clock.text(began), error=str(fault)).write(own)
                raise
            finally:
                shutil.rmtree(self.staging, ignore_errors=True)
            done.write(own)
            return done

    def _run(self, began: datetime, known: schedule.Last) -> schedule.Last:
        settings = self.configuration.zambezi.backup
        if Postgres.of_index(self.configuration.orthanc) is None:
            self._refuse_outside_window()
        repository = opened(self.environment, self.configuration, began)
        repository.unlock()
        shutil.rmtree(self.staging, ignore_errors=True)
        paths = [path for path in (STORAGE, HELD) if (self.environment.home / path).is_dir()]
        if not repository.snapshots():
            self._sent_ahead(repository, paths)
        with standstill.nothing_leaves(self.environment):
            self.say("Copying databases ...")
            copied = self._copy(began)
            self._need_space(repository, known, copied)
            self.say("Writing files ...")
            snapshot = repository.backup(self.environment.home, [STAGING, *paths], self.say)
        self.say("Verifying ...")
        self._verify(repository, snapshot)
        part = schedule.part(began.date(), settings.read_all_in_days)
        repository.check(part)
        snapshot = repository.declare_whole(snapshot)
        self.say(f"  every file of the list is in it; part {part} of all data was read back and is sound")
        repository.forget_ahead()
        repository.forget(schedule.keep(settings))
        instances, _files, total = copied.totals
        finished = clock.now()
        self._record(finished, snapshot, instances, copied.gap_s)
        return schedule.Last(
            finished=clock.text(finished), ok=True, tried=clock.text(began), began=clock.text(began),
            snapshot=snapshot, instances=instances, bytes=total, gap_s=copied.gap_s, repository=repository.address,
            drilled=known.drilled,
        )  # fmt: skip

    def _sent_ahead(self, repository: Repository, paths: list[str]) -> None:
        """The first backup may take days: files go first, so that custody need not wait while databases and files
        are copied. What an interrupted one has sent is not sent again."""
        if paths:
            self.say("The first backup: sending files ahead (it may be interrupted, and goes on where it was) ...")
            repository.backup(self.environment.home, paths, self.say)

    def _copy(self, began: datetime) -> Copied:
        copied = Copied()
        self.staging.mkdir(parents=True, mode=0o700)
        home = self.staging / "home"
        home.mkdir(mode=0o700)
        self._need_room_for_databases()
        central = central_database(self.environment)
        if isinstance(central, Path):
            copied.databases["central"] = "sqlite"
            copies.sqlite_copy(central, self.staging / "central.db")
            copied.rows["central"] = copies.sqlite_counts(self.staging / "central.db")
        else:
            copied.databases["central"] = "postgresql"
            with central.frozen() as (connection, moment):
                copied.rows["central"] = copies.postgres_counts(connection)
                central.dump(moment, self.staging / "central.dump")
        self._copy_state(home, copied)
        index = Postgres.of_index(self.configuration.orthanc)
        if index is None:
            self._copy_index(copied)
        else:
            copied.databases["index"] = "postgresql"
            with index.frozen() as (connection, moment):
                copied.rows["index"] = copies.postgres_counts(connection)
                rows = copies.postgres_rows(connection, copies.POSTGRES_ATTACHMENTS)
                copied.totals = manifest.write_attachments(self.staging, rows)
                index.dump(moment, self.staging / "index.dump")
        config = self.staging / "config"
        config.mkdir(mode=0o700)
        for file in sorted(self.environment.config_dir.glob("*.json")):
            if file.name != SECRETS_FILE:
                shutil.copy(file, config / file.name)
        manifest.write_state(self.staging, home)
        self._write_manifest(began, copied)
        return copied

    def _copy_state(self, home: Path, copied: Copied) -> None:
        """Everything else below ZAMBEZI_HOME: journals and other SQLite files by online backup, the rest as it is."""
        central = central_database(self.environment)
        for file in _state_files(self.environment.home):
            if file == central:
                continue
            target = home / file.relative_to(self.environment.home)
            try:
                with file.open("rb") as content:
                    is_database = content.read(len(_SQLITE)) == _SQLITE
                if is_database:
                    copies.sqlite_copy(file, target)
                    copied.rows[str(file.relative_to(self.environment.home))] = copies.sqlite_counts(target)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    shutil.copy2(file, target)
            except FileNotFoundError:
                continue  # what is passed from process to process comes and goes
            except PermissionError as error:
                raise BackupFault(f"{file} can't be read ({error.strerror}); whose is it? chown it to us") from error

    def _copy_index(self, copied: Copied) -> None:
        copied.databases["index"] = "sqlite"
        copied.rows["index"] = {}
        target = self.staging / "index.db"
        source = self.environment.index_dir / "index"
        self._wait_for_quiet()
        with standstill.orthanc_stopped(self.environment) as asked:
            if source.with_name("index-wal").exists():
                copies.sqlite_copy(source, target)  # it wasn't closed: the power failed, or it is in use after all
            elif source.exists():
                shutil.copyfile(source, target)
        if asked is not None:
            copied.gap_s = standstill.wait_until_back(self.environment, asked, self.say)
            if copied.gap_s is None:
                self.say("! Orthanc has not come back: `zambezi status` and logs/orthanc.log say why")
            else:
                self.say(f"  Orthanc was stopped for its index: no images were taken for {copied.gap_s:.1f} s")
        rows: Iterator[Any] = iter(())
        if target.exists():
            copied.rows["index"] = copies.sqlite_counts(target)
            rows = iter(copies.sqlite_rows(target, copies.SQLITE_ATTACHMENTS))
        copied.totals = manifest.write_attachments(self.staging, rows)

    def _wait_for_quiet(self) -> None:
        """In the window a quiet moment is waited for, for a while."""
        begun = time.monotonic()
        while busy := self._refuse_outside_window():
            if time.monotonic() - begun > _QUIET_S:
                self.say(f"  {busy}; the window is for this, so Orthanc is stopped all the same")
                return
            time.sleep(1)

    def _refuse_outside_window(self) -> str:
        """Who stores; BackupFault outside the window, for there nobody is interrupted."""
        settings, site = self.configuration.zambezi.backup, self.configuration.zambezi.site
        busy = standstill.who_stores(self.environment)
        if busy and not windows.is_open(settings.windows, clock.now(), site.zone, site.holidays):
            raise BackupFault(
                f"{busy}, and a backup has to stop Orthanc for some seconds: try again when it is quiet, or in the "
                "window (Backup.Windows), or after `zambezi down`"
            )
        return busy

    def _write_manifest(self, began: datetime, copied: Copied) -> None:
        instances, files, total = copied.totals
        journal = self.staging / "home" / self.environment.journal_file.relative_to(self.environment.home)
        senders, last_stored = _told_by(journal)
        variables = {**self.environment.variables(), "ZAMBEZI_DATABASE_URL": _without_password(self.environment)}
        Manifest(
            clock.text(began), __version__, str(self.environment.home), copied.databases, copied.rows, instances, files,
            total, manifest.write_hold(self.staging, (file.stem for file in held.files(self.environment.hold_dir))),
            last_stored, senders, variables,
        ).write(self.staging)  # fmt: skip
        self.say(f"  {instances:,} instances, {files:,} files of the archive, {size(total)}")

    def _verify(self, repository: Repository, snapshot: str) -> None:
        """Everything on the lists must be in the snapshot, as long as the list says."""
        faults: list[str] = []
        expected = manifest.attachments(self.staging)
        want = next(expected, None)
        others: dict[str, int] = {}
        for path, length in repository.files(snapshot):  # sorted by name, as the list is
            if not path.startswith(f"/{STORAGE}/"):
                others[path] = length
                continue
            name = path.rpartition("/")[2]
            while want and want.name < name:
                faults.append(f"{want.path} (instance {want.orthanc_id}) is missing")
                want = next(expected, None)
            if want and want.name == name:
                if want.size != length:
                    faults.append(f"{want.path} has {length} bytes, not {want.size}")
                want = next(expected, None)
        while want:
            faults.append(f"{want.path} (instance {want.orthanc_id}) is missing")
            want = next(expected, None)
        for path, length, _ in manifest.state(self.staging):
            if others.get(f"/{STAGING}/home/{path}") != length:
                faults.append(f"{path} is missing")
        faults += [
            f"{name} is missing from the hold"
            for name in manifest.hold(self.staging)
            if f"/{HELD}/{name[:2]}/{name}.dcm" not in others
        ]
        if faults:
            raise BackupFault(
                f"snapshot {snapshot[:8]} is not whole: {len(faults)} files, the first: {'; '.join(faults[:5])}. "
                "`zambezi status` and the archive's own files say what is lost there; the older snapshots stand"
            )

    def _need_room_for_databases(self) -> None:
        files = [*_state_files(self.environment.home), self.environment.index_dir / "index"]
        central = central_database(self.environment)
        need = sum(file.stat().st_size for file in files if file.exists()) + _SPARE
        for one in (central, Postgres.of_index(self.configuration.orthanc)):
            if not isinstance(one, Postgres):
                continue
            with one.connect() as connection:
                found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
                need += int(found[0]) if found else 0
        _need(self.staging, need, "for copies of the databases")

    def _need_space(self, repository: Repository, known: schedule.Last, copied: Copied) -> None:
        """What wasn't in the last backup must fit where the repository lies, where that can be seen from here."""
        if repository.folder:
            staged = sum(file.stat().st_size for file in self.staging.rglob("*") if file.is_file())
            sent_ahead = bool(repository.snapshots(AHEAD))
            grown = 0 if sent_ahead else max(0, copied.totals[2] - known.bytes)
            _need(repository.folder, grown + staged + _SPARE, "for what is new")

    def _record(self, at: datetime, snapshot: str, instances: int, gap_s: float | None) -> None:
        engine = connect(self.environment.database_url, WRITER)
        try:
            with sessions(engine, WRITER).begin() as session:
                audit.append(
                    session, WRITER, "backed-up", at, snapshot=snapshot, instances=instances, who=self.who,
                    gap_s=None if gap_s is None else round(gap_s, 1),
                )  # fmt: skip
        except SQLAlchemyError as error:
            raise BackupFault(
                f"the backup is written, but the audit trail doesn't say so: {database_trouble(error)}"
            ) from error
        finally:
            engine.dispose()


def opened(environment: Environment, configuration: Configuration, now: datetime) -> Repository:
    """The repository of the configuration, with its cap of this moment, once it opened with our password."""
    settings, site = configuration.zambezi.backup, configuration.zambezi.site
    if not settings.repository:
        raise BackupFault(
            "no backups are configured: write where they go into orthanc-config/ (Zambezi.Backup.Repository), "
            "then: zambezi backup init"
        )
    cap = windows.cap_at(settings.windows, now, site.zone, site.holidays)
    repository = Repository(settings.repository, environment.backup_dir, cap)
    inside = repository.folder and repository.folder.resolve().is_relative_to(environment.home.resolve())
    if inside:
        raise BackupFault(f"Backup.Repository {settings.repository} lies in ZAMBEZI_HOME and dies with it; elsewhere!")
    if not repository.password_file.exists():
        raise BackupFault(
            f"{repository.password_file} is not there: the first time, zambezi backup init makes it; else write the "
            "password from the envelope into it (mode 0600)"
        )
    repository.look()
    return repository


def central_database(environment: Environment) -> Path | Postgres:
    """Where the central database is: a file of SQLite, or a database of PostgreSQL."""
    if environment.database_url.startswith("sqlite:///"):
        return Path(environment.database_url.removeprefix("sqlite:///"))
    return Postgres.of_url(environment.database_url)


def _state_files(home: Path) -> Iterator[Path]:
    """Files of ZAMBEZI_HOME that are neither images nor made anew."""
    for folder, names, files in os.walk(home):
        here = Path(folder)
        names[:] = sorted(name for name in names if str((here / name).relative_to(home)) not in _LEFT_OUT)
        for name in sorted(files):
            file = here / name
            if file.is_file() and not name.endswith(("-wal", "-shm", "-journal", ".new")):
                yield file


def _told_by(journal: Path) -> tuple[dict[str, int], str]:
    """Which modalities stored how many instances, and when the last came; by the copy of the journal."""
    if not journal.exists():
        return {}, ""
    senders = {
        str(aet): int(number)
        for aet, number in copies.sqlite_rows(
            journal, "SELECT remote_aet, count(*) FROM instances WHERE cause = 'modality' GROUP BY remote_aet"
        )
    }
    query = "SELECT json_extract(CAST(payload AS TEXT), '$.at') FROM entries WHERE event = 'stored'"
    last = next(iter(copies.sqlite_rows(journal, query + " ORDER BY seq DESC LIMIT 1")), None)
    return senders, str(last[0]) if last else ""


def _without_password(environment: Environment) -> str:
    if environment.database_url.startswith("sqlite"):
        return environment.database_url
    found = {key: str(value) for key, value in conninfo.conninfo_to_dict(environment.database_url).items()}
    return conninfo.make_conninfo(**{key: value for key, value in found.items() if key != "password"})


def _need(folder: Path, need: int, what: str) -> None:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < need:
        raise BackupFault(f"{there}: {size(free)} are free, {size(need)} are needed {what}; make room first")
