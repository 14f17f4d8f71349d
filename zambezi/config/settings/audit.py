"""Where the audit trail is sent besides, how often it is signed, and for how long the table keeps it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zambezi.config.settings.alerts import MailAddress
from zambezi.config.settings.section import Section


class AuditCollector(Section):
    """A syslog collector that gets every entry as a DICOM audit message (PS3.15 A.5), over TLS (RFC 5425)."""

    host: str = Field("", pattern=r"^[^\s/]*$", max_length=255, description="Its name or address; empty: none.")
    port: int = Field(6514, ge=1, le=65535, description="Its port.")
    ca_file: str = Field(
        "",
        description="Certificate authority that vouches for it, PEM, instead of the system's; below ZAMBEZI_HOME "
        "unless absolute.",
    )
    certificate_file: str = Field(
        "", description="Our own certificate, by which it knows us (mutual TLS), with its chain, PEM; as CaFile."
    )
    key_file: str = Field("", description="Its key, PEM, readable by the service account alone (0600); as CaFile.")
    server_name: str = Field("", max_length=255, description="The name in its certificate, where that isn't Host.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("CertificateFile goes with KeyFile")
        return self


class Audit(Section):
    """The audit trail: who has a copy of it, how often it is signed, for how long the table keeps it."""

    collector: AuditCollector = Field(AuditCollector(), description="Who else gets it.")
    checkpoint_minutes: int = Field(
        60, ge=1, le=24 * 60, description="So often a signed checkpoint says where every chain stands."
    )
    checkpoint_mail_to: tuple[MailAddress, ...] = Field(
        (),
        max_length=5,
        description="Who gets the newest checkpoint by the server of Alerts.Mail: best somebody outside of the house.",
    )
    checkpoint_mail_hours: float = Field(24, ge=1, le=24 * 31, description="At most one such mail in so long.")
    keep_days: int = Field(
        0,
        ge=0,
        le=36500,
        description="Whole months that are older are sealed into signed files and leave the table; 0: never, else at "
        "least 365.",
    )

    @model_validator(mode="after")
    def _addresses_are_whole(self) -> Self:
        if not all(self.checkpoint_mail_to):
            raise ValueError('CheckpointMailTo: found "", allowed is NAME@HOST')
        return self

    @model_validator(mode="after")
    def _keeps_a_year(self) -> Self:
        if 0 < self.keep_days < 365:
            raise ValueError(f"KeepDays: found {self.keep_days}, allowed is 0 (for ever) or at least 365")
        return self
