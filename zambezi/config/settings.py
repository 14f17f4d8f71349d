"""The typed form of the `Zambezi` section in orthanc-config/: what an administrator may write there.

Names in the JSON are CamelCase, as in Orthanc's own configuration; orthanc-config/schema/ is generated
from these classes. Each field's description is the line of the manual.
"""

from __future__ import annotations

import sys
from datetime import date, time, timedelta
from itertools import pairwise
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_pascal

from zambezi import holidays as calendar
from zambezi.exception_kinds import KINDS
from zambezi.holidays import Holiday
from zambezi.retries import Policy

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
#: As `openssl x509 -noout -fingerprint -sha1` prints it, with or without colons.
Fingerprint = Annotated[str, Field(pattern=r"^([0-9A-Fa-f]{2}:?){19}[0-9A-Fa-f]{2}$")]
#: zambezi.causes; `ourselves` stands for report, correction and restore.
Cause = Literal["modality", "migration", "report", "correction", "restore", "ourselves"]
MailAddress = Annotated[str, Field(pattern=r"^([^\s@<>,;]+@[^\s@<>,;]+)?$", max_length=254)]


class NamesUnknown(ValueError):
    """Names that point nowhere, or twice: (JSON path below Zambezi, what is wrong)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" for path, what in faults))
        self.faults = faults


class Section(BaseModel):
    """A section that knows all of its keys: an unknown one is a fault, not a wish."""

    model_config = ConfigDict(alias_generator=to_pascal, extra="forbid", frozen=True, populate_by_name=True)


class Site(Section):
    name: str = Field("Hospital", description="The hospital's name, on pages and reports.", max_length=120)
    time_zone: str = Field("Africa/Maputo", description="IANA time zone of pages and reports.")
    language: Literal["pt", "en"] = Field("pt", description="Language of pages before a user has chosen one.")
    issuer: Name = Field("HOSPITAL", description="Issuer of patient IDs that come without one.")
    accession_prefix: str = Field("Z", pattern=r"^[A-Z0-9]{0,6}$", description="Begins the accession numbers we make.")

    holiday_dates: tuple[str, ...] = Field(
        (),
        alias="Holidays",
        description="2026-04-03; 2026-12-24..2026-12-26 with both ends; 12-25 or 12-24..01-02 every year.",
    )

    @field_validator("holiday_dates")
    @classmethod
    def _are_days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for written in value:
            calendar.parse(written)
        return value

    @property
    def holidays(self) -> tuple[Holiday, ...]:
        return tuple(calendar.parse(written) for written in self.holiday_dates)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("not an IANA time zone such as Africa/Maputo or Africa/Harare")
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


class Window(Section):
    """Opening hours: weekdays and times of the site; `To` before `From` goes over midnight.

    All of a window belongs to the day on which it opens: its weekday, its dates, its holiday.
    """

    days: tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...] = Field(
        ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), description="Weekdays on which it opens."
    )
    from_: time = Field(time(0, 0), alias="From", description="Opens at, such as 20:00, in the site's time zone.")
    to: time = Field(time(0, 0), description="Exclusive; equal to From means the whole day.")
    valid_from: date | None = Field(None, description="The first day on which it opens, such as 2026-07-01.")
    valid_until: date | None = Field(None, description="The last day on which it opens.")
    holidays: Literal["closed", "open all day", "as usual"] = Field(
        "as usual", description="What it does on Site.Holidays; open all day: whatever the weekday."
    )
    kilobits_per_second: int | None = Field(
        None,
        ge=8,
        le=100_000_000,
        description="No more goes over the line, on average; of open windows the tightest counts.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_until < self.valid_from:
            raise ValueError("ValidUntil is before ValidFrom: it never opens")
        return self


class Completeness(Section):
    quiet_seconds: float = Field(
        30, ge=0.5, le=3600, description="A study is complete when no instance of it came for so many seconds."
    )


class Destination(Section):
    proof: Literal["found", "acknowledged"] = Field(
        "found",
        description="What counts as delivered: every SOP Instance UID answered to a query, or each C-STORE success.",
    )
    retry_seconds: float = Field(30, ge=0.1, le=86400, description="Wait before the second attempt.")
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(3600, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    attempts: int = Field(50, ge=1, le=10000, description="After so many failed attempts a person must look (parked).")
    break_after: int = Field(
        5, ge=1, le=1000, description="After so many failures in a row it is paused; the pauses grow as the waits do."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be sent to.")

    @property
    def policy(self) -> Policy:
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            self.attempts, jitter=self.retry_jitter,
        )  # fmt: skip


class When(Section):
    """Conditions of a rule; all that are given must hold, and a list holds if one of its values does."""

    modality: tuple[str, ...] = Field((), description="(0008,0060) of an instance is one of these.")
    calling_aet: tuple[str, ...] = Field((), description="The sender's AE title is one of these.")
    called_aet: tuple[str, ...] = Field((), description="The AE title the sender called is one of these.")


class Route(Section):
    name: Name = Field(description="The rule's name; it stands in every route's reason.")
    when: When = Field(When(), description="Which instances; all where nothing is given.")
    causes: tuple[Cause, ...] = Field(
        ("modality",), description="Stores of which cause it acts on; `ourselves`: report, correction, restore."
    )
    send_to: tuple[Name, ...] = Field(min_length=1, description="Names from Destinations.")


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


class Hl7Trigger(Section):
    name: Name = Field(description="The rule's name; it stands in the reason of every message.")
    on: Literal["study-completed", "report-signed"] = Field(description="What must have happened.")
    causes: tuple[Cause, ...] = Field(
        ("modality",),
        description="Stores of which cause it acts on; `ourselves`: report, correction, restore.",
    )
    send_to: Name = Field(description="A name from Hl7.Peers.")
    message: Literal["ORM^O01", "ORU^R01"] = Field(description="ORM^O01: images are there. ORU^R01: the report.")
    pdf: bool = Field(True, description="ORU^R01 carries the report as PDF, too (OBX of type ED).")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        fitting = {"study-completed": "ORM^O01", "report-signed": "ORU^R01"}[self.on]
        if self.message != fitting:
            raise ValueError(f"On {self.on} goes with Message {fitting}")
        return self


class Hl7(Section):
    maximum_message_megabytes: float = Field(16, gt=0, le=64, description="A larger message is refused.")
    maximum_connections: int = Field(64, ge=1, le=1000, description="More at once are refused.")
    idle_seconds: float = Field(300, ge=1, le=86400, description="A connection that is silent for so long is closed.")
    peers: dict[Name, Hl7Peer] = Field(default_factory=dict, description="HIS, EMR ..., by a name of ours.")
    triggers: tuple[Hl7Trigger, ...] = Field((), description="Which peer is told what, and when.")


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


class Session(Section):
    idle_minutes: float = Field(30, ge=1, le=240, description="A sign-in ends when nothing was asked for so long.")
    absolute_hours: float = Field(12, ge=0.5, le=24, description="A sign-in ends after so long, whatever was done.")
    lockout_failures: int = Field(8, ge=3, le=50, description="So many wrong passwords in a row close an account.")
    lockout_minutes: float = Field(15, ge=1, le=1440, description="For so long it stays closed.")
    second_factor_roles: tuple[str, ...] = Field(
        (), description="Roles that must set up a second factor (TOTP) before they get in."
    )


class MigrationSource(Section):
    peer: Name = Field(description="The legacy archive's name in DicomModalities.")
    aet: str = Field(
        "ZAMBEZI_MIG", max_length=16, description="Our AE title for the second, independent retrieve (C-GET)."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be asked.")
    ceiling: int = Field(1, ge=1, le=8, description="Studies moved at once.")
    study_deadline_seconds: float = Field(
        600, ge=5, le=86400, description="A study that takes longer is tried again later."
    )
    retry_seconds: float = Field(5, ge=0.1, le=86400, description="Wait before a study is tried again.")
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(1800, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    break_after: int = Field(
        5, ge=1, le=1000, description="After so many failures in a row it is paused; the pauses grow as the waits do."
    )

    @property
    def policy(self) -> Policy:
        """A dead line is tried for ever; single objects that don't come wait for a person after three attempts."""
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            sys.maxsize, jitter=self.retry_jitter,
        )  # fmt: skip


