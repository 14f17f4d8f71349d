"""Attributes that rules ask for and nobody recorded: read from Orthanc, once an instance, when a rule needs them.

What holds for the study or the series as a whole is read of one instance of it. Nothing is read while images come in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from plugins.conditions import values
from plugins.routing import Candidate
from zambezi import attributes
from zambezi.attributes import Attribute

#: Instances whose attributes are kept; a study is seldom larger.
KEPT = 50_000

Values = Mapping[str, tuple[str, ...]]

#: What the journal's own table has of every instance.
RECORDED = frozenset({"Modality", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"})


class Reader(Protocol):
    """What reading needs of Orthanc (plugins.orthanc_rest)."""

    def tags(self, orthanc_id: str) -> dict[str, Any]: ...
    def studies_of(self, patient_id: str) -> list[str]: ...


class Attributes:
    """What was read, by instance; asked by the follower's thread and by Orthanc's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[str, tuple[str, ...]]] = OrderedDict()

    def read(self, reader: Reader, orthanc_ids: Iterable[str], keywords: Collection[str]) -> None:
        """Read these keywords of these instances, if they aren't known yet."""
        for orthanc_id in orthanc_ids:
            known = self.of(orthanc_id)
            if all(keyword in known for keyword in keywords):
                continue
            tags = reader.tags(orthanc_id)
            found = {keyword: within(tags, attributes.find(keyword)) for keyword in keywords}
            with self._lock:
                self._known[orthanc_id] = {**known, **found}
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)

    def forget(self, orthanc_ids: Iterable[str]) -> None:
        """These were stored anew: a correction keeps an instance's id, and changes what stands in it."""
        if self._known:
            with self._lock:
                for orthanc_id in orthanc_ids:
                    self._known.pop(orthanc_id, None)

    def of(self, orthanc_id: str) -> Values:
        """What is known of an instance itself."""
        with self._lock:
            return self._known.get(orthanc_id, {})

    def give(self, study: Sequence[Candidate], keywords: Collection[str]) -> list[Candidate]:
        """The instances of a study with what is known of them, their series and their study."""
        wanted = set(keywords) - RECORDED
        if not wanted:
            return list(study)
        of_level = {level: {k for k in wanted if attributes.find(k).level == level} for level in ("study", "series")}
        own = wanted - of_level["study"] - of_level["series"]
        speaking = speakers(study)
        shared: dict[str, Values] = {}
        for one in study:
            if one.series_uid not in shared:
                of_study = self._some(speaking[""], of_level["study"])
                shared[one.series_uid] = {**of_study, **self._some(speaking[one.series_uid], of_level["series"])}
        if not own:
            return [replace(one, attributes=shared[one.series_uid]) for one in study]
        return [replace(one, attributes={**shared[one.series_uid], **self._some(one.orthanc_id, own)}) for one in study]

    def _some(self, orthanc_id: str, keywords: Collection[str]) -> dict[str, tuple[str, ...]]:
        known = self.of(orthanc_id) if keywords else {}
        return {keyword: known[keyword] for keyword in keywords if keyword in known}


def within(tags: Mapping[str, Any], attribute: Attribute) -> tuple[str, ...]:
    """The values of an attribute in a header as Orthanc tells it; of a sequence those in all of its items."""
    items = [tags]
    for sequence in attribute.within:
        several = [found for item in items for found in _told(item, sequence)]
        items = [item for found in several if isinstance(found, list) for item in found if isinstance(item, dict)]
    told = [values(found, attribute.keyword) for item in items for found in _told(item, attribute)]
    return tuple(value for one in told for value in one)


def _told(item: Mapping[str, Any], attribute: Attribute) -> list[Any]:
    """What an item has of it: of a private one, in each block that its creator reserved there (PS3.5 7.8.1)."""
    if not attribute.creator:
        return [item[attribute.path]] if attribute.path in item else []
    group, element = attribute.path[:4], attribute.path[7:]
    blocks = [
        f"{block:02x}"
        for block in range(0x10, 0x100)
        if str(item.get(f"{group},00{block:02x}", "")).strip(" \0") == attribute.creator
    ]
    return [item[key] for key in (f"{group},{block}{element}" for block in blocks) if key in item]


def speakers(study: Sequence[Candidate]) -> dict[str, str]:
    """Which instance (Orthanc id) speaks for each series, and for the study (the empty UID)."""
    found: dict[str, str] = {}
    for one in sorted(study, key=lambda one: one.orthanc_id):
        found.setdefault("", one.orthanc_id)
        found.setdefault(one.series_uid, one.orthanc_id)
    return found


def to_read(study: Sequence[Candidate], lacking: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """What must be read of which instances (Orthanc ids), so that these ones lack nothing any more."""
    speaking = speakers(study)
    series = {one.orthanc_id: one.series_uid for one in study}
    found: dict[str, set[str]] = {}
    for orthanc_id, keywords in lacking.items():
        for keyword in keywords:
            level = attributes.find(keyword).level
            who = orthanc_id if level == "instance" else speaking["" if level == "study" else series[orthanc_id]]
            found.setdefault(who, set()).add(keyword)
    return found
