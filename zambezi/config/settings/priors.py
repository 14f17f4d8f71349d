"""A patient's earlier studies that go along with a new one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zambezi.config.settings.section import Section


class Priors(Section):
    """Which of the patient's earlier studies are sent along, to the same destinations; what went there stays there."""

    count: int = Field(2, ge=1, le=20, description="At most so many, the latest first.")
    years: float = Field(5, gt=0, le=100, description="None that is older than so many years before the new one.")
    same: tuple[Literal["modality", "body part"], ...] = Field(
        ("modality",),
        description="What it must have in common; `body part`: (0018,0015), where both say it.",
    )
