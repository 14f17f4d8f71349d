"""How a neighbour is tried: when, how often, how long between two attempts."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from zambezi.config.settings.section import Section, Window
from zambezi.retries import Policy


class Patience(Section):
    """What all neighbours have that work is carried to or fetched from."""

    retry_seconds: float = Field(30, ge=0.1, le=86400, description="Wait before the second attempt.")
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(3600, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    attempts: int = Field(50, ge=1, le=10000, description="After so many failed attempts a person must look (parked).")
    break_after: int = Field(
        5, ge=1, le=1000, description="After so many failures in a row it is paused; the pauses grow as the waits do."
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be spoken with.")

    @property
    def policy(self) -> Policy:
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            self.attempts, jitter=self.retry_jitter,
        )  # fmt: skip
