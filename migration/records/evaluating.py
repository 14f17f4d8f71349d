"""What a row means by the mapping: each field's value, or why it has none. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from migration.records.mapping import FIELDS, Kind, Records, Take
from migration.records.rows import Raw, Value
from zambezi import clock
from zambezi.orders import PRIORITIES

#: States of an exam that is over; one that isn't has no place among old records.
OVER = ("completed", "discontinued", "cancelled")
_DATES = ("%Y%m%d", "%Y-%m-%d", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y", "%Y/%m/%d")
_TIMES = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
          "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M")  # fmt: skip
_FRACTION = re.compile(r"(\d{2}:?\d{2}:?\d{2})\.\d+")
_ZONE = re.compile(r"(?:[+-]\d{2}:?\d{2}|Z)$")
_UID = re.compile(r"^(?=.{1,64}$)(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+$")
#: The longest text a field of ours holds.
_LONGEST = {"identifier": 64, "short": 16, "text": 200, "long": 1_000_000}
_EARLIEST_YEAR = 1850


class _Bad(ValueError):
    """Why a value can't be taken."""


@dataclass(frozen=True)
class Shown:
    """One field of a row: what stood there, what it becomes, and what is wrong with it (empty: nothing)."""

    name: str
    raw: str
    value: str
    fault: str = ""
    is_fatal: bool = False


