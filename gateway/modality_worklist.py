"""Answering a worklist query (DICOM PS3.4 K) from the database: which items match, and what of them is told.

Accents don't separate: a station that can only type `conceicao*` finds Conceição.
"""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterable

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from zambezi.worklist import Entry


def answers(entries: Iterable[Entry], query: Dataset, caller: str) -> list[Dataset]:
    """The items of `entries` that `caller` may see and that match its query, with the attributes it asked for."""
    return [
        told(_for_station(entry, caller), query)
        for entry in entries
        if caller in entry.aets and matches(_for_station(entry, caller), query)
    ]


def matches(item: Dataset, query: Dataset) -> bool:
    """Whether every key of the query holds: universal, single value, list of UIDs, wildcard, range, sequence."""
    return all(_holds(element, item) for element in query if element.keyword != "SpecificCharacterSet")


def told(item: Dataset, query: Dataset) -> Dataset:
    """The attributes of an item that the query names (empty where the item has none), and its character set."""
    answer = Dataset()
    for element in query:
        if element.tag.group == 0x0002 or element.keyword == "SpecificCharacterSet":
            continue
        if element.tag not in item:
            answer.add_new(element.tag, element.VR, [] if element.VR == "SQ" else None)
        elif element.VR == "SQ" and element.value and len(element.value[0]):
            inner = [told(one, element.value[0]) for one in item[element.tag].value]
            for one in inner:
                one.pop("SpecificCharacterSet", None)
            answer.add_new(element.tag, "SQ", inner)
        else:
            answer.add(item[element.tag])
    if "SpecificCharacterSet" in item:
        answer.SpecificCharacterSet = item.SpecificCharacterSet
    return answer


def _for_station(entry: Entry, caller: str) -> Dataset:
    # An item for several stations names the first; whoever asks is told its own name.
    step = entry.item.ScheduledProcedureStepSequence[0]
    if caller in entry.aets:
        step.ScheduledStationAETitle = caller
    return entry.item


def _holds(wanted: DataElement, item: Dataset) -> bool:
    if wanted.VR == "SQ":
        inner = wanted.value[0] if wanted.value else Dataset()
        found = item[wanted.tag].value if wanted.tag in item else []
        return not len(inner) or not _has_keys(inner) or any(matches(one, inner) for one in found)
    text = _text(wanted)
    if text in ("", "*"):
        return True
    has = _text(item[wanted.tag]) if wanted.tag in item else ""
    if wanted.VR == "UI":
        return has in text.split("\\")
    if wanted.VR in ("DA", "TM") and "-" in text:
        begin, _, end = text.partition("-")
        # A range's end means the whole of what it names: 10 is until 10:59:59.
        return (not begin or has >= begin) and (not end or has[: len(end)] <= end)
    if wanted.VR in ("DA", "TM"):
        return has.startswith(text)
    return fnmatch.fnmatchcase(_folded(has), _folded(text).replace("[", "[[]"))


def _has_keys(query: Dataset) -> bool:
    return any(element.VR == "SQ" or _text(element) not in ("", "*") for element in query)


def _text(element: DataElement) -> str:
    value = element.value
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip()
    return "\\".join(str(one) for one in value).strip()


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold().rstrip("^ ")
