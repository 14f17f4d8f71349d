"""What an installation's data lie in: Orthanc's index and the central database, SQLite or PostgreSQL each.

The configuration says what is wanted; ZAMBEZI_HOME/engines.json says what is there. Where they differ, a start would
show an empty archive, and the journal would take every image for deleted: it is refused, and `zambezi move` named.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from zambezi import durable
from zambezi.config import Configuration
from zambezi.environment import Environment

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
#: In PostgreSQL's words of the section of the same name in Orthanc's configuration; never the password.
_TOLD = ("Host", "Port", "Database", "Username")


@dataclass(frozen=True)
class Engines:
    """Where the index and the central database are: `index` and `database` are engines, the others say where."""

    index: str
    index_at: str
    database: str
    database_at: str


def wanted(environment: Environment, configuration: Configuration) -> Engines:
    """What the configuration and ZAMBEZI_DATABASE_URL name."""
    section = configuration.orthanc.get("PostgreSQL")
    postgresql = isinstance(section, dict) and section.get("EnableIndex") is True
    at = " ".join(str(section.get(name, "")) for name in _TOLD) if postgresql and section else ""
    return Engines(
        POSTGRESQL if postgresql else SQLITE, at,
        SQLITE if environment.database_url.startswith("sqlite") else POSTGRESQL,
        without_password(environment.database_url),
    )  # fmt: skip


def present(environment: Environment) -> Engines | None:
    """What is there, as it was recorded, or as files tell of an installation that never recorded it; None if new."""
    try:
        return Engines(**json.loads(_file(environment).read_bytes()))
    except FileNotFoundError:
        pass
    central = environment.home / "zambezi.db"
    if not _has_images(environment.index_dir / "index") and not central.exists():
        return None
    if not central.exists():
        return Engines(SQLITE, "", "", "")
    return Engines(SQLITE, "", SQLITE, f"sqlite:///{central}")


def record(environment: Environment, engines: Engines) -> None:
    """Remember what is there now."""
    content = json.dumps(asdict(engines), indent=1).encode()
    file = _file(environment)
    if not file.exists() or file.read_bytes() != content:
        durable.replace(file, content)


def faults(environment: Environment, configuration: Configuration) -> list[str]:
    """Why this installation must not be started with this configuration."""
    if phase_file(environment).exists():
        return ["a move of this archive was cut off at its end; `zambezi move to ...` again finishes it"]
    there, asked = present(environment), wanted(environment, configuration)
    if there is None:
        return []
    if there.index != asked.index and _holds_something(environment, there):
        return [
            f"the archive's index is on {there.index}, but the configuration names {asked.index}: an empty archive "
            f"would start; `zambezi move to {asked.index}` brings all over, or take the change back"
        ]
    if there.database and there.database != asked.database:
        return [
            f"the central database is on {there.database}, but ZAMBEZI_DATABASE_URL names one on {asked.database}: an "
            f"empty one would start; `zambezi move to {asked.database}` brings all over, or take the change back"
        ]
    return []


def without_password(url: str) -> str:
    """The URL as it may be written down."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    place = f"{parts.username}@{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    return urlunsplit(parts._replace(netloc=place))


def phase_file(environment: Environment) -> Path:
    """There while the old archive and the new one change places."""
    return environment.home / "move" / "changing-places"


def _file(environment: Environment) -> Path:
    return environment.home / "engines.json"


def _holds_something(environment: Environment, there: Engines) -> bool:
    return there.index == POSTGRESQL or _has_images(environment.index_dir / "index")


def _has_images(index: Path) -> bool:
    if not index.exists():
        return False
    try:
        with closing(sqlite3.connect(index)) as database:
            return database.execute("SELECT 1 FROM AttachedFiles LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError:
        return True  # damaged, or an Orthanc is running: not for this to say
