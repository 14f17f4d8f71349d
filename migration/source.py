"""What every legacy source has in common, whatever it speaks; and what may not be believed of it.

A source cuts its answers off openly or silently (a count that is always the same); its numbers of related instances
are claims. Believed are UIDs that it names. The kinds: migration.dicom_source and its siblings, opened by
migration.sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from zambezi import retries
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass
from zambezi.retrieving import Rung

if TYPE_CHECKING:  # they know this module
    from migration.desk import Desk
    from migration.inventory import Coverage, Found


class CutOff(Exception):
    """The source ended its answers early: the same must be asked in smaller parts."""


class Trouble(Exception):
    """The source or the way to it failed; `kind` says what to do (zambezi.retries).

    transient: try the same again later; object: ask for smaller parts, then leave to a person;
    configuration: nothing will work until an administrator has changed something; disk: all of migration waits.
    `is_ours`: it was the archive that failed, so nothing is said of the source. `took_long`: the source was heard,
    and then said nothing for too long, which is no failure of one that fetches from tape.
    """

    def __init__(self, kind: ErrorClass, text: str, is_ours: bool = False, took_long: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.is_ours = is_ours
        self.took_long = took_long


#: DCMTK's words (dimse.h) for an association on which nothing came in time.
_SILENT = re.compile("timeout in non-blocking mode")


def trouble_of(details: str, code: int | None = None) -> Trouble:
    """What Orthanc's error details (and a job's ErrorCode) mean."""
    first_line = details.strip().splitlines()[0][:300] if details.strip() else "no details"
    return Trouble(retries.of_orthanc(details, "query", code), first_line, took_long=bool(_SILENT.search(details)))


RUNGS: tuple[Rung, ...] = ("Study", "Series", "Instance")

_LEVEL_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Request:
    """One retrieve: the level and the unique keys that name what is wanted; `count`: about so many instances."""

    level: Rung
    keys: tuple[str, ...]
    count: int = field(default=1, compare=False)

    @property
    def query(self) -> dict[str, str]:
        return dict(zip(_LEVEL_KEYS, self.keys, strict=False))


@dataclass(frozen=True)
class Named:
    """One instance as the source names it; what it doesn't say is empty. `md5`: of the source's own file, hex."""

    series_uid: str
    sop_class: str = ""
    syntax: str = ""
    size: int = 0
    md5: str = ""


@dataclass(frozen=True)
class Counted:
    """The instances that the source names for one study, by SOP Instance UID, and whether two counts agreed.

    `patients`: identifiers of the patients whose study it is at this moment, as far as the source says. `repeated`:
    SOP Instance UIDs that it names more than once, and how often: it has so many objects under one identity, of which
    some sources send but one.
    """

    instances: dict[str, Named]
    modalities: tuple[str, ...]
    agreed: bool
    patients: frozenset[str] = frozenset()
    repeated: Mapping[str, int] = field(default_factory=dict)


def more_than_once(times: Mapping[str, int]) -> dict[str, int]:
    """Of how often each was named, those that were named more than once."""
    return {uid: n for uid, n in times.items() if n > 1}


@dataclass(frozen=True)
class Given:
    """What passed through us on its way from the source: MD5 (hex) and canonical digest of the source's own bytes."""

    md5: str
    digest: str | None


@dataclass(frozen=True)
class Compared:
    """One instance, both sides: canonical digests, whether they are equal, and the tags that differ."""

    verdict: str  # equal, different
    source_digest: str | None
    stored_digest: str | None
    stored_md5: str | None
    differs_in: tuple[str, ...] = ()
    source_md5: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict, "source_digest": self.source_digest, "stored_digest": self.stored_digest,
            "stored_md5": self.stored_md5, "reason": ", ".join(self.differs_in) or None,
            **({"source_md5": self.source_md5} if self.source_md5 else {}),
        }  # fmt: skip


@dataclass
class Checked:
    """What the comparison of a study gave: by SOP Instance UID; what the source did not send; what stood in the way."""

    compared: dict[str, Compared] = field(default_factory=dict)
    not_sent: set[str] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """One study under way: what the source names of it, what the archive holds of it (Orthanc ids), what was given.

    `arrived`: by Orthanc id the SHA-256 of the file on the disk, where that is proven to be what arrived (level 2).
    """

    uid: str
    expected: Mapping[str, Named]
    held: Mapping[str, list[str]]
    given: Mapping[str, Given]
    arrived: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """What a source can do, as it was tried: name of the ability, whether it has it, and in words what was seen."""

    abilities: dict[str, tuple[bool, str]]


class Source(Protocol):
    """One legacy source. All of them raise CutOff, Trouble or zambezi.orthanc_client.OrthancError.

    One that can be asked by matching (migration.survey.Asked) is asked slice by slice in an inventory.
    """

    #: dicom, orthanc, dicomweb, folder
    kind: str

    @property
    def queries(self) -> int:
        """So many questions were asked."""

    def probe(self) -> Probe:
        """Try what it can; nothing is stored by it, neither there nor here."""

    def find_studies(self, today: date) -> tuple[Found, Coverage]:
        """Every study it has, and how far that is shown to be all (migration.inventory)."""

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """Name every instance of a study, until two counts in a row agree.

        Counted but once, it may be names alone: of class, syntax and size nothing need be said.
        """

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        """Before what is missing is counted: let end what a worker that died left running."""

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        """Bring into the archive what one request names; by SOP Instance UID, what passed through us meanwhile."""

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        """Compare the wanted instances with the source (level 3); `keep` gets results bit by bit."""
