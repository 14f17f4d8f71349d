"""Two ways by which another archive sends a study here: C-MOVE to our own door, by Orthanc's job; C-GET, through us.

Neither is believed: gateway.fetching looks what is here afterwards. What is asked for is what is lacking and nothing
else, so that after a crash nothing comes twice but what was under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from gateway import associations
from gateway.associations import PLAIN, Address, Inbound, Owes
from gateway.coercing_admission import Gate
from gateway.handing_over import file_of
from gateway.orthanc_jobs import Jobs, refusal
from gateway.sending import AttemptFailed, Closed, Interrupted
from zambezi import retries, retrieving
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass
from zambezi.retrieving import CANNOT, GET, SUCCESS, USUAL, Ended, Retrieve

#: An archive that fetches from tape may be silent for so long in the middle of a C-GET.
_SILENCE_S = 300.0


class Named(NamedTuple):
    """An image as the other archive names it; a SOP class only where it was asked for."""

    series_uid: str
    sop_class: str = ""


@dataclass(frozen=True)
class Ending:
    """How a retrieve ended, by the other archive's own word; `was_cut`: because it may not go on."""

    kind: ErrorClass = ErrorClass.TRANSIENT
    why: str = "and it says it did"
    was_cut: bool = False


CUT = Ending(was_cut=True)


class Way(Protocol):
    """AttemptFailed, CutShort and Interrupted where it could not be asked at all, or we could not take what came."""

    def await_left_behind(self, study_uid: str) -> None:
        """Until nothing of an earlier attempt is under way any more."""

    def retrieve(self, study_uid: str, named: Mapping[str, Named], lacking: Collection[str]) -> Ending:
        """Have it send what is lacking of what it names, by SOP Instance UID."""


class ByMove:
    """C-MOVE to our own AE title; the bytes pass us by."""

    def __init__(
        self, orthanc: OrthancClient, name: str, our_aet: str, stop: threading.Event, may_go_on: Callable[[], bool]
    ) -> None:  # fmt: skip
        self._orthanc = orthanc
        self._name = name
        self._our_aet = our_aet
        self._jobs = Jobs(orthanc, "modalities", name, stop, may_go_on)

    def await_left_behind(self, study_uid: str) -> None:
        """A gateway that died left its job running in Orthanc: what that brings need not be asked for again."""
        for job_id in self._orthanc.moves_of(study_uid):
            self._jobs.ended(job_id)

    def retrieve(self, study_uid: str, named: Mapping[str, Named], lacking: Collection[str]) -> Ending:
        """One job for a whole study, else for each series that is lacking whole and each single image."""
        ending = Ending()
        for rung, keys in _fewest(study_uid, named, lacking):
            try:
                job, was_cut = self._jobs.ended(
                    self._orthanc.start_move(self._name, rung, keys, self._our_aet, _SILENCE_S)
                )
            except OrthancRefused as refused:
                raise refusal(refused, "query", f"{self._name} can't be asked to send") from refused
            if was_cut:
                return CUT
            if job["State"] != "Success":
                said = str(job.get("ErrorDetails") or job.get("ErrorDescription") or "")
                ending = Ending(retries.of_orthanc(said, "query", job.get("ErrorCode")), said)
        return ending


