"""Carrying objects whose bytes pass through us from a source into the archive, several at once, and comparing them.

Each object is fetched, posted (`POST /instances`: the one door, DESIGN rule 2) and compared while its bytes are
here: where Orthanc's MD5 of what it holds is the MD5 of what was fetched, both sides are the same bytes. Where it
isn't (the archive coerced it, or had another object under the same UIDs before) the canonical digests and the tags
that differ are said. What Orthanc can't store lies whole in the hold, before a person. For sources that give bytes:
Orthanc, DICOMweb, folders.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pydicom.errors import InvalidDicomError

from migration import at_once
from migration.comparing import NOT_AS_RECORDED, against, ask, content_of, stored_md5_of
from migration.desk import Desk
from migration.source import Checked, Compared, Given, Request, Study, Trouble
from migration.wire import Answer, Pool, Server, Wire
from zambezi import hold, holding, retries
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass

#: So many results of a comparison are handed over at once: a crash loses no more.
_KEPT_AT_ONCE = 50
#: Orthanc would take this for an archive of files, and unpack whatever is in it.
_ZIP = b"PK\x03\x04"
#: UIDs of a meta header, which is explicit VR little endian: Media Storage SOP Instance UID and Transfer Syntax UID.
_SOP_UID, _SYNTAX = b"\x03", b"\x10"
_META = re.compile(rb"\x02\0([\x03\x10])\0UI[\x01-\x40]\0([0-9.]+[ \0]?)")
_META_BYTES = 1024
#: What a refused object is called in the hold, and the same in words; by HTTP status.
_REFUSED = {
    400: ("unreadable", "it can't be read as a DICOM file"),
    404: ("no-identity", "it lacks a Study, Series or SOP Instance UID, or can't be read up to there"),
    415: ("unreadable", "it can't be read as a DICOM file"),
}
#: What the plugin calls it, too: the same bytes make one row of the hold, whoever puts them there.
_REFERENCE = "arrival"


@dataclass(frozen=True)
class Offer:
    """One object that the source has.

    `fetch` gives its bytes, in any thread, or raises Trouble (of kind object where others may still come). `md5`
    gives what the source itself recorded of its bytes ("" where it recorded nothing). `sop_uid` is empty where only
    the bytes tell it; `size` is in bytes, as far as it is known.
    """

    fetch: Callable[[], bytes]
    sop_uid: str = ""
    size: int = 0
    md5: Callable[[], str] = lambda: ""


@dataclass
class _Carried:
    """How one object fared. Bytes are kept only of what Orthanc refused."""

    sop_uid: str = ""
    orthanc_id: str = ""
    compared: Compared | None = None
    trouble: str = ""
    refused: bytes = b""
    why: str = ""


@dataclass
class _Study:
    """What is known of the study under way, within one attempt."""

    uid: str = ""
    given: dict[str, Given] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)  # by Orthanc id
    refused: dict[str, str] = field(default_factory=dict)  # why, in words, by SOP Instance UID
    held: set[str] = field(default_factory=set)  # SHA-256 of what was put into the hold
    nameless: dict[str, None] = field(default_factory=dict)  # the same of objects without one; each once


class Copier:
    """Carries and compares, at most `parallel` objects at once; one for each worker's source, for its studies in turn.

    `begin` (in Source.prepare), then `bring` (as often as there are requests), then `check`.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._archive: Pool | None = None
        self._study = _Study()

    def begin(self, desk: Desk, study_uid: str) -> None:
        """An attempt at a study begins: what was known of another is forgotten."""
        self._study = _Study(study_uid)
        url, user, password = desk.client.place
        if self._archive is None or self._archive.server.url != url:
            self._archive = Pool(Server(url, user, password))

    @property
    def refused(self) -> Collection[str]:
        """SOP Instance UIDs of what could not be carried in this attempt: asking again in smaller parts is vain."""
        return self._study.refused.keys()

    def bring(self, desk: Desk, keeper: Keeper, request: Request, offers: Iterable[Offer]) -> dict[str, Given]:
        """As Source.bring: carry what is offered for a request; of a single instance, Trouble says why it can't be.

        What could not be carried before in this attempt isn't asked for again.
        """
        if request.level == "Instance":
            self._may_be_carried(request.keys[2])
        given = self.copy(desk, keeper, offers)
        if request.level == "Instance":
            self._may_be_carried(request.keys[2])
        return given

    def _may_be_carried(self, sop_uid: str) -> None:
        if sop_uid in self._study.refused:
            raise Trouble(ErrorClass.OBJECT, self._study.refused[sop_uid])

    def copy(self, desk: Desk, keeper: Keeper, offers: Iterable[Offer]) -> dict[str, Given]:
        """Carry them; by SOP Instance UID, all that was given in this attempt.

        An object that can't be carried holds up nothing but itself: `refused` has it. Trouble, Closed and Fenced end
        it all. No object within the study's deadline is Trouble (transient).
        """

        def do(offer: Offer, stop: threading.Event) -> _Carried:
            return self._carry(desk, offer, stop)

        def take(carried: _Carried) -> None:
            self._take(desk, carried)

        at_once.run(
            offers, do, take, lambda quiet: _look(desk, keeper, quiet), self._threads(desk), lambda offer: offer.size
        )
        return dict(self._study.given)

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None], again: Callable[[str], Iterable[Offer]],
    ) -> Checked:  # fmt: skip
        """Level 3 for the wanted instances; `again` offers what the source has under a SOP Instance UID.

        Nothing is fetched twice whose MD5 tells: of the bytes that passed through us, or the source's own.
        """
        checked = Checked(troubles=list(self._study.nameless))
        fresh: dict[str, Compared] = {}

        def do(sop_uid: str, stop: threading.Event) -> tuple[str, Compared | str]:
            return sop_uid, self._compared(desk, study, sop_uid, again, stop)

        def take(found: tuple[str, Compared | str]) -> None:
            sop_uid, compared = found
            if isinstance(compared, str):
                checked.troubles.append(compared)
                return
            checked.compared[sop_uid] = fresh[sop_uid] = compared
            if len(fresh) >= _KEPT_AT_ONCE:
                keep(dict(fresh))
                fresh.clear()

        sizes = {sop_uid: study.expected[sop_uid].size for sop_uid in wanted if sop_uid in study.expected}
        at_once.run(
            sorted(wanted), do, take, lambda quiet: _look(desk, keeper, quiet), self._threads(desk),
            lambda sop_uid: sizes.get(sop_uid, 0),
        )  # fmt: skip
        if fresh:
            keep(dict(fresh))
        checked.not_sent = set(wanted) - set(checked.compared)
        return checked

    def _threads(self, desk: Desk) -> int:
        return 1 if desk.cap else self._parallel  # on a line with a cap one after the other, each paid for

    # -- in the threads

    def _carry(self, desk: Desk, offer: Offer, stop: threading.Event) -> _Carried:
        carried = _Carried(offer.sop_uid)
        try:
            source_md5, content = offer.md5(), offer.fetch()
        except Trouble as trouble:
            if trouble.kind is not ErrorClass.OBJECT:
                raise
            carried.trouble = str(trouble)
            return carried
        _pay(desk, len(content), stop)
        carried.sop_uid = offer.sop_uid or named(content)[0]
        if content.startswith(_ZIP):
            carried.why, carried.trouble, carried.refused = "unreadable", "it is a ZIP archive", content
            return carried
        with self._wire() as wire:
            answer = ask(wire, "POST", "/instances", content, {"Content-Type": "application/dicom"})
            if answer.status != 200:
                self._refused(wire, carried, content, answer)
                return carried
            said = content_of(answer)
            carried.orthanc_id = str(said.get("ID", ""))
            if not carried.orthanc_id or said.get("Status") not in ("Success", "AlreadyStored"):
                carried.trouble = f"the archive did not store it: {answer.text[:200]}"
                return carried
            carried.compared = against(wire, content, source_md5, carried.orthanc_id)
        return carried

    def _refused(self, wire: Wire, carried: _Carried, content: bytes, answer: Answer) -> None:
        """What the archive's refusal means: this object alone, or all of migration waits (Trouble)."""
        if answer.status in _REFUSED:
            carried.why, carried.trouble = _REFUSED[answer.status]
            carried.refused = content
            return
        if answer.status == 403:  # a filter of Orthanc's can say no and nothing else; see OrthancClient.store
            disk = content_of(ask(wire, "GET", "/zambezi/status")).get("disk", {})
            why = disk.get("reason") or "there was no room on the disk a moment ago"
            raise Trouble(ErrorClass.DISK, why, is_ours=True)
        words = f"POST /instances: HTTP {answer.status}: {answer.text[:300]}"
        kind = retries.of_orthanc(words, "store")
        if answer.status == 500 and kind is not ErrorClass.DISK:
            carried.trouble = f"the archive failed over it: {answer.text[:200]}"
            return
        raise Trouble(kind if kind is ErrorClass.DISK else ErrorClass.TRANSIENT, f"the archive: {words}", is_ours=True)

    def _compared(
        self, desk: Desk, study: Study, sop_uid: str, again: Callable[[str], Iterable[Offer]], stop: threading.Event
    ) -> Compared | str:
        """Both sides of one instance; in words why not, where the source gave nothing to compare with."""
        results: list[Compared] = []
        given = self._study.given.get(sop_uid) or study.given.get(sop_uid)
        for orthanc_id in study.held[sop_uid]:
            seen = self._study.compared.get(orthanc_id)
            found = seen or self._compared_now(desk, study, sop_uid, orthanc_id, given, again, stop)
            if isinstance(found, str):
                return found
            results.append(found)
        # Where one SOP Instance UID is stored under two patients, both copies must be equal to the source's.
        return next((found for found in results if found.verdict != "equal"), results[0])

    def _compared_now(
        self, desk: Desk, study: Study, sop_uid: str, orthanc_id: str, given: Given | None,
        again: Callable[[str], Iterable[Offer]], stop: threading.Event,
    ) -> Compared | str:  # fmt: skip
        with self._wire() as wire:
            stored_md5 = stored_md5_of(wire, orthanc_id)
        recorded = study.expected[sop_uid].md5 if sop_uid in study.expected else ""
        if stored_md5 in {given.md5 if given else "", recorded}:
            return Compared("equal", None, None, stored_md5, source_md5=stored_md5)
        offers = list(again(sop_uid))
        best: Compared | str = f"{sop_uid}: the source has nothing to compare with"
        try:
            if any(offer.md5() == stored_md5 for offer in offers):
                return Compared("equal", None, None, stored_md5, source_md5=stored_md5)
            for offer in offers:
                content = offer.fetch()
                _pay(desk, len(content), stop)
                with self._wire() as wire:
                    best = against(wire, content, offer.md5(), orthanc_id)
                if best.verdict == "equal":
                    break
        except Trouble as trouble:
            if trouble.kind is not ErrorClass.OBJECT:
                raise
            return f"{sop_uid}: {trouble}"
        return best

    def _wire(self) -> AbstractContextManager[Wire]:
        assert self._archive is not None, "begin comes first"
        return self._archive.wire()

    # -- in the worker's own thread

    def _take(self, desk: Desk, carried: _Carried) -> None:
        study = self._study
        if compared := carried.compared:
            if NOT_AS_RECORDED not in compared.differs_in:
                study.given[carried.sop_uid] = Given(compared.source_md5 or "", compared.source_digest)
            study.compared[carried.orthanc_id] = compared
            return
        said = carried.trouble
        if carried.refused:
            self._hold(desk, carried)
            said += "; it is in the hold"
        if carried.sop_uid:
            study.refused[carried.sop_uid] = said
        else:
            study.nameless[f"an object without a SOP Instance UID: {said}"] = None

    def _hold(self, desk: Desk, carried: _Carried) -> None:
        sha256 = hold.put(desk.hold_dir, carried.refused)
        if sha256 in self._study.held:  # a smaller part of the study brought it once more
            return
        self._study.held.add(sha256)
        with desk.sessions.begin() as session:
            holding.hold(
                session, sha256=sha256, size=len(carried.refused), why=carried.why, reason=carried.trouble,
                reference=_REFERENCE, now=desk.now(), writer="migration", sop_uid=carried.sop_uid[:64] or None,
                study_uid=self._study.uid or None, sender="a migration",
            )  # fmt: skip


