"""What the archive holds under a SOP Instance UID, for comparing and releasing."""

from __future__ import annotations

from dataclasses import dataclass

from zambezi.orthanc_client import OrthancClient, OrthancRefused


@dataclass(frozen=True)
class Archived:
    """An instance of the archive, with its whole file."""

    orthanc_id: str
    content: bytes


def ids(orthanc: OrthancClient, sop_uid: str | None, first: str | None = None) -> list[str]:
    """Orthanc's ids of the instances with this UID (more than one: under several patients); `first` leads."""
    if not sop_uid:
        return []
    found = sorted(str(one) for one in orthanc.find("Instance", {"SOPInstanceUID": sop_uid}))
    return sorted(found, key=lambda one: one != first)


def fetch(orthanc: OrthancClient, orthanc_id: str, largest: int | None = None) -> Archived | None:
    """The instance with its bytes; None where it is gone meanwhile, or has more bytes than `largest`."""
    try:
        if largest is not None and int(orthanc.get(f"/instances/{orthanc_id}")["FileSize"]) > largest:
            return None
        return Archived(orthanc_id, orthanc.file(orthanc_id))
    except OrthancRefused as refused:
        if refused.status == 404:
            return None
        raise
