"""Legacy archives that misbehave as one is told, written with pynetdicom: they cut off, lie, hang, forget and merge."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_MOVE

_QUERY = "1.2.840.10008.5.1.4.1.2."  # PS3.4 C.6: patient root 1, study root 2; find 1, move 2, get 3
_LEVELS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
#: How a C-MOVE is carried out: (source, event, what was asked for) -> what pynetdicom's handler yields.
Moves = Callable[["LegacyArchive", Any, list[Dataset]], Iterator[Any]]


def honestly(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """As PS3.4 C.4.2 has it: one sub-operation each, then the number of those that went well."""
    yield source.target
    yield len(wanted)
    for dataset in wanted:
        source.before_sending(event, dataset)
        yield 0xFF00, dataset


def without_counters(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """What is pending says nothing of how many are done."""

    def strip(answer: C_MOVE) -> None:
        if answer.Status == 0xFF00:
            answer.NumberOfRemainingSuboperations = None
            answer.NumberOfCompletedSuboperations = answer.NumberOfFailedSuboperations = None
            answer.NumberOfWarningSuboperations = None

    _altering(event, strip)
    yield from honestly(source, event, wanted)


def success_with_failures(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """Status 0x0000, every sub-operation failed."""

    def lie(answer: C_MOVE) -> None:
        answer.NumberOfFailedSuboperations, answer.NumberOfCompletedSuboperations = len(wanted), 0

    _altering(event, lie)
    yield source.target
    yield 0


def success_with_nothing(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """Status 0x0000, no sub-operation at all: too busy to say so."""
    yield source.target
    yield 0


def success_before_sending(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """Status 0x0000 at once; the images come later, on an association that nobody waits for."""

    def later() -> None:
        time.sleep(0.1)
        source.send(wanted)

    threading.Thread(target=later).start()
    yield source.target
    yield 0


def hangs_in_the_middle(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """The first image, and then never a word again."""
    source.send(wanted[:1])
    source.over.wait(60)
    yield source.target
    yield 0


def never(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """Not a word: it waits for a tape that nobody loads."""
    source.over.wait(60)
    yield source.target
    yield 0


def to_nobody(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
    """Status 0xA801: it was never told who we are."""
    yield None, None


def _altering(event: Any, change: Callable[[C_MOVE], None]) -> None:
    """Every answer of this association passes through `change`."""
    send = event.assoc.dimse.send_msg

    def altered(answer: Any, context_id: int) -> None:
        if isinstance(answer, C_MOVE):
            change(answer)
        send(answer, context_id)

    event.assoc.dimse.send_msg = altered


@dataclass
class LegacyArchive:
    """Answers queries from `holds`, and moves as it is told."""

    port: int
    target: tuple[str, int]
    holds: list[Dataset] = field(default_factory=list)
    moves: Moves = honestly
    aet: str = "LEGACY"
    #: Answers to one C-FIND at most; beyond, `cut_status` (None: a success, as if that were all).
    limit: int | None = None
    cut_status: int | None = 0xFE00
    roots: tuple[str, ...] = ("1", "2")
    gets: bool = True
    ends_gets: bool = False  # by ending the association, as an Orthanc does without AllowGet
    silent_gets: bool = False
    moves_at_all: bool = True
    one_of_each: bool = False  # of several objects under one SOP Instance UID it sends the first, as Orthanc does
    has_image_level: bool = True
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    most_associations: int = 20
    before_moving: Callable[[LegacyArchive], None] = lambda source: None
    #: By C-MOVE or C-GET; where it raises, the rest stays there.
    before_sending: Callable[[Any, Dataset], None] = lambda event, dataset: None
    asked: list[Dataset] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    refused: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self) -> Iterator[LegacyArchive]:
        ae = AE(self.aet)
        ae.maximum_associations = self.most_associations
        ae.network_timeout = 30
        ae.add_supported_context("1.2.840.10008.1.1")
        for root in self.roots:
            for service in ("1", *(["2"] if self.moves_at_all else []), *(["3"] if self.gets else [])):
                ae.add_supported_context(f"{_QUERY}{root}.{service}")
        for sop_class in sorted({str(dataset.SOPClassUID) for dataset in self.holds}):
            ae.add_supported_context(sop_class, list(self.syntaxes), scu_role=True, scp_role=True)
            ae.add_requested_context(sop_class, list(self.syntaxes))
        handlers: list[Any] = [
            (evt.EVT_C_FIND, self._found), (evt.EVT_C_MOVE, self._moved), (evt.EVT_C_GET, self._got),
            (evt.EVT_ACCEPTED, lambda event: self.callers.append(event.assoc.requestor.ae_title)),
            (evt.EVT_REJECTED, self._rejected),
        ]  # fmt: skip
        server: Any = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        try:
            yield self
        finally:
            self.over.set()
            server.shutdown()

    def send(self, datasets: list[Dataset]) -> None:
        """Store these at our target, on an association of its own."""
        ae = AE(self.aet)
        for sop_class in {str(dataset.SOPClassUID) for dataset in datasets}:
            ae.add_requested_context(sop_class, list(self.syntaxes))
        association = ae.associate(*self.target, ae_title="ZAMBEZI")
        for dataset in datasets:
            association.send_c_store(dataset)
        association.release()

    def _rejected(self, event: Any) -> None:
        self.refused += 1

    def _matching(self, asked: Dataset) -> list[Dataset]:
        return [dataset for dataset in self.holds if all(_fits(element, dataset) for element in asked)]

    def _found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        self.asked.append(asked)
        level = asked.QueryRetrieveLevel
        if level == "IMAGE" and not self.has_image_level:
            yield 0xA900, None
            return
        named: dict[tuple[str, ...], Dataset] = {}
        for dataset in self._matching(asked):
            key = (str(dataset[_LEVELS[level]].value), str(dataset.PatientID))
            answer = named.setdefault(key, Dataset())
            answer.QueryRetrieveLevel = level
            for element in asked:
                if element.keyword in dataset:
                    answer[element.keyword] = dataset[element.keyword]
            if "ModalitiesInStudy" in asked:
                answer.ModalitiesInStudy = [dataset.Modality]
        for number, answer in enumerate(named.values()):
            if self.limit is not None and number == self.limit:
                yield self.cut_status or 0x0000, None
                return
            yield 0xFF00, answer
        yield 0x0000, None

    def _moved(self, event: Any) -> Iterator[Any]:
        self.before_moving(self)
        yield from self.moves(self, event, self._sent(event.identifier))

    def _got(self, event: Any) -> Iterator[Any]:
        if self.silent_gets:
            self.over.wait(60)
        if self.ends_gets:
            event.assoc.abort()
            return
        wanted = self._sent(event.identifier)
        yield len(wanted)
        for dataset in wanted:
            if event.assoc.is_established:
                self.before_sending(event, dataset)
            yield 0xFF00, dataset

    def _sent(self, asked: Dataset) -> list[Dataset]:
        matching = self._matching(asked)
        firsts = {str(one.SOPInstanceUID): one for one in reversed(matching)}
        return list(reversed(firsts.values())) if self.one_of_each else matching


def _fits(element: Any, dataset: Dataset) -> bool:
    """Matching as PS3.4 C.2.2.2 has it: universal, single value, list of UIDs, wild card, range."""
    keyword = element.keyword
    # Orthanc asks for a single image by (0002,0003), too, which is no key.
    if keyword in ("QueryRetrieveLevel", "SpecificCharacterSet") or element.tag.group == 2 or not element.value:
        return True
    held = dataset.Modality if keyword == "ModalitiesInStudy" else str(dataset.get(keyword, ""))
    if element.VR == "UI":
        wanted = element.value if element.VM > 1 else [element.value]
        return held in map(str, wanted)
    if element.VR in ("DA", "TM") and "-" in str(element.value):
        first, last = str(element.value).split("-")
        return bool(held) and first <= held <= last
    return fnmatch.fnmatchcase(held, str(element.value))
