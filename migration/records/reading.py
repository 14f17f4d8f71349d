"""Rows of an old system, one after the other, whatever they stand in: CSV files, HL7 messages, a database.

A row that can't be told apart is yielded as well, with its fault: it is listed, not lost.
"""

from __future__ import annotations

import csv
import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migration.records import hl7_rows, sql_rows
from migration.records.detecting import Found, detect
from migration.records.mapping import Kind, Mapping, MappingFault, Records
from migration.records.rows import Raw, Value

#: The longest field of a CSV file: a report with a picture in it, as base64.
LONGEST_FIELD = 64 << 20
_BATCH = 500


@dataclass
class Source:
    """One section's rows. `facts` says what was seen of it while `rows` was read."""

    kind: Kind
    records: Records
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_stable(self) -> bool:
        """Whether its rows come in the same order again, so that a pass can go on in its midst."""
        return self.records.from_.sql is None and not self.records.from_.query

    def files(self) -> list[Path]:
        """The files that it reads; MappingFault where one isn't there."""
        named = self.records.from_.csv or self.records.from_.hl7
        found = [self.folder / name for name in named]
        missing = [str(file) for file in found if not file.is_file()]
        if missing:
            raise MappingFault(f"{self.kind}s: no such file: {', '.join(missing)}")
        return found

    def checked_rows(self) -> Iterator[Raw]:
        """Every row; MappingFault before the first where a column that the mapping names isn't there."""
        is_known = bool(self.records.from_.hl7)
        for raw in self.rows():
            if not is_known and not raw.fault:
                is_known = True
                missing = [column for column in self.records.columns if column not in raw.values]
                if missing:
                    there = ", ".join(raw.values)[:500]
                    raise MappingFault(
                        f"{self.kind}s: no column {', '.join(missing)} at {raw.place}; there are {there}"
                    )
            yield raw

    def rows(self) -> Iterator[Raw]:
        """Every row, whatever the mapping makes of it. MappingFault where the source can't be read at all."""
        how = self.records.from_
        if how.hl7:
            for file in self.files():
                yield from hl7_rows.rows(file, self.kind, self.records.columns, self.facts)
        elif how.sql:
            yield from sql_rows.rows(how.sql, self.folder, self.facts)
        elif how.query:
            yield from self._joined()
        else:
            file = self.files()[0]
            yield from _csv(file, self._found(file), how.header, self.facts)

    def _found(self, file: Path) -> Found:
        try:
            found = detect(file, self.records.from_.encoding, self.records.from_.delimiter)
        except LookupError as error:
            raise MappingFault(f"{file.name}: {error}") from error
        shown = {"encoding": found.encoding, "delimiter": found.delimiter, "because": found.because}
        self.facts.setdefault("files", {})[file.name] = shown
        if not found.is_sure:
            _doubt(self.facts, f"{file.name}: is it really {found.encoding}? Look at the accents, or give Encoding")
        return found

    def _joined(self) -> Iterator[Raw]:
        """The CSV files as tables of a database that lasts as long as the reading, and the rows of the query."""
        with tempfile.TemporaryDirectory(prefix="zambezi-records-") as folder:
            path = Path(folder) / "joined.db"
            with closing(sqlite3.connect(path)) as made:
                for file in self.files():
                    _load(made, file, self._found(file), self.facts)
                made.commit()
            yield from sql_rows.query(f"sqlite:///{path}", self.records.from_.query, "query")


def sources(mapping: Mapping, folder: Path) -> list[Source]:
    """The sections that the mapping has, in the order in which they are taken."""
    place = Path(mapping.folder) if mapping.folder else folder
    place = place if place.is_absolute() else folder / place
    named: tuple[Kind, ...] = ("patient", "exam", "report")
    return [Source(kind, records, place) for kind in named if (records := mapping.of(kind)) is not None]


def fingerprint(found: Sequence[Source]) -> str:
    """Changes when a file does; a database has none of its own."""
    told = hashlib.sha256()
    for source in found:
        for file in source.files():
            looked = file.stat()
            told.update(f"{file} {looked.st_size} {looked.st_mtime_ns}\n".encode())
    return told.hexdigest()


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(file: Path, found: Found, header: Sequence[str], facts: dict[str, Any]) -> Iterator[Raw]:
    with file.open(encoding=found.encoding, errors="replace", newline="") as opened, _long_fields():
        reader = csv.reader(_without_nul(opened), delimiter=found.delimiter)
        names: list[str] = list(header)
        # What was found to be UTF-8 is so to its last byte; the mark in it is the old system's own.
        may_be_wrong = not found.encoding.startswith("utf") or found.is_given
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Raw(f"{file.name}:{reader.line_num}", {}, f"the line can't be read as CSV: {error}")
                continue
            if not row or not any(value.strip() for value in row):
                continue
            if not names:
                names = _distinct([name.strip() for name in row], file.name, facts)
                continue
            place = f"{file.name}:{reader.line_num}"
            if may_be_wrong and any("\ufffd" in value for value in row):
                yield Raw(place, _numbered(row), f"some of its bytes are no {found.encoding}; give the right Encoding")
                continue
            yield _row(place, names, row)


def _row(place: str, names: Sequence[str], row: Sequence[str]) -> Raw:
    if len(row) == len(names):
        return Raw(place, dict(zip(names, row, strict=True)))
    return Raw(
        place, _numbered(row), f"{len(row)} values under {len(names)} columns: a delimiter or quote inside a value?"
    )


def _numbered(row: Sequence[str]) -> dict[str, Value]:
    return {f"value {n}": value for n, value in enumerate(row, 1)}


def _without_nul(lines: Any) -> Iterator[str]:
    for line in lines:
        yield line.replace("\0", "")


def _distinct(names: list[str], file: str, facts: dict[str, Any]) -> list[str]:
    made: list[str] = []
    for n, name in enumerate(names, 1):
        wanted = name or f"column {n}"
        if wanted in made:
            _doubt(facts, f"{file}: column {wanted} stands twice; the second is called {wanted}#{n}")
            wanted = f"{wanted}#{n}"
        made.append(wanted)
    return made


def _load(made: sqlite3.Connection, file: Path, found: Found, facts: dict[str, Any]) -> None:
    table = '"' + file.stem.replace('"', "") + '"'
    names: list[str] = []
    batch: list[tuple[Value, ...]] = []
    for raw in _csv(file, found, (), facts):
        if raw.fault:
            # A line that joins nothing can't be listed with the rows it would have made: the count is.
            _doubt(facts, f"{raw.place}: {raw.fault}")
            continue
        if not names:
            names = list(raw.values)
            made.execute(f"CREATE TABLE {table} ({', '.join(_quoted(name) for name in names)})")
        batch.append(tuple(raw.values.values()))
        if len(batch) >= _BATCH:
            _insert(made, table, len(names), batch)
    if batch:
        _insert(made, table, len(names), batch)


def _insert(made: sqlite3.Connection, table: str, width: int, batch: list[tuple[Value, ...]]) -> None:
    made.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", batch)  # noqa: S608  # a file's own name
    batch.clear()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '" TEXT'


def _doubt(facts: dict[str, Any], words: str) -> None:
    doubts = facts.setdefault("doubts", [])
    if len(doubts) < 50 and words not in doubts:
        doubts.append(words)
