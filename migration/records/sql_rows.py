"""Rows of a database, through SQLAlchemy, reading only: what has a driver here can be asked."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from migration.records.mapping import MappingFault, Sql
from migration.records.rows import Raw, Value

#: Rows that wait in memory between the database and us.
_AT_ONCE = 500


def rows(how: Sql, folder: Path, facts: dict[str, Any]) -> Iterator[Raw]:
    """The rows of the mapping's query; MappingFault where the database can't be asked."""
    url = how.url or _secret(folder / how.url_file)
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        file = folder / url.removeprefix("sqlite:///")
        url = f"sqlite:///{file}"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise MappingFault(f"no such database: {url.removeprefix('sqlite:///')}")
    try:
        facts["database"] = make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError as error:
        raise MappingFault(f"the database's URL can't be read: {type(error).__name__}") from None
    yield from query(url, how.query, "row")


def query(url: str, statement: str, word: str) -> Iterator[Raw]:
    """Each row of a SELECT, reading only, a few hundred in memory. MappingFault in the database's own words."""
    kind = url.partition(":")[0]
    try:
        if kind.startswith("sqlite"):
            # The driver itself refuses to write: the old system's file stays as it is, byte for byte.
            path = Path(url.partition("///")[2]).absolute()
            engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
        else:
            engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        options: dict[str, Any] = {"postgresql_readonly": True} if kind.startswith("postgresql") else {}
        with engine.connect().execution_options(**options) as connection:
            found = connection.execution_options(yield_per=_AT_ONCE).execute(text(statement))
            names = list(found.keys())
            for n, row in enumerate(found, 1):
                yield Raw(f"{word} {n}", {name: _value(value) for name, value in zip(names, row, strict=True)})
    except (SQLAlchemyError, ImportError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise MappingFault(f"the database can't be asked: {said}") from error
    finally:
        if "engine" in locals():
            engine.dispose()


def _secret(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise MappingFault(f"{path}: others may read it; it holds a password: chmod 600 {path.name}")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MappingFault(f"{path}: {error.strerror}") from error


def _value(value: Any) -> Value:
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime | date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return str(value).replace("\0", "")
