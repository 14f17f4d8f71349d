"""A patient's earlier studies, fetched from another archive because a new one came.

The other archive is asked by Orthanc's C-FIND what it has of the patient, and sends by C-MOVE into our own door: what
comes meets every check there, is recorded with the cause *prefetch*, and no rule acts on it unless it names that. What
is here already is left alone, and so is what was deleted here or what a migration brings. A study is fetched when each
SOP Instance UID that the other archive names for it is here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import select

from gateway.courier import Progress
from gateway.orthanc_jobs import Jobs, refusal
from gateway.sending import AttemptFailed, Closed, Interrupted, Shipment
from zambezi import announcing, causes, clock, priors, retries, windows
from zambezi.config.settings import Priors, PriorSource, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import AnnouncedStudy, Deletion
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

#: Of deliveries that bring something here (Delivery.kind).
KIND = "fetch"
#: So many of a patient's studies are looked at, the latest first.
LOOKED_AT = 50
#: The archive's follower has recorded by then what came.
_ANNOUNCED_FOR = timedelta(days=1)
_KNOWN_S = 30.0
_NOT_FOR_US = ("withdrawn", "restored")


@dataclass(frozen=True)
class Wanted:
    """Whose earlier studies a delivery of this kind is about, and which: the facts of its journal entry."""

    patient_id: str
    issuer: str
    birth_date: str
    study_date: str
    modalities: list[str]
    parts: list[str]
    how: dict[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Of a `priors-wanted` entry, or of what `written` wrote."""
        return cls(**{name: facts[name] for name in cls.__dataclass_fields__})

    @property
    def written(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Elsewhere:
    """A study, as the other archive tells of it (zambezi.priors.Exam)."""

    study_uid: str
    patient_id: str
    issuer: str
    birth_date: str
    date: str
    series: tuple[str, ...] = ()
    parts: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()


class Fetcher:
    """Fetches from one archive."""

    def __init__(
        self, sessions: Sessions, orthanc: OrthancClient, name: str, source: PriorSource, site: Site, our_aet: str,
        stop: threading.Event, now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._orthanc = orthanc
        self._name = name
        self._source = source
        self._site = site
        self._our_aet = our_aet
        self._now = now
        self._until = 0.0
        self._jobs = Jobs(orthanc, "modalities", name, stop, self._may_go_on)

    def bring(self, shipment: Shipment, again: bool, progress: Progress) -> str:
        """Have the relevant ones here; the outcome in words. `progress` remembers which studies were begun."""
        wanted = Wanted.of(json.loads(shipment.body))
        how = Priors.model_validate(wanted.how)
        if not wanted.patient_id or re.search(r"[*?\\]", wanted.patient_id):
            return "nothing was asked for: a question by this patient ID would mean others, too"
        if not wanted.birth_date:
            return "nothing was asked for: without a date of birth a patient ID may mean somebody else elsewhere"
        try:
            chosen = priors.choose(self._exam(shipment.study_uid, wanted), self._found(wanted, how), how)
            told = [self._have(study, shipment.study_uid, progress) for study in chosen]
        except OrthancUnreachable as away:
            raise Interrupted(str(away)) from away
        return f"{self._name} has {len(chosen)} earlier studies that are wanted" + "".join(f"; {one}" for one in told)

    def _exam(self, study_uid: str, wanted: Wanted) -> Elsewhere:
        return Elsewhere(
            study_uid, wanted.patient_id, wanted.issuer, wanted.birth_date, wanted.study_date, (),
            frozenset(wanted.parts), frozenset(wanted.modalities),
        )  # fmt: skip

    def _found(self, wanted: Wanted, how: Priors) -> list[Elsewhere]:
        """What it has of the patient within the time, by patient ID and date of birth."""
        days = priors.period(wanted.study_date, how)
        if days is None:
            return []
        asked = dict.fromkeys(("StudyInstanceUID", "IssuerOfPatientID", "PatientBirthDate"), "")
        dates = "-".join(f"{day:%Y%m%d}" for day in days)
        answers = self._ask("Study", {**asked, "PatientID": wanted.patient_id, "StudyDate": dates})
        studies = [
            Elsewhere(
                _said(one, "StudyInstanceUID"), _said(one, "PatientID"),
                _said(one, "IssuerOfPatientID") or self._site.issuer, _said(one, "PatientBirthDate"),
                _said(one, "StudyDate"),
            )
            for one in answers
        ]  # fmt: skip
        mine = [one for one in studies if one.study_uid and one.birth_date == wanted.birth_date]
        latest = sorted(mine, key=lambda one: one.date, reverse=True)[:LOOKED_AT]
        return [self._with_series(one) for one in latest]

    def _with_series(self, one: Elsewhere) -> Elsewhere:
        asked = dict.fromkeys(("SeriesInstanceUID", "Modality", "BodyPartExamined"), "")
        series = self._ask("Series", {**asked, "StudyInstanceUID": one.study_uid})
        told = {key: frozenset(_said(answer, key) for answer in series) - {""} for key in asked}
        return Elsewhere(
            one.study_uid, one.patient_id, one.issuer, one.birth_date, one.date,
            tuple(sorted(told["SeriesInstanceUID"])), told["BodyPartExamined"], told["Modality"],
        )  # fmt: skip

    def _have(self, study: Elsewhere, because_of: str, progress: Progress) -> str:
        """Have all of one study here, if it isn't for a reason; what became of it, in words."""
        uid = study.study_uid
        here = self._here(uid)
        if uid not in progress.acknowledged and (here or self._is_not_wanted(uid)):
            return f"{uid} is here" if here else f"{uid} was deleted here, or a migration brings it"
        named = self._named(study)
        if len(named) > self._source.most_instances:
            return f"{uid} has {len(named)} images, more than MostInstances"
        if named - here:
            progress.acknowledged.add(uid)
            progress.save()
            self._announce(uid, because_of)
            self._move(uid, named)
        return f"{uid} came with {len(named)} images"

    def _move(self, uid: str, named: set[str]) -> None:
        """One C-MOVE; AttemptFailed unless everything named is here in the end, whatever the other archive says."""
        self._until = time.monotonic() + self._source.study_minutes * 60
        if not self._may_go_on():
            raise Closed
        body = {
            "Level": "Study", "Resources": [{"StudyInstanceUID": uid}], "TargetAet": self._our_aet,
            "Asynchronous": True,
        }  # fmt: skip
        try:
            job, was_cut = self._jobs.ended(self._orthanc.post(f"/modalities/{self._name}/move", body)["ID"])
        except OrthancRefused as refused:
            raise refusal(refused, "query", f"{self._name} can't be asked to send") from refused
        lacking = named - self._here(uid)
        if not lacking:
            return
        if was_cut and not self._is_open():
            raise Closed
        said = str(job.get("ErrorDetails") or job.get("ErrorDescription") or "")
        is_failure = job["State"] != "Success" and not was_cut
        kind = retries.of_orthanc(said, "query", job.get("ErrorCode")) if is_failure else ErrorClass.TRANSIENT
        why = (
            f"within {self._source.study_minutes:g} minutes"
            if was_cut
            else said
            if is_failure
            else "and it says it did"
        )
        words = f"{self._name} has not sent {len(lacking)} of {len(named)} images of {uid}: {why}"
        raise AttemptFailed(kind, words)

    def _announce(self, uid: str, because_of: str) -> None:
        with self._sessions.begin() as session:
            announcing.forget_before(session, causes.PREFETCH, self._now() - _ANNOUNCED_FOR)
            reference = f"prior of {because_of}"
            generation = announcing.announce_studies(session, [uid], causes.PREFETCH, reference, self._now())
        if not announcing.wait_until_known(self._orthanc, generation, _KNOWN_S):
            raise Interrupted("the archive was not told yet what will come")

    def _is_not_wanted(self, uid: str) -> bool:
        """Whether it left this archive by a person's will, or comes by another way."""
        gone = select(Deletion.id).where(Deletion.study_uid == uid, Deletion.state.not_in(_NOT_FOR_US))
        with self._sessions.begin() as session:
            announced = session.get(AnnouncedStudy, uid)
            is_migrated = announced is not None and announced.cause == causes.MIGRATION
            return is_migrated or session.scalars(gone.limit(1)).first() is not None

    def _here(self, uid: str) -> set[str]:
        found = self._orthanc.find("Instance", {"StudyInstanceUID": uid}, expand=True)
        return {str(one["MainDicomTags"].get("SOPInstanceUID", "")) for one in found}

    def _named(self, study: Elsewhere) -> set[str]:
        """Every SOP Instance UID that the other archive names for the study."""
        named: set[str] = set()
        for series_uid in study.series:
            asked = {"StudyInstanceUID": study.study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
            named |= {_said(one, "SOPInstanceUID") for one in self._ask("Instance", asked)}
        return named - {""}

    def _ask(self, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        try:
            return self._orthanc.query(self._name, level, query)
        except OrthancRefused as refused:
            raise refusal(refused, "query", f"{self._name} does not answer to a query") from refused

    def _is_open(self) -> bool:
        return windows.is_open(self._source.windows, self._now(), self._site.zone, self._site.holidays)

    def _may_go_on(self) -> bool:
        return self._is_open() and time.monotonic() < self._until


def _said(answer: Mapping[str, str], attribute: str) -> str:
    return str(answer.get(attribute, "")).strip(" \0")
