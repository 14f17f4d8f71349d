"""A DICOMweb server as a source: asked by QIDO-RS (PS3.18 10.6), read by WADO-RS (10.4) in whatever syntax it has.

Answers come in pages; a server may give fewer than were asked for, or cut them off with or without a word. What it
says of numbers are claims; believed are UIDs. Objects are asked for as they are (transfer-syntax=*): what passes
through us is what the server gives, and its file is not known better than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from pydicom.datadict import keyword_for_tag

from migration import copying, inventory, multipart
from migration.asking import Asking, Refused
from migration.copying import Copier, Offer
from migration.desk import Desk
from migration.inventory import Coverage, Found
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
)
from migration.wire import SILENCE_S, Server, chunks
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass

#: So many answers are asked for at once. Some servers go through all of a series for each page of it.
PAGE = 200
_PAGES = {"studies": PAGE, "series": 1000, "instances": 5000}
_JSON = {"Accept": "application/dicom+json"}
_AS_IT_IS = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
#: Beside what PS3.18 table 10.6.3-3 has answered without being asked for.
_ALSO = {"studies": ("StudyDescription", "IssuerOfPatientID")}
_PATHS = ("studies", "series", "instances")


class DicomWebSource:
    """One DICOMweb server; `parallel` objects are stored at once while a study's stream is read."""

    kind = "dicomweb"

    def __init__(self, server: Server, parallel: int, silence_s: float = SILENCE_S) -> None:
        self._asking = Asking(server, "/studies?limit=1", silence_s)
        self._copier = Copier(parallel)
        self._fills_pages: set[str] = set()  # levels at which it gave as many as were asked for: fewer are the last
        self._says_offset = True
        self._sent_as: dict[str, str] = {}  # transfer syntaxes by SOP Instance UID, of what came in this attempt

    @property
    def queries(self) -> int:
        """So many questions were asked."""
        return self._asking.queries

    # -- what it can

    def probe(self) -> Probe:
        tried: dict[str, tuple[bool, str]] = {}
        try:
            first = self._page("studies", {}, 0, 1)
            tried["QIDO-RS"] = (True, "" if first else "it names no study")
            tried["pages (limit, offset)"] = self._look_at_pages(first)
            if first:
                study_uid = first[0]["StudyInstanceUID"]
                counted = self.count(study_uid, times=1)
                tried["names instances"] = (bool(counted.instances), f"{len(counted.instances)} of one study")
                tried["WADO-RS as it is"] = self._look_at_wado(study_uid, counted)
        except (Trouble, CutOff) as trouble:
            tried["QIDO-RS" if not tried else "the rest"] = (False, str(trouble))
        return Probe(tried)

    def _look_at_pages(self, first: list[dict[str, str]]) -> tuple[bool, str]:
        if len(first) > 1:
            return False, "it gives more answers than were asked for"
        second = self._page("studies", {}, 1, 1)
        if first and second and first[0]["StudyInstanceUID"] == second[0]["StudyInstanceUID"]:
            return False, "it begins anew whatever the offset: questions are asked in smaller parts instead"
        return True, ""

    def _look_at_wado(self, study_uid: str, counted: Counted) -> tuple[bool, str]:
        for sop_uid, named in list(counted.instances.items())[:1]:
            request = Request("Instance", (study_uid, named.series_uid, sop_uid))
            size = sum(offer.size for offer in self._offers(request))
            return size > 0, f"one instance of {size} bytes"
        return True, "there is no instance to try it with"

    # -- what it has

    def find_studies(self, today: date) -> tuple[Found, Coverage]:
        found, coverage = inventory.find_studies(self, today)
        coverage.doubts += self.reservations()
        return found, coverage

    def reservations(self) -> list[str]:
        """What its answers leave open, in words, once it was asked."""
        if self._says_offset:
            return []
        return ["the server begins anew whatever the offset; its answers may be cut off silently"]

    def studies(self, **matching: str) -> list[dict[str, str]]:
        """The studies that match; CutOff or Trouble."""
        return self._all("studies", matching)

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """Name every instance of a study, until two counts in a row agree (at most four)."""
        counts = [self._count_once(study_uid)]
        while times > 1 and len(counts) < 4 and (len(counts) < 2 or counts[-1] != counts[-2]):
            counts.append(self._count_once(study_uid))
        instances, modalities, repeated = counts[-1]
        return Counted(instances, modalities, times == 1 or counts[-1] == counts[-2], repeated=repeated)

    def _count_once(self, study_uid: str) -> tuple[dict[str, Named], tuple[str, ...], dict[str, int]]:
        instances, modalities = {}, set()
        times: Counter[str] = Counter()
        for series in self._all(f"studies/{quote(study_uid)}/series", {}):
            series_uid = series.get("SeriesInstanceUID", "")
            modalities.add(series.get("Modality", ""))
            for one in self._all(f"studies/{quote(study_uid)}/series/{quote(series_uid)}/instances", {}, times):
                syntax = one.get("AvailableTransferSyntaxUID", "")
                has_one = syntax and "\\" not in syntax
                named = Named(series_uid, one.get("SOPClassUID", ""), syntax if has_one else "")
                instances[one["SOPInstanceUID"]] = named
        return instances, tuple(sorted(modalities - {""})), more_than_once(times)

    def _all(
        self, path: str, matching: Mapping[str, str], times: Counter[str] | None = None
    ) -> list[dict[str, str]]:  # fmt: skip
        """Every answer, page by page; CutOff where the server doesn't give the rest.

        `times` is told how often each is named; on a later page again is no second time: that one may overlap.
        """
        level = path.rpartition("/")[2]
        key = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}[level]
        page_size = _PAGES[level]
        found: list[dict[str, str]] = []
        seen: set[tuple[str, str]] = set()
        offset = before = 0
        while page := self._page(path, matching, offset, page_size):
            # One Study UID under two patients is two answers.
            new = {(one[key], one.get("PatientID", "")): one for one in page if one.get(key)}
            fresh = {which: one for which, one in new.items() if which not in seen}
            if not fresh:  # the same again: the server knows no offset
                self._says_offset = False
                if before == page_size:
                    raise CutOff(f"GET /{path}: {page_size} answers, and no more whatever the offset")
                break
            if before == page_size:
                self._fills_pages.add(level)
            seen |= fresh.keys()
            if times is not None:
                times.update(one[key] for one in page if (one.get(key), one.get("PatientID", "")) in fresh)
            found += fresh.values()
            if len(page) > page_size or (len(page) < page_size and level in self._fills_pages):
                break
            offset, before = offset + len(page), len(page)
        return found

    def _page(self, path: str, matching: Mapping[str, str], offset: int, limit: int) -> list[dict[str, str]]:
        asked = {**matching, "limit": limit, **({"offset": offset} if offset else {})}
        fields = [("includefield", keyword) for keyword in _ALSO.get(path, ())]
        words = urlencode([*asked.items(), *fields], quote_via=quote, safe="*-")
        try:
            answers = self._asking.json("GET", f"/{path}?{words}", headers=_JSON)
        except Refused as refused:
            if refused.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise CutOff(str(refused)) from refused  # PS3.18 8.3.4: too broad a question
            if path != "studies" and refused.status == HTTPStatus.NOT_FOUND:
                return []  # nothing of that study, or series, is there (any more)
            if offset and refused.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED):
                return self._page(path, matching, 0, limit)  # it knows no offset: the same again
            raise
        if not isinstance(answers or [], list):
            raise Trouble(ErrorClass.CONFIGURATION, f"GET /{path}: the source's answer is no list; is this QIDO-RS?")
        return [_plain(answer) for answer in answers or []]

    # -- how it is carried

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        self._copier.begin(desk, study_uid)
        self._sent_as.clear()

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        """One WADO-RS retrieve, stored part by part while it comes."""
        return self._copier.bring(desk, keeper, request, self._offers(request))

    def _offers(self, request: Request) -> Iterator[Offer]:
        path = "".join(f"/{name}/{quote(uid)}" for name, uid in zip(_PATHS, request.keys, strict=False))
        # A stream may break at one bad object: the series, and single images, come all the same.
        with self._asking.stream(path, _AS_IT_IS) as response:
            try:
                for content in multipart.parts(chunks(response), response.getheader("Content-Type", "")):
                    yield self._offer(content)
            except multipart.Broken as error:
                raise Trouble(ErrorClass.OBJECT, f"GET {path}: {error}") from error

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        def again(sop_uid: str) -> Iterable[Offer]:
            return self._offers(Request("Instance", (study.uid, study.expected[sop_uid].series_uid, sop_uid)))

        def keep_plain(results: dict[str, Compared]) -> None:
            keep({uid: self._as_it_was(uid, study, found) for uid, found in results.items()})

        checked = self._copier.check(desk, study, wanted, keeper, keep_plain, again)
        checked.compared = {uid: self._as_it_was(uid, study, found) for uid, found in checked.compared.items()}
        return checked

    def _offer(self, content: bytes) -> Offer:
        sop_uid, syntax = copying.named(content)
        self._sent_as[sop_uid] = syntax
        return Offer(lambda: content, sop_uid, len(content))

    def _as_it_was(self, sop_uid: str, study: Study, found: Compared) -> Compared:
        """A server that wrote the pixels anew for us, whatever was asked for, has not sent its object."""
        has, sent = study.expected[sop_uid].syntax, self._sent_as.get(sop_uid, "")
        if not has or not sent or has == sent:
            return found
        words = f"sent in transfer syntax {sent}, though the source has it in {has}"
        return replace(found, verdict="different", differs_in=(words, *found.differs_in))


def _plain(answer: Mapping[str, Any]) -> dict[str, str]:
    """DICOM JSON (PS3.18 F.2) by keyword, several values joined by backslashes; of names the alphabetic part."""
    plain = {}
    for tag, said in answer.items():
        keyword = keyword_for_tag(tag) if len(tag) == 8 else ""
        if keyword and isinstance(said, dict):
            plain[keyword] = "\\".join(_text(value) for value in said.get("Value", []))
    return plain


def _text(value: Any) -> str:
    said = value.get("Alphabetic", "") if isinstance(value, dict) else value
    return "" if said is None else str(said).strip()
