"""A patient's earlier studies that go along with a new one, or are fetched because of it."""

from __future__ import annotations

from typing import Literal, Self

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


class PriorSource(Patience):
    """An archive that earlier studies are fetched from by C-MOVE to our own AE title, which it must know."""

    most_instances: int = Field(2000, ge=1, le=100_000, description="A study with more images isn't fetched.")
    study_minutes: float = Field(
        30, gt=0, le=1440, description="A study that isn't here after so long is given up, and tried again."
    )

    @model_validator(mode="after")
    def _has_no_cap(self) -> Self:
        if any(window.kilobits_per_second for window in self.windows):
            raise ValueError("KilobitsPerSecond can't be kept: the other archive sends, as fast as it does")
        return self
