"""What an object's own bytes say of its identity, for rows whose writer couldn't know it."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmread

from zambezi import orthanc_ids

_KEYWORDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")


@dataclass(frozen=True)
class Identity:
    """The UIDs and the patient's ID of an object; None where it has none."""

    sop_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None
    patient_id: str = ""

    @property
    def orthanc_id(self) -> str | None:
        """The id that Orthanc gives to such an instance (Orthanc Book, "Orthanc identifiers"); None where it can't be
        told: Orthanc refuses an object without its UIDs, and reads other letters by their character set."""
        parts = (self.patient_id, self.study_uid or "", self.series_uid or "", self.sop_uid or "")
        if not all(parts[1:]) or not all(part.isascii() for part in parts):
            return None
        return orthanc_ids.instance(*parts)

    @property
    def columns(self) -> dict[str, Any]:
        """As the hold's rows have them."""
        return {**asdict(self), "orthanc_id": self.orthanc_id}


def identify(content: bytes) -> Identity:
    """Read it, as far as it can be read; what is no DICOM has no identity."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are no obstacle here
            found = dcmread(BytesIO(content), force=True, stop_before_pixels=True, specific_tags=list(_KEYWORDS))
            sop, series, study, patient = (str(found.get(keyword) or "").strip(" \0") for keyword in _KEYWORDS)
    except (ValueError, TypeError, KeyError, EOFError, OSError, AttributeError, NotImplementedError, OverflowError):
        return Identity()
    return Identity(sop[:64] or None, series[:64] or None, study[:64] or None, patient[:64])
