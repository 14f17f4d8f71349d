"""What modalities see, and how those are known that send over TLS."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from zambezi.config.settings.destinations import DestinationTls
from zambezi.config.settings.section import Name, Section

#: As `openssl x509 -noout -fingerprint -sha1` prints it, with or without colons.
Fingerprint = Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:?){19}[0-9A-Fa-f]{2}$")]


class Station(Section):
    """A modality that asks for its worklist, by AE title: which of the orders it gets."""

    modality: tuple[str, ...] = Field(min_length=1, description="Modalities it performs, such as CT.")


class Worklist(Section):
    stations: dict[str, Station] = Field(
        default_factory=dict,
        description="By AE title. An order without a station goes to every station of its modality.",
    )
    hours_back: float = Field(72, ge=0, le=24 * 60, description="How long an order not begun stays on the worklist.")
    hours_ahead: float = Field(72, ge=1, le=24 * 60, description="How far ahead a modality sees its orders.")


class DicomTls(Section):
    """DICOM over TLS: the front door ends it, and shows Orthanc the address that stands for the certificate."""

    certificates: dict[Name, Fingerprint] = Field(
        default_factory=dict,
        description="SHA-1 fingerprint of a peer's certificate, by the peer's name in DicomModalities; "
        "the peer's Host there is a 127.0.10.n of its own.",
    )
    calls: dict[Name, DestinationTls] = Field(
        default_factory=dict,
        description="How such a peer is called when it is told that its images are safe (storage commitment) and has "
        "ended the association on which it asked; without, it is told on that association alone.",
    )

    @model_validator(mode="after")
    def _calls_are_whole(self) -> Self:
        for name, one in self.calls.items():
            if name not in self.certificates:
                known = ", ".join(sorted(self.certificates)) or "none"
                raise ValueError(f'Calls.{name}: no "{name}" in Certificates (known: {known})')
            if not one.ca_file or not one.host:
                raise ValueError(f"Calls.{name}: CaFile and Host are needed: Host in DicomModalities is ours, not its")
        return self
