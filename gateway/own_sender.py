"""Sending by associations of our own: where Orthanc's job can't do what the destination asks for, or can't say enough.

It learns the status of each image, so one that is refused keeps no other back, and what was acknowledged before a
line broke isn't sent again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from struct import error
from typing import Any, Protocol

from pydicom.dataset import Dataset

from gateway import associations
from gateway.associations import FIND, PLAIN, Address, Owes, Talk
from gateway.orthanc_jobs import by_series
from gateway.outgoing import Deidentify, Packer, Stored
from gateway.sending import AttemptFailed, Closed, CutShort, Fault, Instance, Interrupted, IsOpen, Sent, Shipment
from zambezi import retries
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

_NAMES = {
    0x0111: "it says that it has another one of this UID",
    0x0122: "it doesn't take this SOP class",
    0x0124: "we may not send there",
}


#: What pydicom raises of a data set that it can't read or write; its words may tell what stands in it.
_MALFORMED = (ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, TypeError, ValueError, error)


class Names(Protocol):
    """Under which UIDs a study goes out."""

    def uid(self, uid: str) -> str:
        """The UID that stands for this one there."""

    def deidentify(self, study_uid: str) -> Deidentify | None:
        """What to do with each of the study's images; None where they go out as they are."""


class Same:
    """Names: our own."""

    def uid(self, uid: str) -> str:
        return uid

    def deidentify(self, _study_uid: str) -> Deidentify | None:
        return None


@dataclass
class _Result:
    """Fills up while images go."""

    acknowledged: list[Instance] = field(default_factory=list)
    refused: list[tuple[Instance, ErrorClass, str]] = field(default_factory=list)
    warned: Counter[int] = field(default_factory=Counter)


class OwnSender:
    """Carrier: C-STORE and C-FIND by the gateway itself. Of several threads each has its own."""

    part = 100  # of whatever SOP classes: an association takes 128 presentation contexts

    def __init__(
        self, address: Address, packer: Packer, stop: threading.Event, owes: Owes, names: Names,
        silence_s: float = associations.SILENCE_S, is_open: IsOpen = lambda: True,
    ) -> None:  # fmt: skip
        self.address = address
        self.names = names
        self._packer = packer
        self._stop_asked = stop
        self._owes = owes
        self._silence_s = silence_s
        self._is_open = is_open

    def store(self, study_uid: str, instances: Sequence[Instance]) -> Sent:
        """One association for all of them, `part` at the most."""
        try:
            stored = self._packer.stored(instances)
        except (OrthancRefused, OrthancUnreachable) as away:
            raise Interrupted(str(away)) from away
        result = _Result()
        here = []
        for one in instances:
            if one.orthanc_id in stored:
                here.append(one)
            else:
                result.refused.append((one, ErrorClass.OBJECT, "the archive no longer has it"))
        fault = self._store(study_uid, here, stored, result) if here else None
        return Sent(
            tuple(result.acknowledged),
            fault or self._refusals(result, len(instances)),
            tuple(f"{count} with the warning 0x{status:04X}" for status, count in sorted(result.warned.items())),
        )

    def lacking(self, shipment: Shipment) -> tuple[Instance, ...]:
        lacking: list[Instance] = []
        with self.calling([(FIND, PLAIN)]) as talk:
            for series_uid, instances in by_series(shipment).items():
                query = Dataset()
                query.QueryRetrieveLevel = "IMAGE"
                query.StudyInstanceUID = self.names.uid(shipment.study_uid)
                query.SeriesInstanceUID = self.names.uid(series_uid)
                query.SOPInstanceUID = ""
                there = {str(answer.get("SOPInstanceUID", "")) for answer in talk.find(query)}
                lacking += [one for one in instances if self.names.uid(one.sop_uid) not in there]
        return tuple(lacking)

    def stored(self, instances: Sequence[Instance]) -> Mapping[str, Stored]:
        """What is stored of these, by orthanc_id."""
        return self._packer.stored(instances)

    def calling(
        self, contexts: Sequence[tuple[str, Sequence[str]]], report: Callable[[Any], Any] | None = None
    ) -> AbstractContextManager[Talk]:
        """An association with the destination."""
        return associations.calling(
            self.address, contexts, self._stop_asked, self._owes, self._silence_s, report
        )  # fmt: skip

    def _store(
        self, study_uid: str, instances: Sequence[Instance], stored: Mapping[str, Stored], result: _Result
    ) -> Fault | None:
        """Until the last image, or until what would keep the others back, too: that. What was acknowledged stays so."""
        groups = {id: self._packer.syntaxes(one.syntax) for id, one in stored.items()}
        wanted = sorted({(one.sop_class, group) for id, one in stored.items() for group in groups[id]})
        deidentify = self.names.deidentify(study_uid)
        try:
            with self.calling(wanted) as talk:
                for one in instances:
                    if not self._is_open():
                        return Closed()
                    sop_class = stored[one.orthanc_id].sop_class
                    accepted = talk.accepted(sop_class)
                    if not accepted:
                        result.refused.append((one, ErrorClass.OBJECT, f"it takes no {sop_class}"))
                    elif fault := self._store_one(talk, one, sop_class, accepted, deidentify, result):
                        return fault
        except (AttemptFailed, Interrupted, CutShort) as fault:
            return fault
        return None

    def _store_one(
        self, talk: Talk, one: Instance, sop_class: str, accepted: Mapping[str, int], deidentify: Deidentify | None,
        result: _Result,
    ) -> AttemptFailed | None:  # fmt: skip
        try:
            made = self._packer.pack(one, sop_class, accepted, deidentify)
        except AttemptFailed as ours:
            if not ours.is_about_objects:
                return ours
            result.refused.append((one, ours.kind, str(ours)))
            return None
        except OrthancRefused:
            result.refused.append((one, ErrorClass.OBJECT, "the archive no longer has it"))
            return None
        except OrthancUnreachable as away:
            raise CutShort(f"the archive went away while it was sending ({away})") from away
        except _MALFORMED as odd:
            result.refused.append((one, ErrorClass.OBJECT, f"it is malformed ({type(odd).__name__})"))
            return None
        status = talk.store(made.context_id, sop_class, made.sop_uid, made.body)
        kind = retries.of_dimse("store", status)
        if kind is None:
            result.acknowledged.append(one)
            if status:
                result.warned[status] += 1
            return None
        words = f"status 0x{status:04X}" + (f", {_NAMES[status]}" if status in _NAMES else "")
        if kind in (ErrorClass.OBJECT, ErrorClass.CONFLICT):
            result.refused.append((one, kind, words))
            return None
        return AttemptFailed(kind, f"{self.address.name} refused {one.sop_uid}: {words}")

    def _refusals(self, result: _Result, count: int) -> AttemptFailed | None:
        if not result.refused:
            return None
        reasons = Counter((kind, words) for _, kind, words in result.refused)
        (kind, words), times = reasons.most_common(1)[0]
        first = next(one for one, *why in result.refused if why == [kind, words])
        more = len(result.refused) - times
        return AttemptFailed(
            kind,
            f"{len(result.refused)} of {count} instances don't go to {self.address.name}: {words} "
            f"({times} times, such as {first.sop_uid}" + (f"; {more} for other reasons)" if more else ")"),
        )
