"""What all sections have in common: each knows all of its keys; names; opening hours."""

from __future__ import annotations

from datetime import date, time
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_pascal

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class NamesUnknown(ValueError):
    """Names that point nowhere, or twice: (JSON path below Zambezi, what is wrong)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" for path, what in faults))
        self.faults = faults


class Section(BaseModel):
    """A section that knows all of its keys: an unknown one is a fault, not a wish."""

    model_config = ConfigDict(alias_generator=to_pascal, extra="forbid", frozen=True, populate_by_name=True)


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