class Migration(Section):
    sources: dict[Name, MigrationSource] = Field(
        default_factory=dict, description="Legacy archives, by a name of ours."
    )


class Deletion(Section):
    """Images leave the archive by two people's decision and after a wait; whole copies stay in the hold."""

    waiting_hours: float = Field(
        72, ge=0, le=24 * 60, description="A deletion that two people want is carried out so long after the second."
    )
    keep_days: int = Field(
        365, ge=1, le=36500, description="For so long the hold keeps whole copies, which can be restored."
    )


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


class DicomTls(Section):
    """DICOM over TLS: the front door ends it, and shows Orthanc the address that stands for the certificate."""

    certificates: dict[Name, Fingerprint] = Field(
        default_factory=dict,
        description="SHA-1 fingerprint of a peer's certificate, by the peer's name in DicomModalities; "
        "the peer's Host there is a 127.0.10.n of its own.",
    )


class Hold(Section):
    keep_days: float = Field(
        365, ge=30, le=36500, description="So long the hold keeps the old copy of what was corrected or deleted."
    )


class Backup(Section):
    """Where backups go, when, and how long they are kept."""

    repository: str = Field(
        "",
        pattern=r"^(|/.+|sftp:[^\s/:]+:.+)$",
        description="A folder on another disk, such as /mnt/backup/zambezi, or sftp:USER@HOST:/folder. Empty: none.",
    )
    windows: tuple[Window, ...] = Field(
        (Window(from_=time(1, 0), to=time(5, 0)),),
        min_length=1,
        description="When the backup of the day begins, 01:00 to 05:00 unless given; KilobitsPerSecond caps it.",
    )
    keep_daily: int = Field(7, ge=1, le=3660, description="The last backup of so many days is kept.")
    keep_weekly: int = Field(5, ge=0, le=520, description="The last backup of so many weeks is kept.")
    keep_monthly: int = Field(12, ge=0, le=120, description="The last backup of so many months is kept.")
    read_all_in_days: int = Field(
        30, ge=1, le=365, description="Each backup reads back one part of so many; after so many days all was read."
    )


