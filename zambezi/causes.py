"""Why something was stored (DESIGN rule 2): the causes there are, and which of them a rule names. Pure.

Standard library only: the plugin inside Orthanc knows them, too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

MODALITY = "modality"
MIGRATION = "migration"
#: An earlier study of a patient, fetched from another archive because a new one came.
PREFETCH = "prefetch"
REPORT = "report"
CORRECTION = "correction"
RESTORE = "restore"

#: What an order's priority counts as, beside a rule's own.
ORDERED = {"STAT": 100, "HIGH": 50}

ALL = (MODALITY, MIGRATION, PREFETCH, REPORT, CORRECTION, RESTORE)

#: In rules this word stands for all that we store ourselves.
OURSELVES = "ourselves"
OURS = frozenset({REPORT, CORRECTION, RESTORE})


@dataclass(frozen=True)
class Because:
    """A cause with what it refers to: "order Z26000017", a migration project, "correction 12", "hold 7"; or nothing."""

    cause: str
    reference: str = ""
    sha256: str = ""  # of the very bytes that were announced, where they are known
    priority: str = ""  # STAT, HIGH or ROUTINE, of the order that announced it
    #: Of a migration: what is changed in the study's images as they come, DICOM keyword and value.
    changes: tuple[tuple[str, str], ...] = ()


def covers(named: Collection[str], cause: str) -> bool:
    """Whether a rule that names these causes acts on what came by this one."""
    return cause in named or (OURSELVES in named and cause in OURS)
