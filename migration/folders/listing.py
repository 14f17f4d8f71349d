"""Choosing among the files of an index, and showing one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from migration.folders.summary import UNREAD
from zambezi.database.tables import FolderFile

KINDS = (
    "dicom", "no-identity", "dicomdir", "archive", "packed", "unread", "changing", "absent", "link", "special", "other",
)  # fmt: skip
VERDICTS = ("migrate", "copy", "conflict", "held", "listed", "gone")


@dataclass(frozen=True)
class Selection:
    """Which files are meant; empty: all. `unread`: what may be an image and could not be looked at, or is absent."""

    kind: str = ""
    verdict: str = ""
    unread: bool = False

    def conditions(self, source: str) -> list[ColumnElement[bool]]:
        found = [FolderFile.source == source]
        if self.kind:
            found.append(FolderFile.kind == self.kind)
        if self.verdict:
            found.append(FolderFile.verdict == self.verdict)
        if self.unread:
            found += [FolderFile.kind.in_((*UNREAD, "absent")), FolderFile.verdict != "gone"]
        return found


def document(row: FolderFile) -> dict[str, Any]:
    """One file, as plain JSON."""
    return {
        "id": row.id, "place": row.place, "kind": row.kind, "verdict": row.verdict, "reason": row.reason,
        "bytes": row.size, "md5": row.md5, "same_as": row.same_as, "named_by_dicomdir": row.named,
        "held_sha256": row.held_sha256, "study_uid": row.study_uid, "series_uid": row.series_uid,
        "sop_uid": row.sop_uid, "sop_class": row.sop_class, "transfer_syntax": row.syntax,
    }  # fmt: skip
