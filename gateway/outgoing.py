"""What goes out instead of what is stored: other attributes, other pixels' encoding, no patient; or just the same.

An image is only ever changed here, never in the archive. It keeps its UIDs, so that the receiver's answers can be
compared, unless it is de-identified: then they are those of the pseudonyms (gateway.pseudonyms).
"""

from __future__ import annotations

import email.parser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import quote

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom.dsutils import encode

from gateway.associations import EXPLICIT, IMPLICIT
from gateway.sending import AttemptFailed, Instance
from zambezi.config.settings import Destination
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass

#: Explicit VR big endian and deflated: native, too, but rare, and sent as they are.
_NATIVE = (EXPLICIT, IMPLICIT)
#: Transfer syntaxes of `Transcode` (PS3.5 10): all of them without loss.
TRANSCODED = {
    "uncompressed": EXPLICIT,
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-2000": "1.2.840.10008.1.2.4.90",
}
_UNCOMPRESSED = (*_NATIVE, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


@dataclass(frozen=True)
class Stored:
    """What Orthanc's index knows of an instance."""

    sop_class: str
    syntax: str


@dataclass(frozen=True)
class Outgoing:
    """A data set as it goes over the line."""

    sop_uid: str
    body: bytes


#: Takes patient and UIDs out of a data set, in place; AttemptFailed for one of which that can't be promised.
Deidentify = Callable[[Dataset], None]


class Packer:
    """Makes what goes out to one destination."""

    def __init__(self, orthanc: OrthancClient, destination: Destination) -> None:
        self._orthanc = orthanc
        self._set = dict(destination.set_)
        self._remove = destination.remove
        self._target = TRANSCODED.get(destination.transcode, "")

    def stored(self, instances: Sequence[Instance]) -> dict[str, Stored]:
        """What is stored of these, by orthanc_id; what is gone is left out."""
        found = self._orthanc.contents([one.orthanc_id for one in instances])
        told = {one["ID"]: one["Metadata"] for one in found}
        return {
            id: Stored(metadata.get("SopClassUid", ""), metadata.get("TransferSyntax", ""))
            for id, metadata in told.items()
        }

    def syntaxes(self, kept: str) -> tuple[str, ...]:
        """Transfer syntaxes to propose for what is stored in this one, the best first."""
        if self._target and self._is_transcoded(kept):
            return _NATIVE if self._target == EXPLICIT else (self._target,)
        # Every receiver takes implicit VR little endian (PS3.5 10.1), and many old ones nothing else.
        return (kept, *(one for one in _NATIVE if one != kept)) if kept in _NATIVE else (kept,)

    def pack(
        self, study_uid: str, instance: Instance, kept: str, accepted: str, deidentify: Deidentify | None
    ) -> Outgoing:
        """The data set in the accepted transfer syntax. AttemptFailed, OrthancRefused and OrthancUnreachable."""
        if self._target and self._is_transcoded(kept):
            file = self._transcoded(study_uid, instance)
            kept = self._target
        else:
            file = self._orthanc.file(instance.orthanc_id)
        is_changed = self._set or self._remove or deidentify
        if not is_changed and kept == accepted and (start := _data_set_at(file)):
            return Outgoing(instance.sop_uid, file[start:])
        try:
            dataset = dcmread(BytesIO(file))
        except InvalidDicomError as error:
            raise AttemptFailed(ErrorClass.OBJECT, f"{instance.sop_uid} can't be read as DICOM") from error
        if str(dataset.SOPInstanceUID) != instance.sop_uid:
            what = f"{instance.sop_uid} would go out under another UID ({dataset.SOPInstanceUID}), and does not"
            raise AttemptFailed(ErrorClass.OBJECT, what)
        if deidentify is not None:
            deidentify(dataset)
        _change(dataset, self._set, self._remove)
        uid = dataset.file_meta.TransferSyntaxUID
        explicit = accepted if accepted in _NATIVE and kept in _NATIVE else str(uid)
        body = encode(dataset, explicit == IMPLICIT, str(uid) != "1.2.840.10008.1.2.2", uid.is_deflated)
        if body is None:
            raise AttemptFailed(ErrorClass.OBJECT, f"{instance.sop_uid} can't be written in transfer syntax {accepted}")
        return Outgoing(str(dataset.SOPInstanceUID), body)

    def _is_transcoded(self, kept: str) -> bool:
        # What is compressed stays so: what was lost is lost, and packing it anew would make it larger.
        return (kept not in _UNCOMPRESSED) if self._target == EXPLICIT else (kept in _UNCOMPRESSED)

    def _transcoded(self, study_uid: str, instance: Instance) -> bytes:
        """The image in the other syntax, as Orthanc's DICOMweb makes it (WADO-RS, PS3.18 10.4)."""
        steps = (("studies", study_uid), ("series", instance.series_uid), ("instances", instance.sop_uid))
        path = "/dicom-web" + "".join(f"/{name}/{quote(uid, safe='')}" for name, uid in steps)
        wanted = f'multipart/related; type="application/dicom"; transfer-syntax={self._target}'
        try:
            answer = self._orthanc.request("GET", path, headers={"Accept": wanted})
        except OrthancRefused as refused:
            what = f"the archive can't transcode {instance.sop_uid} to {self._target}: HTTP {refused.status}"
            raise AttemptFailed(ErrorClass.OBJECT, what) from refused
        file = _only_part(answer.headers.get("Content-Type", ""), answer.content)
        made = dcmread(BytesIO(file), stop_before_pixels=True)
        if str(made.file_meta.TransferSyntaxUID) != self._target:
            what = f"the archive can't transcode {instance.sop_uid} to {self._target}"
            raise AttemptFailed(ErrorClass.OBJECT, what)
        return file


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


def _data_set_at(file: bytes) -> int:
    """Where the data set of a Part 10 file begins (PS3.10 7.1); 0 where its meta information has no length."""
    if file[128:132] != b"DICM" or file[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0
    return 144 + int.from_bytes(file[140:144], "little")


def _only_part(content_type: str, body: bytes) -> bytes:
    """The one part of a multipart answer (RFC 2046)."""
    head = email.parser.HeaderParser().parsestr(f"Content-Type: {content_type}\n\n")
    mark = b"--" + str(head.get_boundary() or "").encode()
    begin = body.find(b"\r\n\r\n", body.find(mark)) + 4
    end = body.rfind(b"\r\n" + mark)
    if not head.get_boundary() or begin < 4 or end < begin:
        raise AttemptFailed(ErrorClass.OBJECT, "the archive's DICOMweb answered something else than one image")
    return body[begin:end]
