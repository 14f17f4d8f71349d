"""The ids that Orthanc gives to patients, studies, series and instances: SHA-1 of what names them (Orthanc Book).

The same Study UID under another Patient ID is another study of Orthanc; so a corrected study has another id. Values
are without padding, as DICOM's padding means nothing, and, where they aren't ASCII, as Orthanc reads them (UTF-8).
Standard library only: the plugin asks for each instance that comes in.
"""

from __future__ import annotations

import hashlib


def patient(patient_id: str) -> str:
    """Orthanc's id of a patient."""
    return _hashed(patient_id.strip())


def study(patient_id: str, study_uid: str) -> str:
    """Orthanc's id of a study."""
    return _hashed(patient_id.strip(), study_uid)


def series(patient_id: str, study_uid: str, series_uid: str) -> str:
    """Orthanc's id of a series."""
    return _hashed(patient_id.strip(), study_uid, series_uid)


def instance(patient_id: str, study_uid: str, series_uid: str, sop_uid: str) -> str:
    """Orthanc's id of an instance; the values as Orthanc takes them (what has VR UN keeps its padding)."""
    return _hashed(patient_id, study_uid, series_uid, sop_uid)


def _hashed(*parts: str) -> str:
    digest = hashlib.sha1("|".join(parts).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[n : n + 8] for n in range(0, 40, 8))
