"""Another transfer syntax for an image, by Debian's gdcmconv in a process of its own.

A codec reads what comes from outside, and codecs crash: Orthanc 1.10.1 itself dies when it is asked for JPEG-LS
(seen). Here that costs one image its delivery. What was compressed is unpacked again and compared, pixel by pixel,
before it goes.
"""

from __future__ import annotations

import subprocess
import tempfile
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from gateway.sending import AttemptFailed
from zambezi.retries import ErrorClass

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
#: `Transcode` -> transfer syntax (PS3.5 10) and gdcmconv's word for it: all of them without loss.
_KINDS = {
    "uncompressed": (EXPLICIT, "--raw"),
    "jpeg-ls": ("1.2.840.10008.1.2.4.80", "--jpegls"),
    "jpeg-2000": ("1.2.840.10008.1.2.4.90", "--j2k"),
}
#: With big endian and deflated: what isn't compressed.
_UNCOMPRESSED = (EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_UNDEFINED = 0xFFFFFFFF  # length of an element that ends with an item of its own (PS3.5 7.1)
_LONGEST_S = 300
FOLDER = "transcoding"


class Transcoder:
    """Makes images of one `Transcode`; `home` is ZAMBEZI_HOME: what lies on a disk meanwhile lies there."""

    def __init__(self, kind: str, home: Path) -> None:
        self.syntax, self._word = _KINDS[kind]
        self._folder = home / FOLDER

    def changes(self, kept: str) -> bool:
        """Whether it makes anything else of what is stored in this transfer syntax.

        What is compressed isn't compressed anew: what was lost is lost, and it would get larger.
        """
        return (kept not in _UNCOMPRESSED) if self.syntax == EXPLICIT else (kept in _UNCOMPRESSED)

    def transcoded(self, file: bytes) -> bytes:
        """The image as a file in the other syntax; AttemptFailed where that can't be had without loss."""
        before = read(file)
        if "PixelData" not in before or not self.changes(str(before.file_meta.TransferSyntaxUID)):
            return file
        made = self._converted(file, self._word)
        after = read(made)
        if str(after.file_meta.TransferSyntaxUID) != self.syntax:
            raise _failed(before, f"gdcmconv made it {after.file_meta.TransferSyntaxUID.name}")
        if (after.get("SOPInstanceUID"), after.get("SOPClassUID")) != (before.SOPInstanceUID, before.SOPClassUID):
            raise _failed(before, "it would go out under another UID")
        if self.syntax != EXPLICIT and read(self._converted(made, "--raw")).PixelData != _native(before):
            raise _failed(before, "unpacked again it has other pixels")
        return made

    def _converted(self, file: bytes, word: str) -> bytes:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            source, target = Path(name) / "in.dcm", Path(name) / "out.dcm"
            source.write_bytes(file)
            try:
                subprocess.run(["gdcmconv", word, source, target], check=True, timeout=_LONGEST_S, capture_output=True)
                return target.read_bytes()
            except FileNotFoundError as error:
                if error.filename == "gdcmconv":
                    what = "images can't be transcoded: gdcmconv is missing (Debian's package libgdcm-tools)"
                    raise AttemptFailed(ErrorClass.CONFIGURATION, what) from error
                raise _failed(read(file), "gdcmconv made nothing of it") from error
            except subprocess.TimeoutExpired as error:
                raise _failed(read(file), f"it took longer than {_LONGEST_S} s") from error
            except subprocess.CalledProcessError as error:
                raise _failed(read(file), f"gdcmconv ended with {error.returncode}") from error


def _native(dataset: Dataset) -> bytes:
    """Pixels of an uncompressed image, little endian."""
    pixels: bytes = dataset.PixelData
    if dataset.file_meta.TransferSyntaxUID.is_little_endian or dataset.BitsAllocated == 8:
        return pixels
    turned = bytearray(pixels)
    turned[0::2], turned[1::2] = pixels[1::2], pixels[0::2]
    return bytes(turned)


def read(file: bytes) -> Dataset:
    """A Part 10 file; AttemptFailed where it isn't one, or is cut off: pydicom would go on with what there is."""
    try:
        dataset = dcmread(BytesIO(file))
    except InvalidDicomError as error:
        raise AttemptFailed(ErrorClass.OBJECT, "it can't be read as DICOM") from error
    last = dataset.get_item(list(dataset.keys())[-1]) if dataset else None
    if isinstance(last, RawDataElement) and last.length != _UNDEFINED and last.length != len(last.value or b""):
        raise AttemptFailed(ErrorClass.OBJECT, "it is cut off")
    return dataset


def _failed(dataset: Dataset, why: str) -> AttemptFailed:
    return AttemptFailed(ErrorClass.OBJECT, f"{dataset.SOPInstanceUID} can't be transcoded: {why}")
