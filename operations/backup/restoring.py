"""Putting an installation back from a snapshot into an empty place: files first, then databases, each once.

What was done is written down step by step (`Mark`), so that a restore that was cut off goes on. Nothing is started;
`zambezi up` refuses the place until the restore is proven (operations.backup.proving).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from operations.backup.copies import Postgres
from operations.backup.manifest import Manifest
from operations.backup.places import HELD, STAGING, STORAGE, Mark
from operations.backup.repository import BackupFault, Repository, Say, size
from operations.recovery import INGEST_AGAIN
from zambezi import durable
from zambezi.environment import Environment

#: Above so many files the storage comes back in so many parts: an interrupted one is only one of them.
_PARTS = (
    (0, ("",)),
    (20_000, tuple(f"/{d:x}?" for d in range(16))),
    (2_000_000, tuple(f"/{d:02x}" for d in range(256))),
)
_SPARE = 200 * 2**20


@dataclass(frozen=True)
class Place:
    """Where to: a folder as ZAMBEZI_HOME, the central database, and the index's where that is PostgreSQL's.

    `find_index` is asked once the configuration of the backup is there.
    """

    home: Path
    central_url: str
    find_index: Callable[[Path], Postgres | None]

    @property
    def staging(self) -> Path:
        return self.home / STAGING

    @property
    def central_file(self) -> Path | None:
        is_file = self.central_url.startswith("sqlite:///")
        return Path(self.central_url.removeprefix("sqlite:///")) if is_file else None

    @property
    def index_file(self) -> Path:
        return self.home / "orthanc" / "index" / "index"


def must_be_empty(home: Path) -> None:
    """BackupFault where an installation lives in this folder, unless it is a restore's own that was cut off."""
    if Mark.file(home).exists() or not home.exists():
        return
    for found in home.iterdir():
        if found.name != "backup" and _holds_something(found):
            raise BackupFault(
                f"{home} holds an installation already ({found.name}), and a restore never writes over one. "
                f"If it is to be replaced: zambezi down; mv {home} {home}.before; then this again. "
                "Or name an empty folder with ZAMBEZI_HOME"
            )


def _holds_something(path: Path) -> bool:
    return any(file.is_file() and file.stat().st_size for file in (path, *path.rglob("*")))


def put_back(place: Place, repository: Repository, snapshot: str, say: Say) -> Manifest:
    """Everything of the snapshot, in the place; what its list says. Goes on where it was cut off."""
    mark = Mark.read(place.home) or Mark(repository.address, snapshot)
    if mark.snapshot != snapshot:
        raise BackupFault(
            f"a restore of snapshot {mark.snapshot[:8]} into {place.home} was begun: finish that "
            f"(--snapshot {mark.snapshot[:8]}), or empty the folder and begin anew"
        )
    mark.write(place.home)

    def step(name: str, do: Callable[[], None]) -> None:
        if name not in mark.done:
            do()
            mark.done.append(name)
            mark.write(place.home)

    step("lists", lambda: repository.restore(snapshot, place.home, f"/{STAGING}"))
    known = Manifest.read(place.staging)
    index = _fits(place, known)
    if not mark.done[1:]:
        _need_space(place, known)
    say(
        f"Restoring what was there at {known.taken_at[:19]} UTC: {known.instances:,} instances, {size(known.bytes)} ..."
    )
    step("hold", lambda: repository.restore(snapshot, place.home, f"/{HELD}"))
    parts = next(parts for above, parts in reversed(_PARTS) if known.attachments >= above)
    for number, part in enumerate(parts, 1):
        step(f"storage{part}", lambda part=part: repository.restore(snapshot, place.home, f"/{STORAGE}{part}"))  # type: ignore[misc]  # a default binds the loop's part
        say(f"  files: {number} of {len(parts)} parts")
    step("state", lambda: _put_state(place))
    step("central", lambda: _put_central(place))
    step("index", lambda: _put_index(place, index))
    return known


def name_unknown(place: Place, orphans: list[str]) -> None:
    """Let the archive ingest files that its index on PostgreSQL doesn't know (on SQLite it looks itself)."""
    if orphans and not place.index_file.exists():
        durable.replace(place.home / "orthanc" / INGEST_AGAIN, "".join(f"{name}\n" for name in orphans).encode())


def configuration(environment: Environment, place: Place) -> str:
    """Put the administrator's JSON back where it is read from, or beside it; a sentence that says where."""
    saved = {file.name: file.read_bytes() for file in sorted((place.staging / "config").glob("*.json"))}
    target = environment.config_dir
    there = {file.name: file.read_bytes() for file in sorted(target.glob("*.json"))}
    if there == saved:
        return f"The configuration in {target} is the one of the backup."
    if not there:
        try:
            _write(target, saved)
        except OSError:
            pass  # not ours to write there: then beside it
        else:
            return f"The configuration is back in {target}."
    aside = environment.home / "restored-config"
    _write(aside, saved)
    return (
        f"The configuration of the backup is in {aside}; {target} has another one. "
        f"Copy it there, or start with ZAMBEZI_CONFIG={aside}."
    )


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        durable.replace(folder / name, content)


def _fits(place: Place, known: Manifest) -> Postgres | None:
    """The index's database where the backup has one; BackupFault where the engines are others than the backup's."""
    here = "sqlite" if place.central_file else "postgresql"
    if known.databases["central"] != here:
        raise BackupFault(
            f"the backup has the central database of {known.databases['central']}, and ZAMBEZI_DATABASE_URL names "
            f"{here}: set it as it was ({known.variables.get('ZAMBEZI_DATABASE_URL', '')})"
        )
    if known.databases["index"] != "postgresql":
        return None
    index = place.find_index(place.staging / "config")
    if index is None:
        raise BackupFault("the backup has Orthanc's index of PostgreSQL, but no configuration names a database for it")
    return index


def _need_space(place: Place, known: Manifest) -> None:
    free = shutil.disk_usage(place.home).free
    staged = sum(file.stat().st_size for file in place.staging.rglob("*") if file.is_file())
    need = known.bytes + staged + _SPARE
    if free < need:
        raise BackupFault(f"{place.home}: {size(free)} are free, {size(need)} are needed; give it a larger disk")


def _put_state(place: Place) -> None:
    saved = place.staging / "home"
    for file in sorted(saved.rglob("*")):
        target = place.home / file.relative_to(saved)
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            shutil.copy2(file, target)


def _put_central(place: Place) -> None:
    if place.central_file:
        place.central_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy2(place.staging / "central.db", place.central_file)
    else:
        _fill(Postgres.of_url(place.central_url), place.staging / "central.dump")


def _put_index(place: Place, index: Postgres | None) -> None:
    if index:
        _fill(index, place.staging / "index.dump")
    elif (place.staging / "index.db").exists():
        place.index_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy2(place.staging / "index.db", place.index_file)


def _fill(database: Postgres, dump: Path) -> None:
    if not database.is_empty():
        raise BackupFault(
            f"the database {database.name} is not empty, and a restore never writes over one: make an empty one of "
            "another name, or have PostgreSQL's administrator drop and create it"
        )
    database.put_back(dump)