def named(content: bytes) -> tuple[str, str]:
    """SOP Instance UID and transfer syntax by the meta header (PS3.10 7.1), or else as pydicom reads them; "" where
    they can't be read."""
    found = {tag: value.rstrip(b" \0").decode("ascii") for tag, value in _META.findall(content, 132, _META_BYTES)}
    if _SOP_UID in found and _SYNTAX in found:
        return found[_SOP_UID], found[_SYNTAX]
    try:
        dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
        return str(dataset.get("SOPInstanceUID", "")), str(dataset.file_meta.get("TransferSyntaxUID", ""))
    except (InvalidDicomError, ValueError, EOFError, AttributeError, KeyError, TypeError, NotImplementedError):
        return "", ""


def _pay(desk: Desk, size: int, stop: threading.Event) -> None:
    """So many bytes came over the source's line: the next object waits until its cap allows more."""
    owed = desk.line.used(size, desk.cap, desk.now())
    if owed > 0:
        stop.wait(owed)


def _look(desk: Desk, keeper: Keeper, quiet: float) -> None:
    keeper.check()
    desk.check_open()
    if quiet > desk.settings.deadline_seconds:
        words = f"nothing came within {desk.settings.deadline_seconds:g} s"
        raise Trouble(ErrorClass.TRANSIENT, words, took_long=True)
