"""Images for the tests of coercion, and rules as an administrator writes them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread

from zambezi.coercion.rules import Rules
from zambezi.config.settings import Zambezi


def rules(*written: dict[str, Any]) -> Rules:
    """Rules from the JSON of `Coercions`; names are made up where none is given."""
    named = [{"Name": f"rule-{n}", **one} for n, one in enumerate(written)]
    return Rules(Zambezi.model_validate({"Coercions": named}).coercions)


def read(content: bytes) -> Dataset:
    return dcmread(BytesIO(content))
