from __future__ import annotations

import json
import re

from zambezi.config import Zambezi, schema
from zambezi.environment import REPOSITORY


def test_the_schema_in_the_repository_is_the_one_that_the_settings_give():
    """`zambezi config schema > orthanc-config/schema/zambezi.schema.json` brings it up to date."""
    kept = REPOSITORY / "orthanc-config" / "schema" / "zambezi.schema.json"
    assert kept.read_text(encoding="utf-8") == schema.text()


def test_an_editor_takes_what_we_take_as_a_condition():
    when = schema.document()["$defs"]["When"]
    (keyword,) = when["patternProperties"]
    tests = {
        key for key, of in when["properties"].items() if of.get("oneOf") == when["patternProperties"][keyword]["oneOf"]
    }
    assert tests == {"Modality", "CallingAet", "CalledAet", "Site", "Priority"}
    assert {key for key in when["properties"] if re.search(keyword, key)} == tests
    assert re.search(keyword, "SliceThickness")
    assert not when["additionalProperties"]


def test_the_rules_in_the_manual_can_be_used():
    manual = (REPOSITORY / "orthanc-config" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(\"Access.*?)```", manual, flags=re.DOTALL)
    section = json.loads(f'{{"Destinations": {{"NEURO": {{}}, "MAPUTO": {{}}}}, {example}}}')
    assert [route.late for route in Zambezi.model_validate_json(json.dumps(section), strict=True).routing] == [
        "added only", "all",
    ]  # fmt: skip