class Zambezi(Section):
    """The whole `Zambezi` section."""

    site: Site = Field(Site(), description="The hospital.")
    completeness: Completeness = Field(Completeness(), description="When a study is complete.")
    destinations: dict[Name, Destination] = Field(
        default_factory=dict, description="Routing destinations, by their name in DicomModalities."
    )
    routing: tuple[Route, ...] = Field((), description="Rules: which images go where once a study is complete.")
    hl7: Hl7 = Field(Hl7(), alias="Hl7", description="Messages with the hospital's information systems.")
    worklist: Worklist = Field(Worklist(), description="What modalities see when they ask for their worklist.")
    session: Session = Field(Session(), description="How long a sign-in lasts, and when an account closes.")
    migration: Migration = Field(Migration(), description="Legacy archives whose studies are brought over.")
    hold: Hold = Field(Hold(), description="What lies apart until somebody decides, and safe copies.")
    deletion: Deletion = Field(Deletion(), description="Images that are to leave the archive.")
    alerts: Alerts = Field(Alerts(), description="Who is told that something waits for a person.")
    disk: Disk = Field(Disk(), description="What is done when a disk gets full.")
    backup: Backup = Field(Backup(), description="Copies of everything, encrypted, on another disk.")
    dicom_tls: DicomTls = Field(DicomTls(), description="Peers that send over TLS, known by their certificates.")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        faults: list[tuple[str, str]] = []
        for n, route in enumerate(self.routing):
            for name in route.send_to:
                if name not in self.destinations:
                    known = ", ".join(sorted(self.destinations)) or "none"
                    faults.append((f"Routing[{n}].SendTo", f'no destination "{name}" (known: {known})'))
        for n, trigger in enumerate(self.hl7.triggers):
            if trigger.send_to not in self.hl7.peers:
                known = ", ".join(sorted(self.hl7.peers)) or "none"
                faults.append((f"Hl7.Triggers[{n}].SendTo", f'no HL7 peer "{trigger.send_to}" (known: {known})'))
        named = [(f"Routing[{n}].Name", route.name) for n, route in enumerate(self.routing)]
        named += [(f"Hl7.Triggers[{n}].Name", trigger.name) for n, trigger in enumerate(self.hl7.triggers)]
        first: dict[str, str] = {}
        for path, name in named:
            if name in first:
                faults.append((path, f'found "{name}", the name of {first[name]}; each rule needs its own'))
            first.setdefault(name, path)
        if faults:
            raise NamesUnknown(faults)
        return self
