"""The JSON Schema of the `Zambezi` section, generated from the typed settings: editors complete and check with it."""

from __future__ import annotations

import json
from typing import Any

from zambezi.config.settings import Zambezi


def document() -> dict[str, Any]:
    """The schema of a file that holds {"Zambezi": ...}, whatever of Orthanc's own stands beside it."""
    section = Zambezi.model_json_schema(by_alias=True)
    definitions = section.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Zambezi's configuration",
        "type": "object",
        "properties": {"Zambezi": section},
        "$defs": definitions,
    }


def text() -> str:
    """The schema as it stands in orthanc-config/schema/zambezi.schema.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
