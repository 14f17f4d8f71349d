"""Legacy archives."""

from __future__ import annotations

import sys
from datetime import timedelta

from pydantic import Field

from zambezi.config.settings.migration_hours import CeilingHours
from zambezi.config.settings.section import Name, Section, Window
from zambezi.retries import Policy


class MigrationSource(Section):
    peer: Name = Field(description="The legacy archive's name in DicomModalities.")
    aet: str = Field(
        "ZAMBEZI_MIG", max_length=16, description="Our AE title for the second, independent retrieve (C-GET)."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be asked.")
    ceiling: int = Field(
        1, ge=1, le=32, description="Studies moved at once, at most; how many of them, its own answers decide."
    )
    ceilings: tuple[CeilingHours, ...] = Field(
        (), description="Hours with another ceiling, such as working hours; where several hold, the lowest."
    )
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
