"""When a study is complete, and which images go where then."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from zambezi.config.settings.section import Name, Section, Window
from zambezi.retries import Policy

#: zambezi.causes; `ourselves` stands for report, correction and restore.
Cause = Literal["modality", "migration", "report", "correction", "restore", "ourselves"]


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
