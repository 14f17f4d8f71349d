"""When a study is complete, and which images go where then."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zambezi.config.settings.priors import Priors
from zambezi.config.settings.section import Name, NamesUnknown, Section
from zambezi.config.settings.when import When

#: zambezi.causes; `ourselves` stands for report, correction and restore.
Cause = Literal["modality", "migration", "prefetch", "report", "correction", "restore", "ourselves"]


#: What tells that a study is complete, besides that nothing more comes (plugins.readiness).
Signal = Literal["mpps", "commitment", "count"]


class Completeness(Section):
    quiet_seconds: float = Field(
        30, ge=0.5, le=86400, description="A study is complete when no instance of it came for so many seconds."
    )
    by: tuple[Signal, ...] = Field(
        (),
        description="It is complete sooner when one of these says so. mpps: the modality ended the exam, and what it "
        "counted is here. commitment: a storage commitment was asked for, and what it named is here. count: as many "
        "as the images themselves tell, (0020,1208) or (0020,1209).",
    )
    settle_seconds: float = Field(
        10,
        ge=0,
        le=3600,
        description="After such a sign it must be quiet for so long: the last may be on the way.",
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.by and "quiet_seconds" not in self.model_fields_set:
            raise ValueError(
                "By goes with QuietSeconds: after so long a quiet the study counts as complete although no sign came, "
                "such as 600; else it might wait for ever"
            )
        if self.by and self.settle_seconds > self.quiet_seconds:
            raise ValueError("SettleSeconds is more than QuietSeconds: no sign would ever make a difference")
        return self


class Route(Section):
    name: Name = Field(description="The rule's name; it stands in every route's reason.")
    when: When = Field(When(), description="Which instances; all where nothing is given.")
    whole: Literal["instance", "series", "study"] = Field(
        "instance", description="What goes where one instance meets the conditions: itself, its series, its study."
    )
    causes: tuple[Cause, ...] = Field(
        ("modality",), description="Stores of which cause it acts on; `ourselves`: report, correction, restore."
    )
    completeness: Completeness | None = Field(
        None, description="When a study is complete for this rule; unless given as in Zambezi.Completeness."
    )
    late: Literal["never", "added only", "all"] = Field(
        "added only", description="What goes of a study that went before, when more of its images came."
    )
    priority: int = Field(
        0, ge=0, le=100, description="Higher goes first; an order's priority counts as 50 (HIGH) or 100 (STAT)."
    )
    send_to: tuple[Name, ...] = Field(
        (), description="Names from Destinations; none where the rule fetches earlier studies and no more."
    )
    priors: Priors | None = Field(None, description="Earlier studies of the patient that go along, or are fetched.")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.send_to and not (self.priors and self.priors.fetch_from):
            what = "names no destination, and Priors no FetchFrom: the rule would do nothing"
            raise NamesUnknown([("SendTo", what)])
        if self.priors and self.priors.ahead_hours and not self.when.asks_for_modalities_alone:
            what = (
                "asks for more than values of Modality, but Priors.AheadHours acts on orders, of which nothing else is "
                "known: give that a rule of its own"
            )
            raise NamesUnknown([("When", what)])
        return self