class ByGet:
    """C-GET: what comes is handed to the archive as the coercing port does, under the terms of that peer."""

    def __init__(
        self, orthanc: OrthancClient, address: Address, gate: Gate, stop: threading.Event,
        may_go_on: Callable[[], bool], owes: Owes,
    ) -> None:  # fmt: skip
        self._orthanc = orthanc
        self._address = address
        self._gate = gate
        self._stop_asked = stop
        self._may_go_on = may_go_on
        self._owes = owes

    def await_left_behind(self, study_uid: str) -> None:
        """Nothing is ever left: an association ends with the process that made it."""

    def retrieve(self, study_uid: str, named: Mapping[str, Named], lacking: Collection[str]) -> Ending:
        """On one association; on several where there are more SOP classes than one has room for."""
        taker = _Taker(self._orthanc, self._address, self._gate)
        ending = Ending()
        classes = sorted({named[uid].sop_class for uid in lacking} - {""})
        for some in retrieving.groups(classes) if classes else [USUAL]:
            wanted = {uid for uid in lacking if not classes or named[uid].sop_class in (*some, "")}
            get = partial(self._get, study_uid, named, wanted, some, taker)
            try:
                ended = retrieving.by_syntax(get, partial(taker.has_all, wanted))
            except (AttemptFailed, Closed) as fault:
                if taker.broken is None and isinstance(fault, Closed):
                    return CUT
                raise taker.broken or fault from fault
            if taker.broken is not None:
                raise taker.broken
            if taker.left:
                ending = Ending(ErrorClass.OBJECT, f"the archive does not take {len(taker.left)} of them: {taker.why}")
            elif ended.failed:
                why = f"{ended.failed} could not be sent (status 0x{ended.status:04X})"
                ending = Ending(ErrorClass.OBJECT, why)
            elif (kind := retries.of_dimse("query", ended.status)) is not None:
                ending = Ending(kind, f"status 0x{ended.status:04X}")
        return ending

    def _get(
        self, study_uid: str, named: Mapping[str, Named], wanted: Collection[str], classes: Sequence[str],
        taker: _Taker, syntaxes: Sequence[str],
    ) -> Ended:  # fmt: skip
        contexts = [(GET, PLAIN), *((one, [syntax]) for one in classes for syntax in syntaxes)]
        inbound = Inbound(
            classes, taker.take, self._owes, lambda: taker.broken is None and self._may_go_on()
        )  # fmt: skip
        all_of_it = Ended(SUCCESS)
        with associations.calling(
            self._address, contexts, self._stop_asked, silence_s=_SILENCE_S, inbound=inbound
        ) as line:
            for rung, keys in _fewest(study_uid, named, set(wanted) - taker.taken - taker.left):
                ended = line.get(rung, keys)
                status, failed = all_of_it.status or ended.status, all_of_it.failed + ended.failed
                all_of_it = Ended(status, failed, ended.syntaxes)
                if taker.broken is not None:
                    break
        return all_of_it


def _fewest(study_uid: str, named: Mapping[str, Named], wanted: Collection[str]) -> list[Retrieve]:
    return retrieving.fewest(study_uid, {uid: one.series_uid for uid, one in named.items()}, wanted)


class _Taker:
    """Takes one image after the other."""

    def __init__(self, orthanc: OrthancClient, address: Address, gate: Gate) -> None:
        self._orthanc = orthanc
        self._address = address
        self._gate = gate
        self.taken: set[str] = set()
        #: What the archive doesn't take, and why the last of these.
        self.left: set[str] = set()
        self.why = ""
        #: Why no more can be taken at all.
        self.broken: AttemptFailed | Interrupted | None = None

    def has_all(self, wanted: Collection[str]) -> bool:
        """Whether asking on brings nothing more."""
        return self.broken is not None or self.taken | self.left >= set(wanted)

    def take(self, event: Any) -> int:
        """Answer one C-STORE sub-operation, once the archive holds the image."""
        if self.broken is not None:
            return CANNOT
        content = file_of(event, self._address.aet, self._address.our_aet, self._address.host)
        verdict = self._gate.judge(content, self._address.aet)
        if verdict.action != "accept":
            return self._leave(event, verdict.reason, verdict.status)
        try:
            answer = self._orthanc.store(content)
        except OrthancUnreachable as away:
            self.broken = Interrupted(str(away))
            return CANNOT
        except OrthancRefused as refused:
            kind = retries.of_http(refused.status) or ErrorClass.OBJECT
            if kind is ErrorClass.OBJECT:
                return self._leave(event, refused.detail, CANNOT)
            self.broken = AttemptFailed(kind, f"the archive: {refused.detail}")
            return CANNOT
        if answer.get("Status") not in ("Success", "AlreadyStored"):
            return self._leave(event, f"it answers {answer.get('Status')}", CANNOT)
        self.taken.add(str(event.request.AffectedSOPInstanceUID))
        return SUCCESS

    def _leave(self, event: Any, why: str, status: int) -> int:
        self.left.add(str(event.request.AffectedSOPInstanceUID))
        self.why = why
        return status