@dataclass(frozen=True)
class Meant:
    """A row, read. It can be taken unless there are `faults`; `notes` are values that were left away as allowed."""

    key: str
    values: AnyMapping[str, Value]
    fields: tuple[Shown, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def text(self, name: str) -> str:
        """A field that isn't bytes, "" where there is none."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else ""


def meant(kind: Kind, records: Records, raw: Raw, zone: ZoneInfo, now: datetime) -> Meant:
    """Read the row by its section of the mapping."""
    if raw.fault:
        return Meant(f"({raw.place})"[:200], {}, (), (raw.fault,), ())
    missing = sorted({c for c in records.columns if c not in raw.values})
    if missing:
        there = ", ".join(sorted(raw.values))[:300]
        fault = f"the source has no column {', '.join(missing)}; it has {there}"
        return Meant(f"({raw.place})"[:200], {}, (), (fault,), ())
    shown = tuple(_field(name, take, kind, records, raw, zone, now) for name, take in records.fields.items())
    values: dict[str, Value] = {}
    for one in shown:
        content = _content(records.fields[one.name], raw) if FIELDS[kind][one.name][0] == "content" else one.value
        if content and not one.fault:
            values[one.name] = content
    faults = [f"{one.name}: {one.fault}" for one in shown if one.fault and one.is_fatal]
    notes = [f"{one.name} left empty: {one.fault}" for one in shown if one.fault and not one.is_fatal]
    key = "|".join(_plain(raw.values[column]).strip() for column in records.key)
    if not key.strip("|"):
        faults.append(f"its key ({', '.join(records.key)}) is empty")
        key = f"({raw.place})"
    if len(key) > 200:
        key = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    faults += _incomplete(kind, values)
    return Meant(key, values, shown, tuple(faults), tuple(notes))


def digest(found: Meant, document: bytes | None = None) -> str:
    """SHA-256 of what the row means here, whatever else the old system changes in it; and of its report's file."""
    told = hashlib.sha256()
    for name in sorted(found.values):
        value = found.values[name]
        body = value if isinstance(value, bytes) else value.encode()
        told.update(f"{name} {len(body)} ".encode() + body)
    if document is not None:
        told.update(hashlib.sha256(document).digest())
    return told.hexdigest()


def full_name(found: Meant) -> tuple[str, str]:
    """Family and given name. One that is written as a whole: `Machava^José`, `Machava, José`, `José Machava`."""
    family, given = found.text("FamilyName"), found.text("GivenName")
    whole = found.text("Name")
    if family or given or not whole:
        return family, given
    for mark in ("^", ","):
        if mark in whole:
            family, _, given = whole.partition(mark)
            return family.strip(), given.replace("^", " ").strip()
    given, _, family = whole.rpartition(" ")
    return family, given


def _incomplete(kind: Kind, values: AnyMapping[str, Value]) -> list[str]:
    faults = []
    if kind == "patient" and not {"Name", "FamilyName", "GivenName"} & set(values):
        faults.append("the patient has no name")
    if kind == "report" and not {"Text", "File", "Content"} & set(values):
        faults.append("the report says nothing: neither text nor document")
    if kind == "report" and not {"PatientID", "AccessionNumber", "StudyUID"} & set(values):
        faults.append("nothing says whose report it is: no Study UID, accession number or patient")
    return faults


def _field(
    name: str, take: Take, kind: Kind, records: Records, raw: Raw, zone: ZoneInfo, now: datetime
) -> Shown:  # fmt: skip
    how, needed = FIELDS[kind][name]
    written = take.constant or _written(take, raw)
    told = written if len(written) <= 400 else f"{written[:400]} …"
    value = "" if written.strip() in records.empty else written
    try:
        if how == "content":
            return Shown(name, told, _shown_content(_content(take, raw)))
        value = _shaped(take, value if how == "long" else value.strip())
        value = _read(how, value, take, zone, now)
    except _Bad as bad:
        return Shown(name, told, "", str(bad), needed or take.if_bad == "refuse")
    if needed and not value:
        return Shown(name, told, "", "nothing is there", True)
    return Shown(name, told, value)


def _written(take: Take, raw: Raw) -> str:
    if take.columns:
        parts = [_plain(raw.values[column]).strip() for column in take.columns]
        return take.join.join(parts).strip(take.join + " ")
    return next((text for column in take.origins if (text := _plain(raw.values[column])).strip()), "")


def _plain(value: Value) -> str:
    """Bytes of a database that are text: UTF-8, else Windows' encoding."""
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def _content(take: Take, raw: Raw) -> bytes:
    for column in take.origins:
        value = raw.values[column]
        if isinstance(value, bytes):
            return value
        if value.strip():
            try:
                return base64.b64decode("".join(value.split()), validate=True)
            except (binascii.Error, ValueError):
                raise _Bad("it is neither bytes nor base64") from None
    return b""


def _shown_content(content: bytes) -> str:
    return f"{len(content)} bytes" if content else ""


def _shaped(take: Take, value: str) -> str:
    if take.pattern and value:
        match = re.search(take.pattern, value)
        if match is None:
            raise _Bad(f"it doesn't match {take.pattern}")
        value = (match.group(1) if match.re.groups else match.group()) or ""
    if take.values and (value or "" in take.values):
        if value in take.values:
            value = take.values[value]
        elif take.otherwise is not None:
            value = take.otherwise
        else:
            raise _Bad(f"{value[:80]!r} is not among Values ({', '.join(take.values)})")
    if value and take.pad_to:
        value = value.rjust(take.pad_to, "0")
    return take.prefix + value if value else value


def _read(how: str, value: str, take: Take, zone: ZoneInfo, now: datetime) -> str:
    if not value:
        return ""
    if how in _LONGEST and len(value) > _LONGEST[how]:
        raise _Bad(f"it has {len(value)} characters; {_LONGEST[how]} fit")
    if how == "date":
        return f"{_moment(value, take.formats or (*_DATES, *_TIMES), zone, now):%Y%m%d}"
    if how == "moment":
        return clock.text(_moment(value, take.formats or (*_TIMES, *_DATES), zone, now))
    if how == "uid" and not _UID.match(value):
        raise _Bad(f"{value[:80]!r} is no UID (DICOM PS3.5 9.1: at most 64 digits and dots)")
    if how in ("short", "identifier") and "\\" in value:
        raise _Bad("a backslash separates values in DICOM and can't be part of one")
    if how == "sex":
        return _one_of(value.upper(), ("M", "F", "O", "U"))
    if how == "priority":
        return _one_of(value.upper(), PRIORITIES)
    if how == "status" and value not in OVER:
        raise _Bad(
            f"{value[:40]!r}: only exams that are over ({', '.join(OVER)}) are old records; "
            "what is still to be done is ordered here anew"
        )
    return value


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _Bad(f"{value[:40]!r} is none of {', '.join(allowed)}; map it in Values")
    return value


def _moment(value: str, formats: tuple[str, ...], zone: ZoneInfo, now: datetime) -> datetime:
    bare = _FRACTION.sub(r"\1", value)
    offset = _ZONE.search(bare) if ":" in bare or len(bare) > 14 else None
    for form in formats:
        try:
            if offset and "%z" not in form:
                found = datetime.strptime(bare, f"{form}%z")
            else:
                found = datetime.strptime(bare, form)  # noqa: DTZ007  # its zone follows
        except ValueError:
            continue
        found = found if found.tzinfo else found.replace(tzinfo=zone)
        if "%y" in form and found > now:  # of two digits, 31 is 1931 for who was born
            found = found.replace(year=found.year - 100)
        if found.year < _EARLIEST_YEAR or found > now + timedelta(days=1):
            raise _Bad(f"{value!r} would be {found:%Y-%m-%d}, which can't be")
        return found
    raise _Bad(f"{value[:40]!r} is no date in any of the formats {', '.join(formats)}")
