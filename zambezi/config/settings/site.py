"""The hospital itself, and how long a sign-in to its pages lasts."""

from __future__ import annotations

from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator

from zambezi import holidays as calendar
from zambezi.config.settings.section import Name, Section
from zambezi.holidays import Holiday


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


class Session(Section):
    idle_minutes: float = Field(30, ge=1, le=240, description="A sign-in ends when nothing was asked for so long.")
    absolute_hours: float = Field(12, ge=0.5, le=24, description="A sign-in ends after so long, whatever was done.")
    lockout_failures: int = Field(8, ge=3, le=50, description="So many wrong passwords in a row close an account.")
    lockout_minutes: float = Field(15, ge=1, le=1440, description="For so long it stays closed.")
    second_factor_roles: tuple[str, ...] = Field(
        (), description="Roles that must set up a second factor (TOTP) before they get in."
    )
