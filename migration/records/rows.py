"""A row of an old system as it was read."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

Value = str | bytes


@dataclass(frozen=True)
class Raw:
    """Where it stands, its columns, and why it can't be told apart (empty: it can)."""

    place: str
    values: dict[str, Value] = field(default_factory=dict)
    fault: str = ""

    def kept(self) -> dict[str, Any]:
        """The same for a JSON column; bytes are marked as base64."""
        return {
            name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
            for name, value in self.values.items()
        }


def of_kept(place: str, kept: dict[str, Any]) -> Raw:
    """What `kept` made, as it was."""
    values = {n: base64.b64decode(v["base64"]) if isinstance(v, dict) else str(v) for n, v in kept.items()}
    return Raw(place, values)
