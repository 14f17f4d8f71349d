"""What an Orthanc tells of labels, metadata and attachments of users, by its REST API (Orthanc Book, "Metadata")."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from migration.asking import Asking
from migration.extras import Extra, Kind, Level
from migration.source import Trouble
from zambezi.retries import ErrorClass

#: Numbers below are Orthanc's own.
_FIRST_OF_USERS = 1024
#: What Orthanc before 1.12 calls its own by name; later ones tell numbers.
_OF_ORTHANC = frozenset(
    (
        "AnonymizedFrom", "CalledAET", "ExpectedNumberOfInstances", "HttpHost", "HttpUsername", "IndexInSeries",
        "LastUpdate", "MainDicomTagsSequences", "MainDicomTagsSignature", "ModifiedFrom", "Origin", "PixelDataOffset",
        "PixelDataVR", "ReceptionDate", "RemoteAET", "RemoteIP", "SopClassUid", "TransferSyntax", "dicom",
        "dicom-as-json", "dicom-until-pixel-data",
    )
)  # fmt: skip
#: What Orthanc's plugins work out from the images, and work out anew (Orthanc Book, "registry"): pyramids and OHIF's
#: lists; DICOMweb's lists, and the old web viewer's copies of pixels. Its annotations (9999) are a person's work.
_DERIVED: Mapping[str, Collection[int]] = {
    "metadata": frozenset((4200, 4201, 4202)),
    "attachments": frozenset((4301, 9997, 9998, *range(10_000, 14_000))),
}


def of_study(asking: Asking, study_uid: str, kinds: Collection[Kind]) -> Iterator[Extra]:
    """All of these kinds that are held of a study: of its patient, itself, its series and instances.

    Trouble of kind object where it is under several patients: nobody can say whose they would be here.
    """
    found = [one["ID"] for one in asking.json("POST", "/tools/lookup", study_uid.encode()) if one["Type"] == "Study"]
    if len(found) != 1:
        raise Trouble(ErrorClass.OBJECT, f"the source has the study under {len(found)} patients")
    path = f"/studies/{found[0]}"
    study = asking.json("GET", path)
    patient = f"/patients/{study['ParentPatient']}"
    yield from _of(asking, "patient", "", patient, asking.json("GET", patient), kinds)
    yield from _of(asking, "study", study_uid, path, study, kinds)
    for one in asking.json("GET", f"{path}/series"):
        uid = one["MainDicomTags"].get("SeriesInstanceUID", "")
        yield from _of(asking, "series", uid, f"/series/{one['ID']}", one, kinds)
    for one in asking.json("GET", f"{path}/instances"):
        uid = one["MainDicomTags"].get("SOPInstanceUID", "")
        yield from _of(asking, "instance", uid, f"/instances/{one['ID']}", one, kinds)


def _of(
    asking: Asking, level: Level, uid: str, path: str, content: Mapping[str, Any], kinds: Collection[Kind]
) -> Iterator[Extra]:
    if "label" in kinds:
        for label in sorted(content.get("Labels", ())):
            yield Extra(level, uid, "label", label)
    if "metadata" in kinds:
        for name in of_users(asking, path, "metadata"):
            yield Extra(level, uid, "metadata", name, partial(_content, asking, f"{path}/metadata/{quote(name)}"))
    if "attachment" in kinds:
        for name in of_users(asking, path, "attachments"):
            where = f"{path}/attachments/{quote(name)}"
            size = int(_content(asking, f"{where}/size"))
            yield Extra(level, uid, "attachment", name, partial(_content, asking, f"{where}/data"), size)


def of_users(asking: Asking, path: str, what: str) -> list[str]:
    """What of a resource's `metadata` or `attachments` users put there: numbers, or names where none is told."""
    said = asking.json("GET", f"{path}/{what}?{'numeric' if what == 'metadata' else 'full'}")
    named = [str(one) for one in (said.values() if isinstance(said, dict) else said)]
    return sorted(one for one in named if _is_of_users(one, _DERIVED[what]))


def _is_of_users(name: str, derived: Collection[int]) -> bool:
    if name.isdigit():
        return int(name) >= _FIRST_OF_USERS and int(name) not in derived
    return name not in _OF_ORTHANC


def _content(asking: Asking, path: str) -> bytes:
    return asking.answer("GET", path, of_object=True).body
