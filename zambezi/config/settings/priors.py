"""A patient's earlier studies that go along with a new one, or are fetched because of it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from zambezi.config.settings.patience import Patience
from zambezi.config.settings.section import Name, Section


class Priors(Section):
    """Which of the patient's earlier studies: those here are sent along, to the same destinations; those of other
    archives are fetched, and go no further. What went there stays there; what is here isn't fetched.
    """

    count: int = Field(2, ge=1, le=20, description="At most so many, the latest first.")
    years: float = Field(5, gt=0, le=100, description="None that is older than so many years before the new one.")
    same: tuple[Literal["modality", "body part"], ...] = Field(
        ("modality",),
        description="What it must have in common; `body part`: (0018,0015), where both say it.",
    )
    fetch_from: tuple[Name, ...] = Field(
        (), description="Names from PriorSources: what these have of them comes into this archive, and goes nowhere."
    )
    ahead_hours: float | None = Field(
        None,
        gt=0,
        le=336,
        description="FetchFrom: as soon as an exam is ordered that is at most so many hours away, such as 24, and not "
        "only when its images come. Of an order its modality is known: When must ask for that alone, or nothing.",
    )

    @model_validator(mode="after")
    def _fetches_ahead(self) -> Self:
        if self.ahead_hours and not self.fetch_from:
            raise ValueError("AheadHours without FetchFrom: there is nothing to fetch ahead")
        return self

    @property
    def of_each_other(self) -> dict[str, Any]:
        """What makes one study a prior of another, as a delivery keeps it."""
        return self.model_dump(mode="json", by_alias=True, include={"count", "years", "same"})


class PriorSource(Patience):
    """An archive that earlier studies are fetched from; it must know our own AE title."""

    retrieve: Literal["move", "get"] = Field(
        "move",
        description="move: it sends by C-MOVE to our door. get: by C-GET, through the gateway: slower, for one that "
        "can't be told to move to us.",
    )
    most_instances: int = Field(2000, ge=1, le=100_000, description="A study with more images isn't fetched.")
    study_minutes: float = Field(
        30, gt=0, le=1440, description="A study that isn't here after so long is given up, and tried again."
    )

    @model_validator(mode="after")
    def _has_no_cap(self) -> Self:
        if self.retrieve == "move" and any(window.kilobits_per_second for window in self.windows):
            raise ValueError(
                "KilobitsPerSecond can't be kept: the other archive sends, as fast as it does (Retrieve get keeps it)"
            )
        return self
