"""The ids that Orthanc gives to patients' studies and series: SHA-1 of what names them (Orthanc Book, identifiers).

The same Study UID under another Patient ID is another study of Orthanc; so a corrected study has another id.
"""

from __future__ import annotations

import hashlib


def study(patient_id: str, study_uid: str) -> str:
    """Orthanc's id of a study."""
    return _hashed(patient_id, study_uid)


def series(patient_id: str, study_uid: str, series_uid: str) -> str:
    """Orthanc's id of a series."""
    return _hashed(patient_id, study_uid, series_uid)


def _hashed(*parts: str) -> str:
    # Orthanc takes the blanks off the values first, as DICOM's padding means nothing.
    digest = hashlib.sha1("|".join(part.strip() for part in parts).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[n : n + 8] for n in range(0, 40, 8))
