"""What a legacy archive is asked, by C-FIND through Orthanc, and what its answers may not be believed for.

A source cuts its answers off openly (status 0xFE00 or 0xA700, PS3.4 C.4.1) or silently (a count that is
always the same); its numbers of related instances are claims. Believed are UIDs that it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zambezi import retries
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass

#: Study-level attributes that an inventory asks for.
STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "StudyTime", "PatientID", "ModalitiesInStudy")

#: DIMSE statuses (PS3.4 C.4.1) by which a source says that it has cut its answers off.
_CUT_OFF = {0xFE00, 0xA700}


class CutOff(Exception):
    """The source ended its answers early: the same must be asked in smaller parts."""


class Trouble(Exception):
    """The source or the way to it failed; `kind` says what to do (zambezi.retries).

    transient: try the same again later; object: ask for smaller parts, then leave to a person;
    configuration: nothing will work until an administrator has changed something; disk: all of migration waits.
    `is_ours`: it was the archive that failed, so nothing is said of the source.
    """

    def __init__(self, kind: ErrorClass, text: str, is_ours: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.is_ours = is_ours


def trouble_of(details: str, code: int | None = None) -> Trouble:
    """What Orthanc's error details (and a job's ErrorCode) mean."""
    first_line = details.strip().splitlines()[0][:300] if details.strip() else "no details"
    return Trouble(retries.of_orthanc(details, "query", code), first_line)


@dataclass(frozen=True)
class Counted:
    """The instances that the source names for one study, series by series, and whether two counts agreed."""

    series: dict[str, frozenset[str]]
    modalities: tuple[str, ...]
    agreed: bool

    @property
    def instances(self) -> dict[str, str]:
        """Series Instance UID by SOP Instance UID."""
        return {sop_uid: series_uid for series_uid, sop_uids in self.series.items() for sop_uid in sop_uids}


class Source:
    """One legacy archive, by its name in DicomModalities."""

    def __init__(self, client: OrthancClient, peer: str) -> None:
        self._client = client
        self._peer = peer
        self.queries = 0

    def studies(self, **matching: str) -> list[dict[str, str]]:
        """The studies that match; CutOff, Trouble or OrthancUnreachable."""
        return self._ask("Study", {**dict.fromkeys(STUDY_KEYS, ""), **matching})

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """Name every instance of a study, until two counts in a row agree (at most four)."""
        counts = [self._count_once(study_uid)]
        while times > 1 and len(counts) < 4 and (len(counts) < 2 or counts[-1] != counts[-2]):
            counts.append(self._count_once(study_uid))
        series, modalities = counts[-1]
        return Counted(series, modalities, times == 1 or counts[-1] == counts[-2])

    def _count_once(self, study_uid: str) -> tuple[dict[str, frozenset[str]], tuple[str, ...]]:
        found = self._ask("Series", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", "Modality": ""})
        series = {}
        for uid in _named(found, "SeriesInstanceUID"):
            images = self._ask(
                "Instance", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": uid, "SOPInstanceUID": ""}
            )
            series[uid] = frozenset(_named(images, "SOPInstanceUID"))
        return series, tuple(sorted(_named(found, "Modality")))

    def _ask(self, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        self.queries += 1
        try:
            return self._client.query(self._peer, level, query)
        except OrthancRefused as error:
            if retries.dimse_status(str(error)) in _CUT_OFF:
                raise CutOff(str(error)) from error
            raise trouble_of(str(error)) from error


def _named(answers: Iterable[dict[str, str]], attribute: str) -> list[str]:
    values = (str(answer.get(attribute, "")).strip(" \0") for answer in answers)
    return sorted({value for value in values if value})
