"""Another Orthanc as a source: asked and read by its REST API (Orthanc Book, "REST API of Orthanc").

It names every study in one answer, and the MD5 of every file as it received it: so the inventory is shown to be
whole, and each instance is the source's very bytes. Labels, metadata and attachments of users come where the plan says
so (migration.extras); the probe and the inventory say what there is of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from migration import orthanc_extras, transfer
from migration.asking import Asking
from migration.copying import Copier, Offer
from migration.desk import Desk
from migration.extras import Extra, Kind
from migration.inventory import Coverage, Found
from migration.source import (
    Checked,
    Compared,
    Counted,
    Given,
    Named,
    Probe,
    Request,
    Study,
    Trouble,
    more_than_once,
)
from migration.wire import SILENCE_S, Server
from zambezi.leases import Keeper
from zambezi.retries import ErrorClass

_PAGE = 500
#: The list of all studies is asked for so often at most, until it names nothing new.
_PASSES = 4
#: Studies that the probe looks at for what isn't carried.
_LOOKED_AT = 100


@dataclass(frozen=True)
class _Copy:
    """One instance there."""

    orthanc_id: str
    named: Named


@dataclass
class _Listing:
    """All instances of one study by SOP Instance UID: two where it is under two patients or series."""

    copies: dict[str, list[_Copy]] = field(default_factory=dict)
    modalities: set[str] = field(default_factory=set)

    def ids(self) -> set[str]:
        return {copy.orthanc_id for copies in self.copies.values() for copy in copies}


class OrthancSource:
    """One Orthanc; `parallel` of its files are on their way at once."""

    kind = "orthanc"

    def __init__(self, server: Server, parallel: int, silence_s: float = SILENCE_S) -> None:
        self._asking = Asking(server, "/system", silence_s)
        self._copier = Copier(parallel)
        self._under_way: _Listing | None = None

    @property
    def queries(self) -> int:
        """So many questions were asked."""
        return self._asking.queries

    # -- what it can

    def probe(self) -> Probe:
        tried: dict[str, tuple[bool, str]] = {}
        for name, look in (
            ("REST API", self._look_at_system),
            ("names its studies", self._look_at_studies),
            ("names MD5s", self._look_at_md5),
            ("bulk look-up", self._look_at_bulk),
            ("everything of a study is carried", self._look_at_extras),
        ):
            try:
                tried[name] = look()
            except Trouble as trouble:
                tried[name] = (False, str(trouble))
                if trouble.kind is not ErrorClass.OBJECT:
                    break
        return Probe(tried)

    def _look_at_system(self) -> tuple[bool, str]:
        said = self._asking.json("GET", "/system")
        return True, f"Orthanc {said.get('Version', 'of unknown version')}, {said.get('DicomAet', '')}"

    def _look_at_studies(self) -> tuple[bool, str]:
        said = self._asking.json("GET", "/statistics")
        return True, f"{said['CountStudies']} studies, {said['CountInstances']} instances, {said['TotalDiskSizeMB']} MB"

    def _look_at_md5(self) -> tuple[bool, str]:
        some = self._asking.json("GET", "/instances?since=0&limit=1")
        if not some:
            return True, "there is no instance to try it with"
        return (True, "") if self._md5(some[0]) else (False, "it keeps none (StoreMD5ForAttachments)")

    def _look_at_bulk(self) -> tuple[bool, str]:
        self._asking.json("POST", "/tools/bulk-content", {"Resources": []})
        return True, ""

    def _look_at_extras(self) -> tuple[bool, str]:
        found: dict[str, int] = {}
        studies = self._asking.json("GET", f"/studies?expand&since=0&limit={_LOOKED_AT}")
        for study in studies:
            extras = {"labels"} if study.get("Labels") else set()
            for what, path in (("metadata of users", "metadata"), ("attachments of users", "attachments")):
                extras |= {what} if orthanc_extras.of_users(self._asking, f"/studies/{study['ID']}", path) else set()
            for what in extras:
                found[what] = found.get(what, 0) + 1
        looked = f"of the {len(studies)} studies looked at"
        if not found:
            return True, f"none {looked} has labels, or metadata or attachments of users"
        told = "; ".join(f"{count} {looked} have {what}" for what, count in sorted(found.items()))
        return False, f"{told}: carried where the plan's Carry names them"

    # -- what it has

    def find_studies(self, today: date) -> tuple[Found, Coverage]:
        """By its own list of all studies, read in pages and asked for again until it names nothing new; and by
        patient, a second axis. It cuts nothing off, so dates need no slices."""
        found, coverage = Found(), Coverage()
        uids: dict[str, str] = {}  # Study UID by Orthanc id
        labelled = 0
        for content in self._paged("/studies", coverage):
            uids[content["ID"]] = self._add(found, content)
            labelled += bool(content.get("Labels"))
        every: set[str] = set()
        for _ in range(_PASSES):
            every = set(self._asking.json("GET", "/studies"))
            new = every - uids.keys()
            for orthanc_id in sorted(new):
                if there := self._study(orthanc_id):
                    uids[orthanc_id] = self._add(found, there)
                    labelled += bool(there.get("Labels"))
            if not new:
                break
        else:
            coverage.doubts.append("the source's list of studies grows faster than it can be read")
        of_patients = {study for patient in self._paged("/patients", coverage) for study in patient["Studies"]}
        coverage.universal, coverage.by_patient = len(every), len(of_patients & uids.keys())
        coverage.undated = sum(1 for uid in found.uids if not found.dates[uid])
        coverage.dated = len(found.uids) - coverage.undated
        coverage.studies, coverage.queries = len(found.uids), self.queries
        coverage.duplicates = {uid: sorted(ids) for uid, ids in found.patients.items() if len(ids) > 1}
        coverage.doubts += self._doubts(set(uids), every, of_patients, labelled)
        return found, coverage

    def _doubts(self, seen: set[str], every: set[str], of_patients: set[str], labelled: int) -> list[str]:
        doubts = []
        if counted := seen - every:
            doubts.append(f"{len(counted)} studies were deleted at the source while it was read")
        if hidden := every - of_patients:
            doubts.append(f"{len(hidden)} studies are not named under any patient")
        if strange := of_patients - seen:
            doubts.append(f"{len(strange)} studies are named under a patient, but not in the list of studies")
        says = self._asking.json("GET", "/statistics").get("CountStudies")
        if says is not None and int(says) != len(every):
            doubts.append(f"the source counts {says} studies, and names {len(every)}")
        if labelled:
            doubts.append(f"{labelled} studies have labels, which are carried where the plan's Carry names them")
        return doubts

    def _add(self, found: Found, content: dict[str, Any]) -> str:
        answer = {**content.get("MainDicomTags", {}), **content.get("PatientMainDicomTags", {})}
        found.add([answer])
        return str(answer.get("StudyInstanceUID", ""))

    def _paged(self, path: str, coverage: Coverage) -> Iterator[dict[str, Any]]:
        since = 0
        while page := self._asking.json("GET", f"{path}?expand&since={since}&limit={_PAGE}"):
            coverage.slices.append([f"{path[1:]} from {since} on", len(page), ""])
            yield from page
            since += len(page)  # a proxy, or another version, may give fewer than were asked for

    def _study(self, orthanc_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._asking.json("GET", f"/studies/{orthanc_id}")
        except Trouble as trouble:
            if trouble.kind is ErrorClass.OBJECT:  # deleted meanwhile
                return None
            raise
        return found

    def count(self, study_uid: str, times: int = 2) -> Counted:
        """Name every instance of a study, until two counts in a row agree (at most four)."""
        counts = [self._listing(study_uid)]
        while times > 1 and len(counts) < 4 and (len(counts) < 2 or counts[-1].ids() != counts[-2].ids()):
            counts.append(self._listing(study_uid))
        last = counts[-1]
        named = {sop_uid: copies[0].named for sop_uid, copies in last.copies.items()}
        repeated = more_than_once({sop_uid: len(copies) for sop_uid, copies in last.copies.items()})
        agreed = times == 1 or last.ids() == counts[-2].ids()
        return Counted(named, tuple(sorted(last.modalities)), agreed, repeated=repeated)

    def _listing(self, study_uid: str) -> _Listing:
        listing = _Listing()
        for resource in self._asking.json("POST", "/tools/lookup", study_uid.encode()):
            if resource["Type"] == "Study":
                for series in self._asking.json("GET", f"/studies/{resource['ID']}/series"):
                    self._list_series(listing, series)
        return listing

    def _list_series(self, listing: _Listing, series: dict[str, Any]) -> None:
        tags = series.get("MainDicomTags", {})
        if modality := tags.get("Modality", "").strip():
            listing.modalities.add(modality)
        ids = series["Instances"]
        for n in range(0, len(ids), _PAGE):
            for one in self._contents(ids[n : n + _PAGE]):
                said = one.get("Metadata", {})
                named = Named(
                    tags.get("SeriesInstanceUID", ""), said.get("SopClassUid", ""), said.get("TransferSyntax", ""),
                    int(one.get("FileSize", 0)),
                )  # fmt: skip
                sop_uid = one.get("MainDicomTags", {}).get("SOPInstanceUID", "")
                if sop_uid:
                    listing.copies.setdefault(sop_uid, []).append(_Copy(one["ID"], named))

    def _contents(self, ids: list[str]) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._asking.json(
                "POST", "/tools/bulk-content", {"Resources": ids, "Metadata": True}
            )
            return found
        except Trouble as trouble:
            if trouble.kind not in (ErrorClass.OBJECT, ErrorClass.CONFIGURATION):
                raise
        # Before Orthanc 1.9.4, or where a proxy lets nobody post there.
        return [self._asking.json("GET", f"/instances/{one}") for one in ids]

    # -- how it is carried

    def prepare(self, desk: Desk, study_uid: str, keeper: Keeper) -> None:
        self._copier.begin(desk, study_uid)
        self._under_way = None

    def bring(self, desk: Desk, request: Request, keeper: Keeper) -> dict[str, Given]:
        """Fetch and store what a request names and the archive has not."""
        held = transfer.stored(desk, request.keys[0])
        return self._copier.bring(desk, keeper, request, self._lacking(request, held))

    def _lacking(self, request: Request, held: dict[str, list[str]]) -> Iterator[Offer]:
        listing = self._listing_under_way(request.keys[0])
        there = {orthanc_id for ids in held.values() for orthanc_id in ids}
        for sop_uid, copies in listing.copies.items():
            if sop_uid in self._copier.refused or (request.level == "Instance" and sop_uid != request.keys[2]):
                continue
            for copy in copies:
                is_other = request.level != "Study" and copy.named.series_uid != request.keys[1]
                # Under another patient ID, which the archive may have given to it, it has another Orthanc id.
                is_there = copy.orthanc_id in there or len(held.get(sop_uid, ())) >= len(copies)
                # A single one is asked for by name: where the archive has it with other content, too.
                if not is_other and (request.level == "Instance" or not is_there):
                    yield self._offer(sop_uid, copy)

    def _listing_under_way(self, study_uid: str) -> _Listing:
        if self._under_way is None:
            self._under_way = self._listing(study_uid)
        return self._under_way

    def check(
        self, desk: Desk, study: Study, wanted: Collection[str], keeper: Keeper,
        keep: Callable[[dict[str, Compared]], None],
    ) -> Checked:  # fmt: skip
        def again(sop_uid: str) -> Iterable[Offer]:
            return [self._offer(sop_uid, copy) for copy in listing.copies.get(sop_uid, [])]

        listing = self._listing_under_way(study.uid)
        return self._copier.check(desk, study, wanted, keeper, keep, again)

    def extras(self, study_uid: str, kinds: Collection[Kind]) -> Iterable[Extra]:
        """What it holds of a study besides images (migration.extras.Bearing)."""
        return orthanc_extras.of_study(self._asking, study_uid, kinds)

    def _offer(self, sop_uid: str, copy: _Copy) -> Offer:
        def fetch() -> bytes:
            return self._asking.answer("GET", f"/instances/{copy.orthanc_id}/file", of_object=True).body

        return Offer(fetch, sop_uid, copy.named.size, lambda: self._md5(copy.orthanc_id))

    def _md5(self, orthanc_id: str) -> str:
        """What it recorded when it received the file; "" where it records none."""
        try:
            said = self._asking.answer("GET", f"/instances/{orthanc_id}/attachments/dicom/md5", of_object=True).text
        except Trouble as trouble:
            if trouble.kind is ErrorClass.OBJECT:
                return ""
            raise
        return said.strip().lower()
