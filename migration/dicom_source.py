"""A legacy archive that speaks DICOM: asked by C-FIND, and retrieved from by C-MOVE to our own AE title, by Orthanc.

A status of success proves nothing (PS3.4 C.4.2); what is in the archive afterwards does. The comparison is by a
second retrieve (migration.verify).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import date

from migration import getting, inventory, probing, verify
from migration.desk import Closed, Desk
from migration.slices import LEAST_LIMIT
from migration.source import (
    Checked,
    Compared,
    Counted,
    CutOff,
    Given,
    Named,
    Probe,
    Request,
    Study,
    Trouble,
    more_than_once,
    trouble_of,
)
from zambezi import retries
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass

log = logging.getLogger(__name__)

#: Study-level attributes that an inventory asks for.
STUDY_KEYS = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate",
    "PatientSex", "AccessionNumber", "StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedInstances",
    "InstanceAvailability",
)  # fmt: skip

#: Beside the name of each image; for these some archives open every one of its files.
_DETAILS = ("SOPClassUID", "AvailableTransferSyntaxUID")

#: DIMSE statuses (PS3.4 C.4.1) by which a source says that it has cut its answers off.
_CUT_OFF = {0xFE00, 0xA700}
_FIRST_POLL_SECONDS, _POLL_SECONDS = 0.02, 0.25
#: A move is not asked for before so much of the time has passed that it should take, as the one before did; but no
#: longer than this: the one before may have hung.
_EXPECTED, _LONGEST_SECONDS = 0.8, 5.0


class DicomSource:
    """One legacy archive of DicomModalities; `settings` are those of the migration's source."""

    kind = "dicom"

    def __init__(self, client: OrthancClient, peer: Modality, settings: MigrationSource) -> None:
        self._client, self._modality, self._settings = client, peer, settings
        self._peer = peer.name
        self._reservations: set[str] = set()
        self._each = 0.0  # seconds that each image of the last move took
        self._answers_get = False
        self.queries = 0

    def probe(self) -> Probe:
        return probing.probe(self._client, self._modality, self._settings.aet)

    def find_studies(self, today: date) -> tuple[inventory.Found, inventory.Coverage]:
        return inventory.find_studies(self, today)

    def reservations(self) -> list[str]:
        return sorted(self._reservations)

    def studies(self, **matching: str) -> list[dict[str, str]]:
        """The studies that match; CutOff, Trouble or OrthancUnreachable."""
        return self._ask("Study", {**dict.fromkeys(STUDY_KEYS, ""), **matching})

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """Name every instance of a study, until two counts in a row agree (at most four).

        Every second one asks for names alone, and so does one that is the only one: for more than names many an
        archive opens every file.
        """
        counts = [self._count_once(study_uid, has_details=times > 1)]
        while times > 1 and len(counts) < 4 and (len(counts) < 2 or not _agree(*counts[-2:])):
            counts.append(self._count_once(study_uid, has_details=len(counts) == 2))
        instances, modalities, repeated = counts[-1]
        details = {sop_uid: one for named, *_ in counts[::2] for sop_uid, one in named.items()}
        instances = {
            sop_uid: replace(details.get(sop_uid, one), series_uid=one.series_uid) for sop_uid, one in instances.items()
        }
        if repeated and self._settings.repeats_answers:
            self._reservations.add("what the source names more than once is one object, as RepeatsAnswers says of it")
            repeated = {}
        owners = self._ask("Study", {"StudyInstanceUID": study_uid, "PatientID": ""})
        patients = frozenset(_value(owner, "PatientID") for owner in owners)
        return Counted(instances, modalities, times == 1 or _agree(*counts[-2:]), patients, repeated)

    def _count_once(self, study_uid: str, has_details: bool = True) -> _Count:
        keys = ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
        found = self._ask("Series", {"StudyInstanceUID": study_uid, **dict.fromkeys(keys, "")})
        claims = {_value(one, keys[0]): _value(one, keys[2]) for one in found}
        instances: dict[str, Named] = {}
        times: Counter[str] = Counter()
        try:
            for uid in _named(found, "SeriesInstanceUID"):
                claimed = int(claims[uid]) if claims[uid].isdecimal() else 0
                instances |= self._series(study_uid, uid, claimed, has_details, times)
        except Trouble as trouble:
            if trouble.kind not in (ErrorClass.OBJECT, ErrorClass.CONFIGURATION):
                raise
            instances = self._by_sending(study_uid, trouble)
        return instances, tuple(sorted(_named(found, "Modality"))), more_than_once(times)

    def _series(
        self, study_uid: str, series_uid: str, claimed: int, has_details: bool, times: Counter[str]
    ) -> dict[str, Named]:
        """The images of a series: by one question, or number by number where its answers are cut off, said or unsaid.

        `times` is told how often each is named. Trouble (of kind object) where they can't be named.
        """
        cut = ""
        found: dict[str, Named] = {}
        try:
            found = self._images(study_uid, series_uid, has_details, times)
        except CutOff as error:
            cut = str(error)
        if not cut and (claimed <= len(found) or len(found) < LEAST_LIMIT):
            return found
        for number in range(1, 2 * claimed + 1):  # numbers have gaps; where nothing more comes a claim is stale
            if len(found) >= claimed:
                return found
            # What is named again may be an answer to a question by number that the source doesn't understand.
            found |= self._images(study_uid, series_uid, has_details, Counter(), InstanceNumber=str(number))
        if cut:
            words = f"the source cuts off the images of series {series_uid} ({cut}), and names them by number in vain"
            raise Trouble(ErrorClass.OBJECT, words)
        return found

    def _by_sending(self, study_uid: str, why: Trouble) -> dict[str, Named]:
        """One that does not name images (0xA900) shows what it has by sending it, to nobody."""
        try:
            self._be_sure_of_get()
            named = getting.names(self._modality, self._settings, study_uid)
        except Trouble as trouble:
            if trouble.kind is ErrorClass.TRANSIENT:
                raise
            # Other studies may be named all the same: this one waits for a person, not all of them.
            raise Trouble(ErrorClass.OBJECT, f"{why}; {trouble}") from trouble
        self._reservations.add("the source does not name the images of some studies; named is what it sends by C-GET")
        return named

    def _images(
        self, study_uid: str, series_uid: str, has_details: bool, times: Counter[str], **matching: str
    ) -> dict[str, Named]:
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
        keys |= dict.fromkeys(_DETAILS if has_details else (), "")
        named = {}
        for image in self._ask("Instance", keys | matching):
            if sop_uid := _value(image, "SOPInstanceUID"):
                syntax = _value(image, "AvailableTransferSyntaxUID").partition("\\")[0]
                named[sop_uid] = Named(series_uid, _value(image, "SOPClassUID"), syntax)
                times[sop_uid] += 1
        return named

    def _ask(self, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        self.queries += 1
        try:
            return self._client.query(self._peer, level, query)
        except OrthancRefused as error:
            if retries.dimse_status(str(error)) in _CUT_OFF:
                raise CutOff(str(error)) from error
            raise trouble_of(str(error)) from error

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        """A worker that died left its job running in Orthanc: let it end before counting what is missing."""
        if keeper.is_first:  # nobody worked on it before; the list of a thousand jobs costs more than most questions
            return
        for job_id in desk.client.moves_of(study_uid):
            try:
                _await_job(desk, job_id, keeper)
            except Trouble as trouble:  # of an attempt that is over: this one has a chance of its own
                log.info("study %s: what was left running ended: %s", study_uid, trouble)

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        """One C-MOVE as an asynchronous job of Orthanc; the bytes pass us by. Or one C-GET, through us."""
        if desk.settings.retrieve == "get":
            self._be_sure_of_get()
            try:
                named = self._count_once(request.keys[0])[0]
            except CutOff as error:
                raise Trouble(ErrorClass.TRANSIENT, f"the source cut off the count of a study: {error}") from error
            return getting.bring(desk, request, named, keeper)
        try:
            job = desk.client.start_move(self._peer, request.level, request.query, desk.target_aet, _silence(desk))
        except OrthancRefused as error:
            raise trouble_of(str(error)) from error
        took = _await_job(desk, job, keeper, self._each * request.count)
        self._each = took / max(1, request.count)
        return {}

    def _be_sure_of_get(self) -> None:
        """Trouble where it lets nobody retrieve by C-GET; asked once."""
        if not self._answers_get:
            probing.sure_of_get(self._modality, self._settings.aet)
            self._answers_get = True

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        passed = {uid: found for uid in wanted if (found := _passed_through(desk, study, uid))}
        if passed:
            keep(passed)
        left = set(wanted) - set(passed)
        if left:
            self._be_sure_of_get()
        checked = verify.check(desk, study, left, keeper.check, keep) if left else Checked()
        checked.compared |= passed
        return checked


def _passed_through(desk: Desk, study: Study, sop_uid: str) -> Compared | None:
    """What came through us by C-GET, and lies in the archive byte for byte: no second retrieve could tell more."""
    given = study.given.get(sop_uid)
    if given is None or len(study.held[sop_uid]) != 1:
        return None
    stored = desk.client.md5(study.held[sop_uid][0])
    return Compared("equal", None, None, stored, source_md5=given.md5) if stored == given.md5 else None


def _await_job(desk: Desk, job_id: str, keeper: Keeper, about: float = 0.0) -> float:
    """Until it has ended well; the seconds that it took.

    It should take `about` so many: it is asked for when it may be over, for each question costs the archive time.
    """
    began = time.monotonic()
    until = began + desk.settings.deadline_seconds
    first = min(_EXPECTED * about, _LONGEST_SECONDS)
    wait = max(_FIRST_POLL_SECONDS, min(first, _POLL_SECONDS))
    while True:
        try:
            keeper.check()
            desk.check_open()
            desk.pause(wait)
        except Closed:
            _cancel(desk, job_id)
            raise
        waited = time.monotonic() - began
        if waited < first:
            wait = min(first - waited, _POLL_SECONDS)
            continue
        try:
            job = desk.client.job(job_id)
        except OrthancRefused as error:
            if error.status == 404:
                words = "Orthanc was restarted in the middle of the move"
                raise Trouble(ErrorClass.TRANSIENT, words, is_ours=True) from error
            raise
        if job["State"] == "Success":
            return waited
        if job["State"] not in ("Pending", "Running", "Retry", "Paused"):
            said = job.get("ErrorDetails") or job.get("ErrorDescription") or job["State"]
            raise trouble_of(str(said), job.get("ErrorCode"))
        if time.monotonic() > until:
            _cancel(desk, job_id)
            words = f"not done in {desk.settings.deadline_seconds:g} s, cancelled"
            raise Trouble(ErrorClass.TRANSIENT, words, took_long=True)
        wait = max(_FIRST_POLL_SECONDS, min(waited / 8, _POLL_SECONDS))


#: What a study has: its images, modalities, and what is named more than once.
_Count = tuple[dict[str, Named], tuple[str, ...], dict[str, int]]


def _agree(one: _Count, other: _Count) -> bool:
    """Whether two counts name the same images, in the same series, of the same modalities."""
    places = [{sop_uid: named.series_uid for sop_uid, named in count[0].items()} for count in (one, other)]
    return places[0] == places[1] and one[1] == other[1]


def _cancel(desk: Desk, job_id: str) -> None:
    desk.client.request("POST", f"/jobs/{job_id}/cancel", json={})


def _silence(desk: Desk) -> int:
    """Seconds without a word from the source after which Orthanc gives up; for tape long: its job can be ended."""
    settings = desk.settings
    return max(1, int(settings.deadline_seconds if settings.near_line else settings.silence_seconds))


def _value(answer: Mapping[str, str], attribute: str) -> str:
    return str(answer.get(attribute, "")).strip(" \0")


def _named(answers: Iterable[dict[str, str]], attribute: str) -> list[str]:
    values = (_value(answer, attribute) for answer in answers)
    return sorted({value for value in values if value})
