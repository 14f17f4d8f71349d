"""Hours in which a legacy archive bears more, or less, than usual."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zambezi.config.settings.section import Window


class CeilingHours(Window):
    """Hours with a ceiling of their own; all else as in a window."""

    ceiling: int = Field(ge=1, le=32, description="Studies at once in these hours, at most.")

    @model_validator(mode="after")
    def _has_no_cap(self) -> Self:
        if self.kilobits_per_second is not None:
            raise ValueError("KilobitsPerSecond belongs to Windows, not to Ceilings")
        return self
