"""What goes out instead of what is stored: other attributes, other pixels' encoding, no patient; or just the same.

An image is only ever changed here, never in the archive. It keeps its UIDs, so that the receiver's answers can be
compared, unless it is de-identified: then they are those of the pseudonyms (gateway.pseudonyms).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from gateway.sending import AttemptFailed, Instance
from gateway.transcoding import EXPLICIT, IMPLICIT, Transcoder, read
from zambezi.config.settings import Destination
from zambezi.orthanc_client import OrthancClient
from zambezi.retries import ErrorClass

#: Explicit VR big endian and deflated: native, too, but rare, and sent as they are.
NATIVE = (EXPLICIT, IMPLICIT)


@dataclass(frozen=True)
class Stored:
    """What Orthanc's index knows of an instance."""

    sop_class: str
    syntax: str


@dataclass(frozen=True)
class Outgoing:
    """A data set as it goes over the line."""

    sop_uid: str
    context_id: int
    body: bytes


#: Takes patient and UIDs out of a data set, in place; AttemptFailed for one of which that can't be promised.
Deidentify = Callable[[Dataset], None]


class Packer:
    """Makes what goes out to one destination."""

    def __init__(self, orthanc: OrthancClient, destination: Destination, home: Path) -> None:
        self._orthanc = orthanc
        self._set = dict(destination.set_)
        self._remove = destination.remove
        self._transcoder = Transcoder(destination.transcode, home) if destination.transcode else None

    def stored(self, instances: Sequence[Instance]) -> dict[str, Stored]:
        """What is stored of these, by orthanc_id; what is gone is left out."""
        found = self._orthanc.contents([one.orthanc_id for one in instances])
        told = {one["ID"]: one["Metadata"] for one in found}
        return {
            id: Stored(metadata.get("SopClassUid", ""), metadata.get("TransferSyntax", ""))
            for id, metadata in told.items()
        }

    def syntaxes(self, kept: str) -> tuple[tuple[str, ...], ...]:
        """Transfer syntaxes to propose for what is stored in this one: of each group the receiver takes one."""
        # Every receiver takes implicit VR little endian (PS3.5 10.1), and many old ones nothing else.
        same = (kept, *(one for one in NATIVE if one != kept)) if kept in NATIVE else (kept,)
        if self._transcoder is None or not self._transcoder.changes(kept):
            return (same,)
        # What has no pixels goes as it is.
        return (NATIVE, same) if self._transcoder.syntax in NATIVE else ((self._transcoder.syntax,), same)

    def pack(
        self, instance: Instance, sop_class: str, accepted: Mapping[str, int], deidentify: Deidentify | None
    ) -> Outgoing:
        """The data set in an accepted transfer syntax. AttemptFailed, OrthancRefused and OrthancUnreachable."""
        file = self._orthanc.file(instance.orthanc_id)
        if self._transcoder is not None:
            file = self._transcoder.transcoded(file)
        start, kept = _data_set(file)
        if start and kept in accepted and not (self._set or self._remove or deidentify):
            return Outgoing(instance.sop_uid, accepted[kept], file[start:])
        dataset = read(file)
        kept = str(dataset.file_meta.TransferSyntaxUID)
        syntax = next((one for one in (kept, *(NATIVE if kept in NATIVE else ())) if one in accepted), "")
        if not syntax:
            raise AttemptFailed(ErrorClass.OBJECT, f"it takes no {sop_class} in {kept}")
        if deidentify is not None:
            deidentify(dataset)
        _change(dataset, self._set, self._remove)
        uid = UID(syntax)
        body = encode(dataset, uid.is_implicit_VR, uid.is_little_endian, uid.is_deflated)
        if body is None:
            raise AttemptFailed(ErrorClass.OBJECT, f"{instance.sop_uid} can't be written in transfer syntax {syntax}")
        return Outgoing(str(dataset.SOPInstanceUID), accepted[syntax], body)


def _change(dataset: Dataset, values: Mapping[str, str], removed: Sequence[str]) -> None:
    """Set and remove attributes; the character set is widened where a value needs it."""
    for keyword in removed:
        if keyword in dataset:
            del dataset[keyword]
    if any(not value.isascii() for value in values.values()) and dataset.get("SpecificCharacterSet") != "ISO_IR 192":
        dataset.decode()
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def _data_set(file: bytes) -> tuple[int, str]:
    """Where a Part 10 file's data set begins, and its transfer syntax (PS3.10 7.1); (0, "") if that isn't plain."""
    if file[128:132] != b"DICM" or file[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0, ""
    start = 144 + int.from_bytes(file[140:144], "little")
    found = file.find(b"\x02\x00\x10\x00UI", 144, start)
    length = int.from_bytes(file[found + 6 : found + 8], "little")
    return (start, file[found + 8 : found + 8 + length].decode("ascii").rstrip("\0 ")) if found > 0 else (0, "")
