"""A patient's earlier studies, fetched from another archive because a new one came.

The other archive is asked by Orthanc's C-FIND what it has of the patient, and sends (gateway.retrieves): what comes
meets every check at the door, is recorded with the cause *prefetch*, and no rule acts on it unless it names that. What
is here already is left alone, and so is what was deleted here or what a migration brings. A study is fetched when each
SOP Instance UID that the other archive names for it is here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import select

from gateway.courier import Progress
from gateway.orthanc_jobs import refusal
from gateway.retrieves import Named, Way
from gateway.sending import AttemptFailed, Closed, Interrupted, Shipment
from zambezi import announcing, causes, clock, priors, windows
from zambezi.config.settings import Priors, PriorSource, Site
from zambezi.database.engine import Sessions
from zambezi.database.tables import AnnouncedStudy, Deletion
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable

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
        self, sessions: Sessions, orthanc: OrthancClient, name: str, source: PriorSource, site: Site,
        way: Callable[[Callable[[], bool]], Way], now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        """`way` is told by which it knows whether it may go on."""
        self._sessions = sessions
        self._orthanc = orthanc
        self._name = name
        self._source = source
        self._site = site
        self._now = now
        self._until = 0.0
        self._way = way(self._may_go_on)

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
        self._until = time.monotonic() + self._source.study_minutes * 60
        if uid in progress.acknowledged:
            self._way.await_left_behind(uid)
        here = self._here(uid)
        if uid not in progress.acknowledged and (here or self._is_not_wanted(uid)):
            return f"{uid} is here" if here else f"{uid} was deleted here, or a migration brings it"
        named = self._named(study)
        if len(named) > self._source.most_instances:
            return f"{uid} has {len(named)} images, more than MostInstances"
        if named.keys() - here:
            progress.acknowledged.add(uid)
            progress.save()
            self._announce(uid, because_of)
            self._retrieve(uid, named, named.keys() - here)
        return f"{uid} came with {len(named)} images"

    def _retrieve(self, uid: str, named: dict[str, Named], lacking: set[str]) -> None:
        """AttemptFailed unless everything named is here in the end, whatever the other archive says."""
        if not self._may_go_on():
            raise Closed
        ending = self._way.retrieve(uid, named, lacking)
        left = named.keys() - self._here(uid)
        if left == lacking != named.keys() and not ending.was_cut:  # maybe it can't send less than a study
            ending = self._way.retrieve(uid, named, set(named))
            left = named.keys() - self._here(uid)
        if not left:
            return
        if ending.was_cut and not self._is_open():
            raise Closed
        why = f"within {self._source.study_minutes:g} minutes" if ending.was_cut else ending.why
        raise AttemptFailed(
            ending.kind, f"{self._name} has not sent {len(left)} of {len(named)} images of {uid}: {why}"
        )

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

    def _named(self, study: Elsewhere) -> dict[str, Named]:
        """Every image that the other archive names for the study, by SOP Instance UID."""
        named: dict[str, Named] = {}
        # Who moves needs no SOP class, and for those some archives open every one of their files.
        details = {"SOPClassUID": ""} if self._source.retrieve == "get" else {}
        for series_uid in study.series:
            asked = {"StudyInstanceUID": study.study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": ""}
            for one in self._ask("Instance", {**asked, **details}):
                named[_said(one, "SOPInstanceUID")] = Named(series_uid, _said(one, "SOPClassUID"))
        return {uid: one for uid, one in named.items() if uid}

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
