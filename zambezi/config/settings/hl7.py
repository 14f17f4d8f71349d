"""Messages with the hospital's information systems."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from zambezi.config.settings.section import Name, Section, Window
from zambezi.config.settings.triggers import Hl7Template, Hl7Trigger
from zambezi.retries import Policy


class Hl7Fields(Section):
    """Where a sender writes what: HL7 paths such as OBR-18 or ZDS-1.1 (a sender's habits are configuration)."""

    placer_number: str = Field("ORC-2", description="The order's number at the sender.")
    filler_number: str = Field("ORC-3", description="Our own number of the order, where the sender has it.")
    accession_number: str = Field("OBR-18", description="Accession number.")
    study_uid: str = Field("ZDS-1.1", description="Study Instance UID, where the sender makes it.")
    modality: str = Field("OBR-24", description="Modality, such as CT.")
    procedure_code: str = Field("OBR-4.1", description="Code of the procedure.")
    procedure_text: str = Field("OBR-4.2", description="The procedure in words.")
    scheduled_at: str = Field("ORC-7.4", description="When it is to be done.")
    station_aet: str = Field("ORC-18", description="AE title of the station that is to do it.")


class Hl7Peer(Section):
    application: str = Field(description="MSH-3 of what it sends; MSH-5 of what it gets.", max_length=180)
    facility: str = Field("", description="MSH-4 of what it sends; MSH-6 of what it gets. Empty: not checked.")
    addresses: tuple[str, ...] = Field(("127.0.0.1",), description="IP addresses it may connect from.")
    host: str = Field("", description="Where it listens for our messages; empty: it gets none.")
    port: int = Field(2575, ge=1, le=65535, description="The port it listens on.")
    encoding: Literal["UNICODE UTF-8", "8859/1"] = Field("UNICODE UTF-8", description="MSH-18 of what we send.")
    hl7_version: Literal["2.3.1", "2.5.1"] = Field("2.5.1", description="MSH-12 of what we send.")
    fields: Hl7Fields = Field(Hl7Fields(), description="Where this sender writes what.")
    retry_seconds: float = Field(15, ge=0.1, le=86400, description="Wait before a message is sent again.")
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(300, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    attempts: int = Field(1000, ge=1, le=100000, description="After so many failures a person must look (parked).")
    refusals: int = Field(
        10, ge=1, le=1000, description="So often one message may be answered AE or AR before a person must look."
    )
    break_after: int = Field(
        5, ge=1, le=1000, description="After so many failures in a row it is paused; the pauses grow as the waits do."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be sent to.")

    @property
    def policy(self) -> Policy:
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            self.attempts, self.refusals, self.retry_jitter,
        )  # fmt: skip


class Hl7(Section):
    maximum_message_megabytes: float = Field(16, gt=0, le=64, description="A larger message is refused.")
    maximum_connections: int = Field(64, ge=1, le=1000, description="More at once are refused.")
    idle_seconds: float = Field(300, ge=1, le=86400, description="A connection that is silent for so long is closed.")
    peers: dict[Name, Hl7Peer] = Field(default_factory=dict, description="HIS, EMR ..., by a name of ours.")
    triggers: tuple[Hl7Trigger, ...] = Field((), description="Which peer is told what, and when.")
    templates: dict[Name, Hl7Template] = Field(
        default_factory=dict, description="Messages of your own, for triggers that name them."
    )
