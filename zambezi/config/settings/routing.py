"""When a study is complete, and which images go where then."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zambezi.config.settings.section import Name, Section

#: zambezi.causes; `ourselves` stands for report, correction and restore.
Cause = Literal["modality", "migration", "report", "correction", "restore", "ourselves"]


class Completeness(Section):
    quiet_seconds: float = Field(
        30, ge=0.5, le=3600, description="A study is complete when no instance of it came for so many seconds."
    )


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
