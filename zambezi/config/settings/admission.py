"""Who may send what to the archive's DICOM port, besides what DicomModalities allows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zambezi.config.settings.section import Name, Section

#: accept: store it. hold: keep it whole for a person, and warn the sender (B007). refuse: the sender keeps it.
Policy = Literal["accept", "hold", "refuse"]
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]


class PeerAdmission(Section):
    """What differs for one peer; a key that isn't given is as it is for all."""

    missing_identity: Policy | None = Field(None, description="As for all peers, where it isn't given.")
    malformed_identity: Policy | None = Field(None, description="As for all peers, where it isn't given.")
    sop_classes: tuple[Uid, ...] | None = Field(None, description="Only these; [] for every one.")
    refused_sop_classes: tuple[Uid, ...] | None = Field(None, description="Not these; [] for none.")
    largest_megabytes: float | None = Field(None, gt=0, le=100_000, description="Larger objects are refused.")


class Admission(Section):
    """What the archive takes in by C-STORE. As delivered nothing is looked at, and nothing is slower for it."""

    missing_identity: Policy = Field("accept", description="An image without a Patient ID: `accept`, `hold`, `refuse`.")
    malformed_identity: Policy = Field(
        "accept", description="A Patient ID or UID with characters or a length that DICOM doesn't allow."
    )
    sop_classes: tuple[Uid, ...] = Field((), description="Only these SOP classes (UIDs); none given: every one.")
    refused_sop_classes: tuple[Uid, ...] = Field((), description="Not these SOP classes (UIDs).")
    largest_megabytes: float | None = Field(None, gt=0, le=100_000, description="Larger objects are refused.")
    peers: dict[Name, PeerAdmission] = Field(
        default_factory=dict, description="What differs for a peer, by its name in DicomModalities."
    )
