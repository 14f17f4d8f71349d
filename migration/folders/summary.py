"""What an index shows, in figures: for the certificate, the commands, the pages and whoever must look.

Names of files are often names of patients, so none of these words holds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration.inventory import Coverage
from zambezi import exceptions
from zambezi.database.tables import FolderFile, FolderWalk

ROOM = "migration"
#: The label of the page that an exception leads to; in the catalogue of the folder's page.
OPEN = "What lies in the folder"
#: Endings of names that promise a DICOM file.
_PROMISING = ("dcm", "dicom", "ima", "dic")
#: What stands behind the number of files.
DOUBTS = {
    "unread": "files could not be read",
    "changing": "files changed while they were read",
    "packed": "files are archives that were not looked into",
    "link": "symbolic links were not followed",
    "conflict": "files have another's SOP Instance UID and other content: in the hold",
    "no-identity": "DICOM files name no study, series or instance: in the hold",
    "promising": "files are called DICOM by their names, and are none",
    "absent": "files are named by a DICOMDIR, but are not there",
    "unnamed": "DICOM files lie beside a DICOMDIR that does not name them (they are brought)",
    "unclear": "DICOMDIR can't be compared with what lies beside them",
}
#: What may be an image and could not be looked at.
UNREAD = ("unread", "changing", "packed")


def counts(session: Session, source: str) -> list[dict[str, Any]]:
    """How many files of each kind, verdict and extension there are, and their bytes; the most first."""
    number = func.count()
    query = (
        select(FolderFile.kind, FolderFile.verdict, FolderFile.extension, number, func.sum(FolderFile.size))
        .where(FolderFile.source == source)
        .group_by(FolderFile.kind, FolderFile.verdict, FolderFile.extension)
        .order_by(number.desc(), FolderFile.kind, FolderFile.verdict, FolderFile.extension)
    )
    keys = ("kind", "verdict", "extension", "files", "bytes")
    return [dict(zip(keys, (*row[:4], int(row[4] or 0)), strict=True)) for row in session.execute(query)]


def total(found: list[dict[str, Any]], **what: tuple[str, ...]) -> int:
    """Files among counts whose kind, verdict or extension is one of these."""
    return sum(one["files"] for one in found if all(one[key] in values for key, values in what.items()))


def walk(session: Session, source: str) -> Mapping[str, Any] | None:
    """How far the latest walk is; None where there was none."""
    found = session.get(FolderWalk, source)
    if found is None:
        return None
    return {
        "number": found.number, "started_at": found.started_at, "updated_at": found.updated_at,
        "finished_at": found.finished_at, "files": found.files, "read": found.read, "bytes": found.size,
    }  # fmt: skip


def describe(session: Session, source: str, coverage: Coverage) -> None:
    """Put into a coverage what becomes of the files, and what is doubtful about them."""
    found = [one for one in counts(session, source) if one["verdict"] != "gone"]
    kinds = sorted({(one["kind"], one["verdict"]) for one in found})
    coverage.slices = [[kind, total(found, kind=(kind,), verdict=(verdict,)), verdict] for kind, verdict in kinds]
    coverage.doubts += doubts(session, source, found)


def doubtful(session: Session, source: str, found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """What a person should know before believing that this is all there is: words of DOUBTS and how many files."""
    here = (FolderFile.source == source, FolderFile.verdict != "gone")
    unnamed = (*here, FolderFile.kind == "dicom", FolderFile.named.is_(False))
    unclear = (*here, FolderFile.kind == "dicomdir", FolderFile.reason != "")
    numbers = {
        "unread": total(found, kind=("unread",)), "changing": total(found, kind=("changing",)),
        "packed": total(found, kind=("packed",)), "link": total(found, kind=("link",)),
        "conflict": total(found, verdict=("conflict",)), "no-identity": total(found, kind=("no-identity",)),
        "promising": total(found, kind=("other",), extension=_PROMISING), "absent": total(found, kind=("absent",)),
        "unnamed": session.scalar(select(func.count()).where(*unnamed)) or 0,
        "unclear": session.scalar(select(func.count()).where(*unclear)) or 0,
    }  # fmt: skip
    return [(code, numbers[code]) for code in DOUBTS if numbers[code]]


def doubts(session: Session, source: str, found: list[dict[str, Any]]) -> list[str]:
    """The same in words."""
    return [f"{count} {DOUBTS[code]}" for code, count in doubtful(session, source, found)]


def tell(session: Session, source: str, now: datetime) -> None:
    """Put before a person what may be an image and could not be looked at, or was lost; or that it is settled."""
    found = [one for one in counts(session, source) if one["verdict"] != "gone"]
    unread, absent = total(found, kind=UNREAD), total(found, kind=("absent",))
    reference = f"folder {source}"
    if not unread + absent:
        exceptions.decide(session, ROOM, reference, who="zambezi", decision="all files can be read", now=now)
        return
    exceptions.wait(
        session, ROOM, reference, kind="folder-unread", now=now,
        what=f"{unread} files of {source} could not be read or looked into; {absent} of a DICOMDIR are not there",
        suggestion=f"zambezi migrate files {source} --unread lists them; then take the inventory again",
        facts={"source": source, "unread": unread, "absent": absent},
        actions=[{"label": OPEN, "href": f"/migrations/folders/{source}?kind=unread-all"}],
    )  # fmt: skip
