"""Storage commitment: how patient we are before we say that an image isn't there, and with who must be told."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from zambezi.config.settings.section import Section, Window
from zambezi.retries import Policy


class StorageCommitment(Section):
    wait_seconds: float = Field(
        60, ge=0, le=86400, description="So long after it was asked what isn't there yet is looked for again."
    )
    retry_seconds: float = Field(
        30, ge=0.1, le=86400, description="Wait before a station is called a second time to be told."
    )
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(3600, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    attempts: int = Field(50, ge=1, le=10000, description="After so many failed attempts a person must look (parked).")
    windows: tuple[Window, ...] = Field((Window(),), description="When stations may be called to be told.")

    @property
    def policy(self) -> Policy:
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            self.attempts, jitter=self.retry_jitter,
        )  # fmt: skip
