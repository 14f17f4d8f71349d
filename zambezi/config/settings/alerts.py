"""Who is told of what, and when; room on the disks."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from zambezi.config.settings.section import Section, Window
from zambezi.exception_kinds import KINDS

MailAddress = Annotated[str, Field(pattern=r"^([^\s@<>,;]+@[^\s@<>,;]+)?$", max_length=254)]


class AlertWebhook(Section):
    """An HTTP POST of JSON: to a chat, a ticket system, an SMS gateway ..."""

    url: str = Field("", description="Where alerts are posted; https, or http to this machine. Empty: nowhere.")
    secret_file: str = Field(
        "",
        description="File whose content signs each post (HMAC-SHA256 in X-Zambezi-Signature); below ZAMBEZI_HOME "
        "unless absolute.",
    )
    ca_file: str = Field("", description="Certificate authority to trust instead of the system's, PEM; as SecretFile.")

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            port_is_good = parts.port != 0
        except ValueError:
            port_is_good, parts = False, urlsplit("")
        is_here = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or not port_is_good or not (parts.scheme == "https" or is_here):
            raise ValueError("not https://HOST/..., nor http:// to this machine")
        if parts.username or parts.password:
            raise ValueError("a password doesn't belong here; SecretFile signs each post")
        return value


class AlertMail(Section):
    """Alerts by e-mail."""

    host: str = Field("", description="SMTP server; empty: no mail.", max_length=255)
    port: int = Field(587, ge=1, le=65535, description="Its port: 587 with starttls, 465 with tls, 25 with none.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection is secured; certificates are checked. none: no User."
    )
    user: str = Field("", description="Name to sign in with; empty: without signing in.", max_length=255)
    password_file: str = Field("", description="File with the password; below ZAMBEZI_HOME unless absolute.")
    ca_file: str = Field(
        "", description="Certificate authority to trust instead of the system's, PEM; as PasswordFile."
    )
    from_: MailAddress = Field("", alias="From", description="Sender's address.")
    to: tuple[MailAddress, ...] = Field((), max_length=20, description="Who gets the mails.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.host and not (self.from_ and self.to and all(self.to)):
            raise ValueError("Host goes with From and To")
        if self.security == "none" and self.user:
            raise ValueError('with Security "none" a password would cross the network readable: leave User empty')
        if bool(self.user) != bool(self.password_file):
            raise ValueError("User goes with PasswordFile")
        return self


class ExpectedModality(Section):
    """When a modality works: outside of it, its silence means nothing."""

    hours: float = Field(
        4, ge=0.1, le=500, description="It is silent when it sent and asked nothing for so many hours of its windows."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it works.")


class Alerts(Section):
    """Who is told that something waits for a person, and when. Alerts hold no patient data."""

    webhook: AlertWebhook = Field(AlertWebhook(), description="By an HTTP POST.")
    mail: AlertMail = Field(AlertMail(), description="By e-mail.")
    page_address: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="How persons reach these pages, such as https://pacs.hospital.local.",
    )
    interval_minutes: float = Field(15, ge=0.1, le=1440, description="At most one message in so long; it tells of all.")
    hours: float = Field(24, ge=0, le=24 * 365, description="What waits for so long is told of; serious kinds at once.")
    hours_of_kind: dict[str, float] = Field(
        {"delivery-parked": 1}, description="The same for single kinds, by the kind's word; 0: at once."
    )
    repeat_hours: float = Field(
        24, ge=0, le=24 * 365, description="What goes on (disk, process, modality ...) is told again; 0: never."
    )
    calm_minutes: float = Field(
        5, ge=0, le=24 * 60, description="Such a thing is over when it was not seen for so long; then that is told."
    )
    modalities: dict[str, ExpectedModality] = Field(
        default_factory=dict, description="By AE title: modalities of which somebody is told when they are silent."
    )
    certificate_days: int = Field(
        30, ge=0, le=365, description="The front door's certificate is told of so many days before its end; 0: never."
    )
    backup_hours: float = Field(
        48, ge=0, le=24 * 365, description="A backup is old when no good one ended within so many hours; 0: never."
    )
    digest_hour: int | None = Field(
        7, ge=0, le=23, description="Hour of the site at which all that waits is told once a day; null: never."
    )

    @field_validator("hours_of_kind")
    @classmethod
    def _kinds_are_known(cls, value: dict[str, float]) -> dict[str, float]:
        for kind, hours in value.items():
            if kind not in KINDS:
                raise ValueError(f'no kind "{kind}" (known: {", ".join(sorted(KINDS))})')
            if not 0 <= hours <= 24 * 365:
                raise ValueError(f"{kind}: found {hours:g}, allowed is 0 to 8760")
        return value


class Watermark(Section):
    gigabytes: float = Field(ge=0, le=1_000_000, description="Free gigabytes.")
    percent: float = Field(ge=0, le=100, description="Free percent of the volume; of both the smaller one counts.")


class Disk(Section):
    """Free room on each volume (images, index, journal, database, hold), below which something is done about it."""

    warn: Watermark = Field(Watermark(gigabytes=20, percent=10), description="A person is warned; by itself 20 and 10.")
    stop_migration: Watermark = Field(
        Watermark(gigabytes=10, percent=5), description="Migration stops until there is more; by itself 10 and 5."
    )
    refuse: Watermark = Field(
        Watermark(gigabytes=5, percent=2),
        description="Modalities are refused (A700, out of resources), and so are migrations: what is left is for "
        "database, index and journal. At half of it nothing is stored at all. By itself 5 and 2.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        marks = (self.warn, self.stop_migration, self.refuse)
        for more, less in pairwise(marks):
            if less.gigabytes > more.gigabytes or less.percent > more.percent:
                raise ValueError("Warn wants the most room, then StopMigration, then Refuse, in both figures")
        return self
